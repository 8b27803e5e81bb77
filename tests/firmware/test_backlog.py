"""Reports on flash survive what files can suffer; no sequence number is ever used twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laterne_protocol import cose, report, report_reading

SEGMENT = 64  # reports in a segment file
BACKLOG_FULL, DAMAGED, OVERTAKEN = 1, 2, 4

Live = Callable[..., dict[str, Any]]


def _report(body: str | None) -> report.Report:
    assert body is not None
    return report_reading.report_of(cose.parse(bytes.fromhex(body), report.MAX_REPORT_BYTES).payload)


def _sequences(life: dict[str, Any]) -> list[int | None]:
    return [None if body is None else _report(body).sequence for body in life["got"]]


def test_a_new_board_begins_with_report_1_in_start_1(live: Live) -> None:
    life = live(["after", 0], enrolled=False)
    assert (life["next"], life["head"], life["boot"], life["got"], life["gaps"]) == (1, None, 1, [None], [])


def test_reports_number_and_chain_go_on_after_each_start(live: Live) -> None:
    head = None
    for start in range(1, 6):
        life = live(["append", 30], ["after", 30 * start - 30], ["after", 30 * start - 1])
        assert (life["boot"], life["next"], life["gaps"]) == (start, 30 * start + 1, [])
        if head is not None:
            assert _report(life["got"][1]).previous.hex() == head
        newest = _report(life["got"][2])
        assert newest.sequence == 30 * start
        head = report.digest(newest.to_payload()).hex()
        assert life["head"] == head


def test_reports_that_are_given_together_fit_the_room_whatever_their_lengths(live: Live) -> None:
    live(*(["append of", size] for size in (300, 657, 300, 658, 960, 150)))
    room = 963  # of the longest report, with the head that a string of bytes has in CBOR
    life = live(*(["together", after, room] for after in (0, 2, 3, 4, 5, 6)))
    assert life["got"] == [[300, 657], [300], [658], [960], [150], []]
    assert live(["together", 0, 0], ["together", 6, 0])["got"] == [[300], []], "the first in any case"


def test_reports_come_oldest_first_and_are_forgotten_when_acknowledged(live: Live, tmp_path: Path) -> None:
    life = live(["append", 200], ["after", 0], ["after", 1], ["after", 199], ["after", 200], ["after", 5])
    assert _sequences(life)[1:] == [1, 2, 200, None, 6]
    assert life["waiting"] == 200
    life = live(["acknowledge", 130], ["after", 0])
    assert life["waiting"] == 70
    assert _sequences(life)[1] == 131
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["00000081", "000000c1"]


def test_an_acknowledgement_beyond_the_newest_report_is_one_of_the_newest(live: Live) -> None:
    life = live(["append", 3], ["acknowledge", 1 << 50], ["after", 0], ["append", 1], ["after", 0])
    assert _sequences(life)[2] is None
    assert _sequences(life)[4] == 4
    assert (life["waiting"], life["next"]) == (1, 5)


def test_a_damaged_end_skips_to_a_number_that_was_never_used_and_says_so(live: Live, tmp_path: Path) -> None:
    live(["append", 10])
    segment = tmp_path / "log" / "00000001"
    segment.write_bytes(segment.read_bytes()[:-1])
    life = live(["append", 1], ["after", 9])
    assert life["next"] == SEGMENT + 3
    stating = _report(life["got"][1])
    assert (stating.sequence, stating.gaps) == (SEGMENT + 2, [[10, SEGMENT + 1, DAMAGED]])


def test_a_report_after_damage_never_has_the_number_after_one_that_it_does_not_follow(
    live: Live, tmp_path: Path
) -> None:
    """The gateway may have the last report, which the board cannot read any more: it would take this for a clone."""
    live(["append", SEGMENT])
    segment = tmp_path / "log" / "00000001"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    stating = _report(live(["append", 1], ["after", SEGMENT])["got"][1])
    assert stating.sequence > SEGMENT + 1
    assert stating.gaps == [[SEGMENT, stating.sequence - 1, DAMAGED]]


def test_each_flipped_byte_of_a_segment_costs_only_what_it_must(live: Live, tmp_path: Path) -> None:
    live(["append", 4])
    segment = tmp_path / "log" / "00000001"
    whole = segment.read_bytes()
    state = {path.name: path.read_bytes() for path in tmp_path.glob("st.*")}
    for at in range(0, len(whole), 5):
        for path in (tmp_path / "log").iterdir():
            path.unlink()
        for name, content in state.items():
            (tmp_path / name).write_bytes(content)
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        life = live(["after", 0], ["append", 1], ["after", 0], ["after", 1], ["after", 2], ["after", 3], ["after", 4])
        offered = {sequence for sequence in _sequences(life) if sequence is not None}
        lost = {number for first, last, _, _ in life["gaps"] for number in range(first, last + 1)}
        new = life["next"] - 1
        assert new == 5 or new == SEGMENT + 2, at
        assert offered | lost == set(range(1, new + 1)), at
        assert not offered & lost, at


def test_a_newest_segment_that_is_gone_never_gives_its_numbers_again(live: Live, tmp_path: Path) -> None:
    live(["append", SEGMENT + 5])
    (tmp_path / "log" / f"{SEGMENT + 1:08x}").unlink()
    life = live(["append", 1], ["after", SEGMENT])
    assert life["next"] == 2 * SEGMENT + 3
    assert _report(life["got"][1]).gaps == [[SEGMENT + 1, 2 * SEGMENT + 1, DAMAGED]]


def test_without_any_file_of_the_backlog_numbers_go_on_behind_the_bound(live: Live, tmp_path: Path) -> None:
    live(["append", 5])
    (tmp_path / "log" / "00000001").unlink()
    life = live(["append", 1], ["after", 0])
    assert _report(life["got"][1]).sequence == SEGMENT + 2
    assert _report(life["got"][1]).gaps == [[1, SEGMENT + 1, DAMAGED]]


def test_without_a_state_record_numbers_and_starts_are_never_repeated(live: Live, tmp_path: Path) -> None:
    live(["append", 5])
    for copy in tmp_path.glob("st.*"):
        copy.write_bytes(b"\xff" * 30)
    life = live(["append", 1])  # there may have been a newer file, which is gone
    assert (life["next"], life["boot"]) == ((1 << 24) + SEGMENT + 3, 1001)
    for path in [*tmp_path.glob("st.*"), *(tmp_path / "log").iterdir()]:
        path.write_bytes(b"\xff" * 30)
    assert live(["append", 1])["next"] > 1 << 24


@pytest.mark.parametrize("gone", ["newest", "all"])
def test_without_state_record_and_newest_file_numbers_are_never_repeated_however_many_starts_follow(
    live: Live, tmp_path: Path, gone: str
) -> None:
    live(["append", SEGMENT + 2])
    for copy in tmp_path.glob("st.*"):
        copy.write_bytes(b"\xff" * 30)
    for segment in (tmp_path / "log").iterdir():
        if gone == "all" or segment.name == f"{SEGMENT + 1:08x}":
            segment.unlink()
    first = live()["next"]
    assert first > 1 << 24
    assert live(["draft", 0])["next"] == first  # two starts without a report: nothing more is skipped
    life = live(["append", 1])
    assert (life["draft"] is not None, life["next"]) == (True, first + 1)


def test_numbers_that_only_the_gateway_knows_are_left_out_and_stated_as_far_as_it_has_them_not(
    live: Live, tmp_path: Path
) -> None:
    live(["append", SEGMENT + 4])
    newest = tmp_path / "log" / f"{SEGMENT + 1:08x}"
    older = newest.read_bytes()
    live(["append", 2])
    newest.write_bytes(older)  # as littlefs shows it when the newer half of the folder is damaged
    bound = 2 * SEGMENT + 1
    life = live(["skip"], ["acknowledge", SEGMENT + 6], ["skip"], ["append", 1], ["after", SEGMENT + 6])
    assert _sequences({"got": life["got"][-1:]}) == [bound + 1]
    assert [gap[:3] for gap in life["gaps"]] == [[SEGMENT + 7, bound, OVERTAKEN]]
    assert live(["acknowledge", bound + 1], ["skip"])["next"] == bound + 2


def test_numbers_that_were_left_out_stay_so_when_the_power_fails_before_the_next_report(live: Live) -> None:
    live(["append", 5], ["acknowledge", 9], ["skip"])
    for _ in range(2):
        assert live()["next"] > SEGMENT + 1
    life = live(["append", 1], ["after", 9])
    stating = _report(life["got"][1])  # a gap that does not lie before it would make it no report
    assert stating.gaps == [[6, stating.sequence - 1, OVERTAKEN]]
    assert live()["next"] == stating.sequence + 1


def test_a_gateway_that_acknowledges_what_no_board_can_have_made_changes_no_number(live: Live) -> None:
    life = live(["append", 3], ["acknowledge", SEGMENT + 1], ["skip"], ["acknowledge", 1 << 40], ["skip"])
    assert (life["next"], life["gaps"]) == (4, [])


def test_a_state_record_that_is_older_than_the_newest_report_repeats_no_start(live: Live, tmp_path: Path) -> None:
    live(["append", 1])
    older = {place: place.read_bytes() for place in tmp_path.glob("st.*")}
    assert len(older) == 2
    for start in (2, 3):
        assert live(["append", 1])["boot"] == start
    for place, content in older.items():
        place.write_bytes(content)
    life = live(["append", 1])
    assert life["boot"] > 1000
    assert life["next"] == 5
    assert life["gaps"] == []


def test_a_doubtful_state_record_counts_a_start_more(live: Live, tmp_path: Path) -> None:
    live(["append", 1])
    (tmp_path / "st.0").write_bytes(b"")
    assert live()["boot"] == 3
    assert live()["boot"] == 4


def test_a_file_that_was_being_made_when_the_power_failed_is_nothing(live: Live, tmp_path: Path) -> None:
    live(["append", SEGMENT])
    (tmp_path / "log" / f"{SEGMENT + 1:08x}").write_bytes(b"")
    life = live(["append", 1], ["after", SEGMENT])
    assert (_sequences(life)[1], life["gaps"]) == (SEGMENT + 1, [])


def test_a_segment_whose_bound_was_not_saved_is_gone_on_with(live: Live, tmp_path: Path) -> None:
    live(["append", SEGMENT])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("st.*")}
    live(["append", 1])
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    life = live(["append", 1], ["after", SEGMENT], ["after", SEGMENT + 1])
    assert _sequences(life)[1:] == [SEGMENT + 1, SEGMENT + 2]
    assert life["gaps"] == []


def test_numbers_of_a_segment_whose_bound_was_not_saved_stay_used_when_it_is_damaged_later(
    live: Live, tmp_path: Path
) -> None:
    live(["append", SEGMENT])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("st.*")}
    live(["append", 1])
    for name, content in before.items():  # the power failed between the record and the bound
        (tmp_path / name).write_bytes(content)
    live(["append", 10])
    segment = tmp_path / "log" / f"{SEGMENT + 1:08x}"
    segment.write_bytes(b"\0" + segment.read_bytes()[1:])
    life = live()
    assert life["next"] > SEGMENT + 11
    assert [SEGMENT + 1, life["next"] - 1, DAMAGED] in [gap[:3] for gap in life["gaps"]]


def test_four_damaged_segments_are_kept_and_no_more(live: Live, tmp_path: Path) -> None:
    for _ in range(6):
        life = live(["append", 1])
        segment = tmp_path / "log" / f"{life['next'] - 1:08x}"
        segment.write_bytes(b"\0" + segment.read_bytes()[1:])
    life = live()
    assert len(list((tmp_path / "log").glob("*.bad"))) == 4
    assert any("too many are damaged" in line for line in life["said"])


def test_when_it_is_full_the_oldest_reports_go_and_the_next_report_says_so(live: Live) -> None:
    life = live(["append", 3 * SEGMENT], ["acknowledge", 10], ["append", 1], ["after", 10], max_segments=3)
    assert _sequences(life)[3] == SEGMENT + 1
    assert life["said"] == [f"backlog full, reports 11..{SEGMENT} are lost"]
    life = live(["append", 1], ["after", 3 * SEGMENT + 1], max_segments=3)
    assert _report(life["got"][1]).gaps == [[11, SEGMENT, BACKLOG_FULL]]


def test_a_statement_that_is_itself_lost_is_made_again(live: Live) -> None:
    life = live(["append", 12 * SEGMENT], ["after", 0], max_segments=3)
    assert _sequences(life)[1] == 9 * SEGMENT + 1
    # The first of these makes room for itself: what goes then stands in the second.
    life = live(["append", 2], ["after", 12 * SEGMENT + 1], ["acknowledge", 12 * SEGMENT + 2], max_segments=3)
    assert _report(life["got"][1]).gaps == [[1, 10 * SEGMENT, BACKLOG_FULL]]
    assert life["gaps"] == []


def test_every_report_is_delivered_or_stated_and_none_is_both(live: Live) -> None:
    delivered: list[int] = []
    stated: set[int] = set()
    newest = 0
    for start in range(14):
        # A gateway that is away for three starts of four; the board restarts in between and its flash overflows.
        take = 1000 if start % 4 == 3 or start == 13 else 3 if start % 4 == 0 else 0
        life = live(["append", 50], ["deliver", delivered[-1] if delivered else 0, take], ["append", 1], max_segments=2)
        for body in life["got"][1]:
            found = _report(body)
            delivered.append(found.sequence)
            stated |= {number for first, last, _ in found.gaps for number in range(first, last + 1)}
        newest = life["next"] - 2
    assert delivered == sorted(set(delivered))
    assert stated
    assert set(delivered) | stated == set(range(1, newest + 1))
    assert not set(delivered) & stated
