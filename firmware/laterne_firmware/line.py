"""The serial line: bytes in, frames for this board out, answers back. It never speaks unasked.

One task reads, is never cancelled, and reads into a buffer made once (rp2 loses bytes otherwise). On a bus the
board's own bytes come back as an echo: they are addressed to the gateway and fall through the filter.
"""

import asyncio

from micropython import const

from laterne_protocol import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from machine import UART, Pin

    from laterne_firmware.clock import Clock

    Answer = Callable[[frame.Frame, int, Callable[[], None]], Awaitable["tuple[int, bytes] | None"]]

_READ_BYTES = const(256)
_KINDS = (frame.MESSAGE, frame.HANDSHAKE, frame.RECORD)


class Line:
    """uart: timeout 0. driver_enable: a pin that is high while the board sends, or None. address: on the bus.

    heard_ms: milliseconds since boot when the last question for this board came, None before.
    refused: how many frames for this board were no questions that have an answer.
    """

    def __init__(self, uart: "UART", driver_enable: "Pin | None", address: int, clock: "Clock") -> None:
        self._uart = uart
        self._driver_enable = driver_enable
        self.address = address
        self._clock = clock
        self._decoder = frame.FrameDecoder()
        self._reader = asyncio.StreamReader(uart)
        self._buffer = bytearray(_READ_BYTES)
        self._reads = 0
        self._reads_seen = 0
        self.heard_ms = None  # type: int | None
        self.refused = 0

    @property
    def damaged(self) -> int:
        """Packets on the line that were no frames of ours."""
        return self._decoder.damaged + self._decoder.unknown

    def progress(self) -> bool:
        """Whether the reading task has read since the last call, or has nothing to read."""
        reads = self._reads
        moved = reads != self._reads_seen
        self._reads_seen = reads
        return moved or not self._uart.any()

    async def run(self, answer: "Answer", beat: "Callable[[], None]") -> None:
        """Reads and answers for ever. answer(question, milliseconds since boot, beat): kind and payload, or None."""
        view = memoryview(self._buffer)
        while True:
            count = await self._reader.readinto(self._buffer)
            now_ms = self._clock.now_ms()
            self._reads += 1
            if not count:  # rp2: a timeout is reported as None; a line that hangs up as 0
                await asyncio.sleep_ms(10)
                continue
            for question in self._frames(view[:count]):
                if question.kind in _KINDS and question.destination in (self.address, frame.ANY_BOARD):
                    await self._take(question, now_ms, answer, beat)

    def _frames(self, data: memoryview) -> "list[frame.Frame]":
        try:
            return self._decoder.feed(data)
        except MemoryError:  # for a long one, of an update mostly: the gateway repeats it, in shorter ones
            self._decoder.forget()
            return []

    async def _take(self, question: frame.Frame, now_ms: int, answer: "Answer", beat: "Callable[[], None]") -> None:
        answered = await answer(question, now_ms, beat)
        if answered is None:
            self.refused += 1
            return
        self.heard_ms = now_ms
        kind, payload = answered
        await self._send(frame.Frame(kind, question.source, self.address, payload).to_bytes())

    async def _send(self, data: bytes) -> None:
        uart = self._uart
        if self._driver_enable is not None:
            self._driver_enable.value(1)
        for part in (frame.DELIMITER, data):  # the zero ahead ends noise, which would else take the answer along
            rest = memoryview(part)
            while True:
                written = uart.write(rest)
                self._reads += 1  # sending is progress, too
                if written:
                    rest = rest[written:]
                if not rest:
                    break
                await asyncio.sleep_ms(1)
        if self._driver_enable is not None:
            # Interrupts of rp2 come too early and flush() stops the loop (facts 4): look every millisecond.
            while not uart.txdone():
                await asyncio.sleep_ms(1)
            self._driver_enable.value(0)
