"""What is typed for a campaign, windows, and what so many boards prove."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.provisioning.campaign.city import targets

from laterne_provisioning import audit, interpreters
from laterne_provisioning.campaign import choosing, evidence, windows
from laterne_provisioning.campaign.plan import canaries
from laterne_provisioning.campaign.windows import window_of
from laterne_provisioning.errors import UsageError
from laterne_provisioning.registry import Board


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())


@pytest.mark.parametrize(
    ("window", "moment", "closes"),
    [
        ("Mo-Fr 02:00-04:00", "2026-11-23T02:00:00Z", "2026-11-23T04:00:00Z"),
        ("Mo-Fr 02:00-04:00", "2026-11-23T04:00:00Z", None),
        ("Mo-Fr 02:00-04:00", "2026-11-22T03:00:00Z", None),  # a Sunday
        ("02:00-04:00", "2026-11-22T03:00:00Z", "2026-11-22T04:00:00Z"),
        ("Fr-Mo 02:00-04:00", "2026-11-22T03:00:00Z", "2026-11-22T04:00:00Z"),
        ("Sa 22:30-05:00", "2026-11-22T04:59:59Z", "2026-11-22T05:00:00Z"),  # begun on Saturday
        ("Su 22:30-05:00", "2026-11-22T04:59:59Z", None),
        ("Mo-Fr 02:00-04:00 Europe/Berlin", "2026-11-23T01:30:00Z", "2026-11-23T03:00:00Z"),
        ("Mo-Fr 02:00-04:00 Europe/Berlin", "2026-07-20T00:30:00Z", "2026-07-20T02:00:00Z"),
        # The clocks go forward at 02:00: that window has two hours all the same.
        ("Su 01:00-04:00 Europe/Berlin", "2026-03-29T02:59:00Z", "2026-03-29T03:00:00Z"),
    ],
)
def test_a_window_is_open_when_it_says_by_its_own_clocks(window: str, moment: str, closes: str | None) -> None:
    assert window_of(window).closes(at(moment)) == (None if closes is None else at(closes))


def test_the_longest_open_window_counts_and_an_order_ends_with_it() -> None:
    both = (window_of("02:00-04:00"), window_of("03:00-06:00"))
    now = at("2026-11-22T03:30:00Z")
    assert windows.closes(both, now, 10**6) == at("2026-11-22T06:00:00Z")
    assert windows.closes(both, now, 900) == now + 900
    assert windows.closes((), now, 900) == now + 900
    assert windows.closes(both, at("2026-11-22T07:00:00Z"), 900) is None


@pytest.mark.parametrize(
    "text", ["", "always", "Mo 2:00-4:00", "Xx 02:00-04:00", "24:00-01:00", "02:00-02:00", "02:00-03:00 Mars/Olympus"]
)
def test_what_is_no_window_is_told_with_an_example(text: str) -> None:
    with pytest.raises(UsageError):
        window_of(text)


@pytest.mark.parametrize(("boards", "percent"), [(29, 10), (59, 5), (149, 2), (299, 1)])
def test_so_many_clean_boards_prove_so_much(boards: int, percent: float) -> None:
    # facts: n = ln 0.05 / ln (1 - p)
    assert evidence.bound(0, boards) < percent / 100 < evidence.bound(0, boards - 1)


def test_the_bound_with_failures_is_that_of_the_tables() -> None:
    # Clopper and Pearson, one-sided 95 %: 1 of 10 -> 0.394, 5 of 100 -> 0.1023, 10 of 10 -> 1.
    assert evidence.bound(1, 10) == pytest.approx(0.3942, abs=2e-4)
    assert evidence.bound(5, 100) == pytest.approx(0.1023, abs=2e-4)
    assert evidence.bound(10, 10) == 1.0
    assert "59 clean boards: fewer than 5 %" in evidence.sentence(0, 59)


@given(st.integers(1, 300), st.lists(st.integers(0, 299), max_size=3))
def test_canaries_show_every_trait_and_begin_with_those_that_are_named(boards: int, named: list[int]) -> None:
    whom = targets(boards, a_gateway=16)
    wanted = [whom[number % boards].board for number in named]
    chosen = canaries("C", whom, wanted)
    assert list(chosen[: len(set(wanted))]) == list(dict.fromkeys(wanted))
    assert len(chosen) == len(set(chosen))
    traits = {trait for one in whom if one.board in chosen for trait in one.traits}
    assert traits == {trait for one in whom for trait in one.traits}


def test_of_each_version_of_micropython_there_is_a_canary(tmp_path: Path) -> None:
    """As the audit log tells them: the newest word counts, and nothing is guessed of a board of which there is none."""
    (tmp_path / "audit.log").touch()
    log = audit.Log(tmp_path / "audit.log")
    for board, version in (("LE-3", "1.26.0"), ("LE-1", "1.27.0"), ("LE-3", "1.28.0")):
        interpreters.note(log, board, version)
    log.append("flash", "LE-2", {"interpreter": 7})
    log.append("enrol", "LE-2", {"interpreter": "1.0.0", "by": "flash"})
    known = interpreters.newest(log)
    assert known == {"LE-1": "1.27.0", "LE-3": "1.28.0"}
    boards = [registered(f"LE-{number}") for number in range(1, 9)]
    whom = choosing.targets([(board, "gw-1") for board in boards], {"gw-1": "city"}, known)
    first = canaries("C", whom, [])
    assert {"LE-1", "LE-3"} <= set(first)
    assert whom[1].traits == ("gateway gw-1", "model pico")


def registered(board: str) -> Board:
    return Board(board, "enrolled", bytes(64), bytes(64), 0, "pico", bytes(8), b"", bytes(16), 0, False)


def test_a_canary_that_is_no_board_of_the_campaign_is_told() -> None:
    with pytest.raises(UsageError, match="LE-9 cannot be a canary"):
        canaries("C", targets(3), ["LE-9"])


def test_what_is_typed_is_read_or_refused_with_an_example() -> None:
    assert choosing.waves_of("5,25,50,100") == (5.0, 25.0, 50.0, 100.0)
    assert choosing.failures_of("3,0.5") == (3, 0.5)
    assert [choosing.span_of(text, "--soak") for text in ("90s", "30m", "24h", "2d", "0s")] == [
        90,
        1800,
        86400,
        172800,
        0,
    ]
    for text in ("", "5,25", "25,5,100", "0,100", "a", "100,100"):
        with pytest.raises(UsageError, match="--waves"):
            choosing.waves_of(text)
    for text in ("", "3", "-1,5", "1,101", "x,y"):
        with pytest.raises(UsageError, match="--max-failures"):
            choosing.failures_of(text)
    for text in ("", "30", "m", "-1m", "nanm", "infh"):
        with pytest.raises(UsageError, match="--soak"):
            choosing.span_of(text, "--soak")
