"""A gateway that has two releases in its store, and a board that is to get the newer one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import Parts, parts, until
from tests.gateway.street import quick

from laterne_protocol.release_file import Release

LineOf = Callable[..., FakeLine]


class Case:
    """A board that runs the old release and is ordered the new one."""

    def __init__(self, made: Parts, board: FakeBoard, line: FakeLine, old: Release, new: Release) -> None:
        self.parts, self.board, self.line, self.old, self.new = made, board, line, old, new

    async def staged(self) -> None:
        await until(lambda: self.board.updates.staged is not None)
        assert self.board.updates.staged is not None
        assert self.board.updates.staged.contents == self.new.contents

    async def on_trial(self) -> None:
        """The board has started what it was sent, and was told once how that is judged."""
        await self.staged()
        self.board.updates.arm()
        self.board.restart()
        self.board.updates.told.clear()
        await until(lambda: len(self.board.updates.told) >= 1)

    async def is_not_confirmed(self) -> None:
        """Nor is it when the board is asked again."""
        await self.asked_again()
        assert self.board.updates.trial
        assert set(self.board.updates.told) == {None}

    async def asked_again(self) -> None:
        """Waits for two more answers to questions about the update, without waiting out the pauses."""
        before = self.board.updates.asked
        while self.board.updates.asked < before + 2:
            for bus in self.parts.buses:
                for contact in bus._contacts:
                    contact.update_due_s = 0.0
                bus._line.stir()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def updating(tmp_path: Path, line_of: LineOf, board: FakeBoard | None = None) -> AsyncIterator[Case]:
    """A board that runs an older release and is ordered the newer one; both are in the store. Nothing is asked yet."""
    board = quick(board or FakeBoard())
    async with parts(tmp_path, board) as made:
        files = contents()
        old = release(made.authority, files, 2, "2.0.0")
        files["laterne_firmware/m03.mpy"] = files["laterne_firmware/m03.mpy"][:1000] + b"changed" * 9 + bytes(900)
        files["laterne_protocol/long.mpy"] = files["laterne_protocol/long.mpy"][:9000] + b" and longer"
        new = release(made.authority, files | {"new.mpy": b"new " * 1700}, 3, "3.0.0")
        for one in (old, new):
            await made.releases.add(one.to_bytes(), ())
        board.updates.running, board.updates.sequence = old, 2
        board.updates.stage(new)
        yield Case(made, board, line_of(board), old, new)
