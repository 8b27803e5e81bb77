"""Reports of a board that did not know the time are dated afterwards, beside its signed bytes, and wait for nothing."""

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, parts, until

from laterne_gateway.buffered import Row
from laterne_gateway.clock import SystemClock
from laterne_gateway.dates import BOOTS, Dates
from laterne_gateway.inbox import ACCEPTED
from laterne_gateway.routes.delivery import LATE_AFTER_MS, is_late
from laterne_protocol import cose, report, report_reading

UTC_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def _body(board: FakeBoard, boot: int, closed_ms: int, clock: tuple[int, int | None, int] | None = None) -> bytes:
    content = report.Report(
        board.name, 1, bytes(16), boot, closed_ms, clock or (report.NEVER_SET, None, 0), report.Times(0), [], []
    )
    return board.key.sign("laterne/report/1", content.to_payload())


def test_the_date_covers_the_truth_whatever_the_crystal_does_within_its_bound() -> None:
    board = FakeBoard()
    whose = (board.name, board.key.kid)
    for seed in range(200):
        dice, dates = random.Random(seed), Dates()
        ppm = dice.uniform(-100, 100)

        def since_ms(true_ms: float, ppm: float = ppm) -> int:
            return int(true_ms * (1 + ppm / 1e6))

        for _ in range(dice.randrange(1, 5)):
            told_ms, within_ms = dice.uniform(0, 100 * HOUR_MS), dice.randrange(2, 400)
            off_ms = dice.uniform(-within_ms + 2, within_ms - 2)
            dates.learn(whose, 3, (since_ms(told_ms), int(UTC_MS + told_ms + off_ms), within_ms))
        closed_ms = dice.uniform(0, 100 * HOUR_MS)
        found = dates.date(board.name, _body(board, 3, since_ms(closed_ms)))
        assert found is not None
        assert abs(found[0] - (UTC_MS + closed_ms)) <= found[1] + 1, seed


def test_the_earliest_moment_of_a_start_dates_its_beginning_best() -> None:
    board, dates = FakeBoard(), Dates()
    whose = (board.name, board.key.kid)
    for hours in range(1, 30):
        dates.learn(whose, 1, (hours * HOUR_MS, UTC_MS + hours * HOUR_MS, 10))
    assert dates.date(board.name, _body(board, 1, HOUR_MS - 10_000)) == (UTC_MS + HOUR_MS - 10_000, 11)


def test_a_clock_of_ours_that_has_jumped_is_believed_as_it_is_now() -> None:
    board, dates = FakeBoard(), Dates()
    whose = (board.name, board.key.kid)
    dates.learn(whose, 1, (60_000, UTC_MS - 7 * HOUR_MS, 10))
    dates.learn(whose, 1, (120_000, UTC_MS + 60_000, 10))
    assert dates.date(board.name, _body(board, 1, 60_000)) == (UTC_MS, 16)
    # What the board had been told before the jump comes later, out of its backlog.
    dates.learn(whose, 1, (90_000, UTC_MS + 30_000 - 7 * HOUR_MS, 10))
    assert dates.date(board.name, _body(board, 1, 60_000)) == (UTC_MS, 16)


def test_of_another_start_another_board_or_another_key_nothing_is_said() -> None:
    board, twin, dates = FakeBoard(), FakeBoard(), Dates()
    dates.learn((board.name, board.key.kid), 2, (60_000, UTC_MS, 10))
    assert dates.date(board.name, _body(board, 2, 0)) is not None
    assert dates.date(board.name, _body(board, 1, 0)) is None
    assert dates.date(board.name, _body(board, 3, 0)) is None
    assert dates.date(board.name, _body(twin, 2, 0)) is None, "enrolled anew: its starts are others"
    assert dates.date("LE-0008", _body(board, 2, 0)) is None
    assert dates.date(board.name, b"no report") is None


def test_what_cannot_be_written_as_a_date_is_none() -> None:
    board, dates = FakeBoard(), Dates()
    dates.learn((board.name, board.key.kid), 1, (60_000, 0, 10))
    assert dates.date(board.name, _body(board, 1, 0)) is None, "before 1970"
    assert dates.date(board.name, _body(board, 1, 2**53 - 1)) is None, "in 287,000 years"


