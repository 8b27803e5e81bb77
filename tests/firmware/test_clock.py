"""The board's clock: ticks of 30 bits become milliseconds since the start, and UTC as far as the gateway told."""

from collections.abc import Iterator

import pytest
from tests.firmware.micropython import MicroPython

from laterne_protocol import fields, report, report_reading

NEVER_SET, SET, HELD = 0, 1, 2
DAY_MS = 86_400_000
UTC = 1_700_000_000_000


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with MicroPython("clock_runner.py") as interpreter:
        yield interpreter


def _moments(
    board: MicroPython, *moments: tuple[int, tuple[int, int, int] | None], start: int = 0, boot: int = 3
) -> list[tuple[int, int, int | None, int]]:
    answer = board.ask({"start": start, "boot": boot, "moments": moments})
    return [(now, *clock) for now, clock in answer]


@pytest.mark.parametrize("start", [0, 1, (1 << 30) - 1, (1 << 30) - 5000, 1 << 29])
def test_time_passes_evenly_wherever_ticks_begin_and_wrap(board: MicroPython, start: int) -> None:
    found = _moments(board, *[(5 * DAY_MS, None)] * 20, start=start)
    assert [now for now, *_ in found] == [5 * DAY_MS * count for count in range(1, 21)]


def test_half_an_hour_that_is_missing_passes_at_once_and_time_never_runs_back(board: MicroPython) -> None:
    found = _moments(board, (1000, None), (1_800_000, None), (-400, None), (100, None))
    assert [now for now, *_ in found] == [1000, 1_801_000, 1_801_000, 1_801_100]


def test_a_clock_that_was_never_set_says_so(board: MicroPython) -> None:
    assert _moments(board, (1000, None)) == [(1000, NEVER_SET, None, 0)]


def test_time_of_another_start_is_not_taken(board: MicroPython) -> None:
    assert _moments(board, (1000, (2, UTC, 5))) == [(1000, NEVER_SET, None, 0)]


def test_utc_is_ticks_and_the_offset_and_grows_less_certain(board: MicroPython) -> None:
    found = _moments(board, (1000, (3, UTC, 5)), (600_000, None), (1, None), (DAY_MS, None), (0, (3, UTC + 7, 4)))
    assert found == [
        (1000, SET, UTC + 1000, 5),
        (601_000, SET, UTC + 601_000, 65),  # 100 ppm
        (601_001, HELD, UTC + 601_001, 66),  # rounded up
        (601_001 + DAY_MS, HELD, UTC + 601_001 + DAY_MS, 5 + (DAY_MS + 600_001) // 10_000 + 1),
        (601_001 + DAY_MS, SET, UTC + 7 + 601_001 + DAY_MS, 4),
    ]


def test_whatever_time_a_gateway_tells_a_report_can_hold_it(board: MicroPython) -> None:
    """Else a hostile gateway could have the board sign reports that every receiver refuses."""
    found = _moments(board, (1000, (3, fields.MAX_UTC_MS, fields.MAX_UINT32)), (DAY_MS, None), (0, (3, 0, 0)))
    for _, state, utc_ms, uncertainty_ms in found:
        clock = (state, utc_ms, uncertainty_ms)
        made = report.Report("LE-0007", 1, bytes(16), 3, 1000, clock, report.Times(0), [], [], 0)
        assert report_reading.report_of(made.to_payload()).clock == clock
    assert found[1][2:] == (fields.MAX_UTC_MS, fields.MAX_UINT32)
