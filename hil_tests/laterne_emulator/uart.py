"""The UART of an emulated board, seen from the line: bytes to it, bytes from it, and when it is deaf.

The board's process holds one end of a socket pair, the line the other. While the flash is busy a board serves no
interrupts: only what fits into the 32-byte hardware FIFO survives, and it is read when the flash is done.
"""

import array
import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable
from dataclasses import dataclass

FIFO_BYTES = 32  # RP2040 data sheet, 4.2.2.4: the receive FIFO is 32 deep
DEFAULT_BAUD = 115200


@dataclass
class UartCount:
    received: int = 0  # bytes that the board could read
    sent: int = 0
    overrun: int = 0  # bytes lost because the flash was busy


class UartEnd:
    def __init__(self) -> None:
        self.line_side, self.board_side = socket.socketpair()
        self.line_side.setblocking(False)
        self.board_side.setblocking(False)  # MicroPython has no fcntl: it inherits a non-blocking descriptor
        self.baud = DEFAULT_BAUD
        self.paced = False  # whether the board's writes take the time they need on the line
        self.powered = False
        self.count = UartCount()
        self.on_reset: Callable[[], None] | None = None  # what has not left the board yet is gone
        self.listens = asyncio.Event()  # cleared while the flash is busy
        self.listens.set()
        self._fifo = bytearray()
        self._drain: asyncio.TimerHandle | None = None

    def deliver(self, data: bytes) -> None:
        """Bytes arrive at the board's receiver."""
        if not self.powered or not data:
            return
        if self.listens.is_set():
            self._hand_over(data)
            return
        room = FIFO_BYTES - len(self._fifo)
        self._fifo += data[:room]
        self.count.overrun += max(0, len(data) - room)

    def flash_busy(self, seconds: float) -> None:
        """The flash begins an operation: from now on only the FIFO receives."""
        self._fifo_is_read()  # between two operations the interrupt is served
        loop = asyncio.get_running_loop()
        if self._drain:
            self._drain.cancel()
        self._drain = loop.call_later(seconds, self._flash_is_done)
        self.listens.clear()

    def waiting(self) -> int:
        """How many received bytes the firmware has not read yet."""
        answer = array.array("i", [0])
        fcntl.ioctl(self.board_side, termios.FIONREAD, answer)
        return answer[0]

    def restart(self) -> None:
        """The board resets: what it had not read is gone, and so is what it had not sent."""
        self._fifo.clear()
        self._flash_is_done()
        for end in (self.board_side, self.line_side):
            try:
                while end.recv(65536):
                    pass
            except BlockingIOError:
                continue
        if self.on_reset:
            self.on_reset()

    def close(self) -> None:
        self._flash_is_done()
        self.line_side.close()
        self.board_side.close()

    def _flash_is_done(self) -> None:
        if self._drain:
            self._drain.cancel()
            self._drain = None
        self.listens.set()
        self._fifo_is_read()

    def _fifo_is_read(self) -> None:
        if self._fifo:
            waiting = bytes(self._fifo)
            self._fifo.clear()
            if self.powered:
                self._hand_over(waiting)

    def _hand_over(self, data: bytes) -> None:
        try:
            taken = self.line_side.send(data)
        except BlockingIOError:
            taken = 0  # the firmware has not read for some 200 KiB: a real ring buffer overran long ago
        self.count.received += taken
        self.count.overrun += len(data) - taken
