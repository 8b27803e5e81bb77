"""Boards of the tests at the far end of the emulator's line, with all its faults."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.gateway.fake_board import FakeBoard

from laterne_emulator.line import Line
from laterne_emulator.uart import UartEnd
from laterne_protocol import frame
from laterne_protocol.frame import FrameDecoder

READ_BYTES = 4096


class WiredBoard:
    """A board behind a UART: bytes in, answers out."""

    def __init__(self, board: FakeBoard) -> None:
        self.board = board
        self.end = UartEnd()
        self.end.powered = True
        self._decoder = FrameDecoder()
        asyncio.get_running_loop().add_reader(self.end.board_side, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.end.board_side)
        self.end.close()

    def _readable(self) -> None:
        try:
            data = self.end.board_side.recv(READ_BYTES)
        except BlockingIOError:
            return
        for asked in self._decoder.feed(data):
            if asked.destination in (self.board.address, frame.ANY_BOARD):
                answer = self.board.receive(asked)
                if answer is not None:
                    # As the firmware (line.py): a zero ahead ends the noise before it.
                    data = frame.DELIMITER + answer.to_bytes()
                    busy_s, self.board.updates.busy_s = self.board.updates.busy_s, 0.0
                    if busy_s:
                        asyncio.get_running_loop().call_later(busy_s, self.end.board_side.send, data)
                    else:
                        self.end.board_side.send(data)


class WiredLine:
    """A line of the emulator, in the place of a FakeLine: path and boards are what Parts.asking wants."""

    def __init__(self, path: Path, boards: Sequence[FakeBoard], seed: int, *, paced: bool = False) -> None:
        self.boards = boards
        self._wired = [WiredBoard(board) for board in boards]
        self.line = Line(path, [one.end for one in self._wired], bus=len(boards) > 1, paced=paced, seed=seed)

    @property
    def path(self) -> Path:
        return self.line.path

    async def close(self) -> None:
        self.line.close()
        for one in self._wired:
            one.close()
