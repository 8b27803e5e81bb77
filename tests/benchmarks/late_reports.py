"""How late reports are while a board of their line is updated: for bench_update.

Boards of the tests on a line of the emulator, in a loop whose time counts what it waits for: so these are the line's
bytes and the order in which boards are asked. Each closes a report every PERIOD_S, says when the next is due, and is
late by how long after that it is asked for it.
"""

import asyncio
from pathlib import Path

from tests.gateway.fake_board import FakeBoard
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import Parts, until
from tests.gateway.street import LoopClock, quick
from tests.gateway.wired import WiredLine

from laterne_emulator.fast_time import FastLoop

PERIOD_S = 5.0
STEP_S = 0.02


class Punctual:
    """A board that closes reports by the clock. late_s: of each report that was fetched."""

    def __init__(self, board: FakeBoard, clock: LoopClock, first_s: float) -> None:
        self.board = board
        self.late_s: list[float] = []
        self._clock = clock
        self._next_s = clock.monotonic_s() + first_s
        self._closed_s: float | None = None
        board.answer_with = self._fetched

    async def run(self) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            if now_s >= self._next_s:
                self.board.close_reports(1)
                self._closed_s, self._next_s = self._next_s, self._next_s + PERIOD_S
            self.board.due_ms = int((self._next_s - now_s) * 1000)
            await asyncio.sleep(STEP_S)

    def _fetched(self, body: bytes | None) -> bytes | None:
        if body is not None and self._closed_s is not None:
            self.late_s.append(self._clock.monotonic_s() - self._closed_s)
            self._closed_s = None
        return body


def late_s(folder: Path, boards: int, *, updating: bool) -> list[float]:
    """Of every report in three periods, or while one of the boards gets a release."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(_street(folder, boards, updating))


async def _street(folder: Path, count: int, updating: bool) -> list[float]:
    folder.mkdir()
    boards = [quick(FakeBoard(f"LE-{number:04}", number)) for number in range(1, count + 1)]
    clock = LoopClock()
    line = WiredLine(folder / "line", boards, 1, paced=True)
    parts = Parts(folder, boards, clock=clock)
    await parts.open()
    try:
        made = release(parts.authority, contents(files=40, size=3000))
        await parts.releases.add(made.to_bytes(), ())
        async with parts.asking(line):
            await until(lambda: all(board.questions > 2 for board in boards))
            punctual = [Punctual(board, clock, PERIOD_S * (1 + at / count)) for at, board in enumerate(boards)]
            tasks = [asyncio.create_task(one.run()) for one in punctual]
            await asyncio.sleep(PERIOD_S)
            if updating:
                boards[0].updates.stage(made)
                parts.buses[0]._contacts[0].update_due_s = 0.0
                await until(lambda: boards[0].updates.staged is not None)
            else:
                await asyncio.sleep(3 * PERIOD_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return [late for one in punctual for late in one.late_s]
    finally:
        await line.close()
        await parts.buffer.close()