def test_starts_that_are_long_over_take_no_memory() -> None:
    board, dates = FakeBoard(), Dates()
    for boot in range(1, 1000):
        dates.learn((board.name, board.key.kid), boot, (60_000, UTC_MS, 10))
    dated = [boot for boot in range(1, 1000) if dates.date(board.name, _body(board, boot, 0)) is not None]
    assert dated == list(range(1000 - BOOTS, 1000))


async def test_a_later_report_of_the_same_start_dates_the_earlier_ones(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        board.close_reports(2)
        board.utc_ms = UTC_MS
        board.close_reports(1)
        for number, body in board.taken.items():
            assert (gateway.dates.date(board.name, board.taken[1]) is not None) == (number == 4)
            assert gateway.inbox.take(board.entry(), body) == ACCEPTED
        found = gateway.dates.date(board.name, board.taken[1])
        assert found is not None
        assert abs(found[0] - UTC_MS) < 10_000
        assert found[1] >= 15


async def test_answers_date_reports_and_every_report_is_stored_without_waiting_for_it(
    tmp_path: Path, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    board.close_reports(3)
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await until(lambda: board.acknowledged == 3)
        found = gateway.dates.date(board.name, board.taken[1])
        assert found is not None
        now_ms, ticks_ms = gateway.clock.utc_ms(), board.ticks_ms()
        assert now_ms is not None
        closed_ms = report_reading.report_of(cose.parse(board.taken[1], 1024).payload).closed_ms
        assert abs(found[0] - (now_ms - (ticks_ms - closed_ms))) <= found[1] + 1000, "1 s: between two lines of a test"


def test_a_report_that_was_closed_long_ago_is_late_also_when_its_board_did_not_know() -> None:
    row = Row(1, "LE-0007", 1, UTC_MS, None, b"")
    assert not is_late(row, UTC_MS, None)
    assert not is_late(row, UTC_MS, (UTC_MS - LATE_AFTER_MS, 10))
    assert is_late(row, UTC_MS, (UTC_MS - LATE_AFTER_MS - 1, 10))


class Jumping(SystemClock):
    """This machine's clock, and somebody who sets it."""

    def __init__(self) -> None:
        self.off_ms: int | None = 0

    def utc_ms(self) -> int | None:
        right_ms = super().utc_ms()
        return None if right_ms is None or self.off_ms is None else right_ms + self.off_ms


async def test_when_this_machines_clock_is_set_boards_follow_with_the_next_poll_and_it_is_said(
    tmp_path: Path, line_of: Callable[..., FakeLine], caplog: pytest.LogCaptureFixture
) -> None:
    board, clock = FakeBoard(), Jumping()
    gateway = Parts(tmp_path, [board], clock=clock)
    clock.off_ms = None  # 1970: nobody has told the machine yet
    await gateway.open()
    try:
        async with gateway.asking(line_of(board)):
            board.close_reports(1)
            await until(lambda: board.acknowledged == 1)  # without waiting for the time
            assert board.time is None
            assert gateway.dates.date(board.name, board.taken[1]) is None
            for number, off_ms in enumerate((-5 * HOUR_MS, 0, 3 * HOUR_MS), 2):
                clock.off_ms = off_ms
                board.close_reports(1)
                await until(partial(_has_heard, board, number, off_ms))
                assert gateway.dates.date(board.name, board.taken[1]) is not None
                assert gateway.health.counted(board.name, "clock set") == number - 2
    finally:
        await gateway.buffer.close()
    assert caplog.text.count("this machine's clock has been set") == 1, "once a minute"


def _has_heard(board: FakeBoard, acknowledged: int, off_ms: int) -> bool:
    """Whether the board was told that so many reports are stored, and a time that is off by so much."""
    if board.acknowledged < acknowledged or board.time is None:
        return False
    return abs(board.ticks_ms() + board.time[1] - time.time() * 1000 - off_ms) < 1000
