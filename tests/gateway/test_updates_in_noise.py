"""An update over a line that loses and changes what it carries: it comes to its end, and little comes twice.

T7 of the facts: a loss at each edge of a frame, noise, 30 s of silence. In a loop whose time counts only what is waited
for. That either end starts again is in test_updates.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import Parts, until
from tests.gateway.street import LoopClock, quick
from tests.gateway.wired import WiredLine

from laterne_emulator.fast_time import FastLoop
from laterne_protocol import frame
from laterne_protocol.release_file import Release
from laterne_protocol.update_messages import MAX_CODE_BYTES

SILENCE_S = 30.0


class Case:
    """A board without a release, on a line that is served, and a release for it in the store."""

    def __init__(self, parts: Parts, board: FakeBoard, made: Release) -> None:
        self.parts, self.board, self.made = parts, board, made

    async def update(self) -> int:
        """The release comes, again if it was there before. How many bytes of code were sent for it."""
        before = self.parts.health.counted(self.board.name, "updates: bytes sent")
        self.board.updates.stage(self.made)
        for bus in self.parts.buses:
            bus._contacts[0].update_due_s = 0.0
            bus._line.stir()
        while self.board.updates.staged is None:  # noqa: ASYNC110 - as until(), which looks too often for a fast loop
            await asyncio.sleep(0.2)
        assert self.board.updates.staged is not None
        assert self.board.updates.staged.contents == self.made.contents
        return self.parts.health.counted(self.board.name, "updates: bytes sent") - before


@contextlib.asynccontextmanager
async def served(directory: Path, board: FakeBoard, line: FakeLine | WiredLine, files: int) -> AsyncIterator[Case]:
    parts = Parts(directory, [board], clock=LoopClock())
    await parts.open()
    try:
        made = release(parts.authority, contents(files=files, size=3000))
        await parts.releases.add(made.to_bytes(), ())
        async with parts.asking(line):
            await until(lambda: parts.updates._standing(board.name).progress is not None)
            yield Case(parts, board, made)
    finally:
        await line.close()
        await parts.buffer.close()


def in_fast_time(work: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(work())


def test_a_frame_that_is_lost_costs_what_follows_it_in_its_block_whichever_it_is(tmp_path: Path) -> None:
    async def work() -> None:
        board = quick(FakeBoard())
        line = FakeLine(tmp_path / "line", [board])
        async with served(tmp_path, board, line, 1) as case:
            lost, seen = 0, 0

            def carried(one: frame.Frame) -> list[frame.Frame]:
                nonlocal seen
                seen += 1
                return [] if seen == lost else [one]

            line.to_boards = line.to_gateway = carried
            whole = await case.update()
            frames = seen
            assert frames > 20
            again = []
            while lost < frames:
                lost, seen = lost + 1, 0
                again.append(await case.update() - whole)
            assert all(0 <= one <= MAX_CODE_BYTES for one in again), again
            parts = [one for one in again if one]
            assert len(parts) > 8, "the others were questions and answers"
            assert sum(parts) < 0.75 * len(parts) * max(parts), "what came before a loss does not come again"
            assert board.sessions.counts["sessions opened"] == 1

    in_fast_time(work)


def test_a_release_comes_through_noise_that_damages_every_second_long_frame(tmp_path: Path) -> None:
    """One bit in 10,000 is wrong: of 900 bytes half come whole, of 225 five in six."""

    async def work() -> None:
        board = quick(FakeBoard())
        line = WiredLine(tmp_path / "line", [board], 7, paced=True)
        async with served(tmp_path, board, line, 8) as case:
            line.line.faults.bit_errors = 1e-4
            sent = await case.update()
            assert line.line.count.flips > 10
            assert sent <= 2.5 * sum(size for *_, size in board.updates.blocks)

    in_fast_time(work)


def test_a_release_goes_on_after_half_a_minute_of_silence(tmp_path: Path) -> None:
    async def work() -> None:
        board = quick(FakeBoard())
        line = FakeLine(tmp_path / "line", [board])
        async with served(tmp_path, board, line, 20) as case:
            clock, silent_from_s, silences = case.parts.clock, 0.0, 0

            def carried(one: frame.Frame) -> list[frame.Frame]:
                nonlocal silent_from_s, silences
                if silences < 3 and len(board.updates.blocks) > 3 * (silences + 1) and silent_from_s == 0.0:
                    silent_from_s = clock.monotonic_s()
                if silent_from_s and clock.monotonic_s() - silent_from_s < SILENCE_S:
                    return []
                silences, silent_from_s = silences + (silent_from_s > 0), 0.0
                return [one]

            whole = await case.update()
            board.updates.blocks.clear()
            line.to_boards = line.to_gateway = carried
            began_s = clock.monotonic_s()
            assert await case.update() <= whole + 3 * MAX_CODE_BYTES
            assert silences == 3
            assert clock.monotonic_s() - began_s < 3 * 2.5 * SILENCE_S, "it is not forgotten for long"

    in_fast_time(work)
