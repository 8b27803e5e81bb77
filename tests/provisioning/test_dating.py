"""Reports of boards that did not know the time are dated by later ones of the same start, as honestly as can be."""

import json
import random
from pathlib import Path

import pytest
from tests.provisioning.commands import laterne
from tests.provisioning.fake_board import FakeBoard

from laterne_protocol import report
from laterne_provisioning.dating import MAX_BOOTS, MAX_UNDATED, Dated, Dating

UTC_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
UNKNOWN = (report.NEVER_SET, None, 0)


def test_dates_cover_the_truth_whatever_order_reports_come_in_and_wherever_the_gateways_clock_was_right() -> None:
    """Starts of a board with a crystal that is off, told the time after a while, by a clock that is wrong and set right
    once, or right and set wrong. The truth is in the date's uncertainty if any of the reports had it."""
    for seed in range(300):
        dice, dating = random.Random(seed), Dating()
        ppm = dice.uniform(-50, 50)  # reports that are told the time count on 100 in all, and so do dates
        reports, truth = [], {}
        for boot in range(1, dice.choice((2, 3))):
            began_ms = UTC_MS + boot * 1000 * HOUR_MS
            told_ms, jump_ms = dice.uniform(0, 20 * HOUR_MS), dice.uniform(0, 40 * HOUR_MS)
            errors_ms = dice.choice(((0, 0), (0, 5 * HOUR_MS), (-7 * HOUR_MS, 0), (90_000, 0)))
            knew_the_truth = False
            for number in range(dice.randrange(2, 30)):
                true_ms = dice.uniform(0, 40 * HOUR_MS)
                sequence, closed_ms = 1000 * boot + number, int(true_ms * (1 + ppm / 1e6))
                clock: tuple[int, int | None, int] = UNKNOWN
                if true_ms >= told_ms:
                    error_ms = errors_ms[true_ms > jump_ms]
                    knew_the_truth |= error_ms == 0
                    within_ms = dice.randrange(5, 50)
                    off_ms = dice.uniform(3 - within_ms, within_ms - 3)
                    clock = (report.SET, int(began_ms + true_ms + error_ms + off_ms), within_ms)
                else:
                    truth[sequence] = began_ms + true_ms
                reports.append((sequence, boot, closed_ms, clock))
            if not knew_the_truth:
                truth = {sequence: at_ms for sequence, at_ms in truth.items() if sequence < 1000 * boot}
        dice.shuffle(reports)
        for one in reports:
            dating.take(*one)
        dated = {one.sequence: one for one in dating.dated()}
        assert truth.keys() <= dated.keys()
        for sequence, at_ms in truth.items():
            assert abs(dated[sequence].closed_utc_ms - at_ms) <= dated[sequence].within_ms + 1, (seed, sequence)


@pytest.mark.parametrize("numbers", [range(1, 200), range(199, 0, -1)])
def test_without_a_contradiction_a_date_is_as_good_as_the_nearest_report_that_knows(numbers: range) -> None:
    dating = Dating()
    for number in numbers:
        known = (report.SET, UTC_MS + 60_000 * number, 12)
        dating.take(number, 1, 60_000 * number, known if number > 3 else UNKNOWN)
    assert sorted(dating.dated()) == [
        Dated(1, UTC_MS + 60_000, 30),
        Dated(2, UTC_MS + 120_000, 24),
        Dated(3, UTC_MS + 180_000, 18),
    ]
    assert (dating.undated, dating.apart_ms) == (3, 0)


def test_what_boards_in_trouble_sign_takes_no_memory_without_end() -> None:
    dating = Dating()
    for sequence in range(1, 3 * MAX_UNDATED):
        dating.take(sequence, sequence % (2 * MAX_BOOTS), 0, UNKNOWN)
    assert dating.undated == 3 * MAX_UNDATED - 1
    for boot in range(2 * MAX_BOOTS):
        dating.take(10**6 + boot, boot, 60_000, (report.SET, UTC_MS, 5))
    assert 0 < len(list(dating.dated())) <= MAX_UNDATED


def test_verify_dates_what_it_can_and_says_what_it_cannot(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    board = boards[0]
    bodies = [board.next_report(closed_ms=60_000 * number, clock=UNKNOWN) for number in (1, 2)]
    board.boot = 2
    bodies += [board.next_report(closed_ms=60_000 * number, clock=UNKNOWN) for number in (1, 2, 3)]
    bodies.append(board.next_report(closed_ms=240_000, clock=(report.SET, UTC_MS, 5)))
    board.boot = 3
    bodies.append(board.next_report(closed_ms=60_000, clock=(report.HELD, UTC_MS + HOUR_MS, 500)))
    bodies.append(board.next_report(closed_ms=120_000, clock=(report.SET, UTC_MS, 20)))
    path = tmp_path / "reports"
    path.write_bytes(b"".join(bodies))
    found = laterne("verify", path, "--authority", authority, "--json").json()
    assert found["ok"]
    row = found["boards"][0]
    assert row["undated"] == 5
    assert row["dated"] == [[3, UTC_MS - 180_000, 23], [4, UTC_MS - 120_000, 17], [5, UTC_MS - 60_000, 11]]
    assert row["clock_apart_ms"] == HOUR_MS + 60_000 - 500 - 20 - 6
    shown = " ".join(laterne("verify", path, "--authority", authority).out.split())
    assert "5 reports were closed before it was told the time; 3 of them are dated by others of the same start" in shown
    assert "of 2 only start and order are known" in shown
    assert "contradict each other by 3659.5 s" in shown
    lines = laterne("verify", path, "--authority", authority, "--json-lines").out.splitlines()
    assert [json.loads(line).get("clock") for line in lines] == ["never set"] * 5 + ["set", "held", "set", None]
