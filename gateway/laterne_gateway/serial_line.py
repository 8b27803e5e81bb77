"""A serial line: bytes out, whole frames in. It opens the port exclusively and says when it is gone.

It knows nothing of questions and answers (bus). What comes from the line is bounded twice: the decoder keeps at most
one frame, and reading is slowed to MAX_READ_BYTES_S, so that a babbling adapter cannot take the processor from the
other lines.
"""

import asyncio
import contextlib
import errno
import logging
from collections import deque

from serialx import BaseSerialTransport, SerialException, create_serial_connection
from serialx.descriptor_transport import DescriptorTransport

from laterne_gateway.config import LineSettings
from laterne_gateway.health import Health
from laterne_protocol.frame import Frame, FrameDecoder

log = logging.getLogger("laterne")
logging.getLogger("serialx").setLevel(logging.WARNING)  # its debug lines hold payloads

MAX_READ_BYTES_S = 2_000_000  # twice what full-speed USB carries
READ_BURST_BYTES = 65_536  # a PTY or USB driver hands over what piled up during a commit
MAX_FRAMES_KEPT = 4  # one answer is awaited at a time; more are noise or late
CHUNK_BYTES = 4096  # more than three frames; serialx would make room for 256 KiB at each read


class LineLost(Exception):
    """The port is closed or gone: open it again. is_in_use: another program has it."""

    def __init__(self, why: str, is_in_use: bool = False) -> None:
        super().__init__(why)
        self.is_in_use = is_in_use


class SerialLine(asyncio.Protocol):
    def __init__(self, settings: LineSettings, health: Health) -> None:
        self.name = settings.name
        self.path = settings.path
        self.baud = settings.baud
        self._subject = f"line {settings.name}"
        self._health = health
        self._transport: BaseSerialTransport | None = None
        self._decoder = FrameDecoder()
        self._frames: deque[tuple[Frame, float]] = deque(maxlen=MAX_FRAMES_KEPT)
        self._waits: asyncio.Future[bool] | None = None  # whoever waits for a frame, or rests
        self._until_s = 0.0  # and how long
        self._alarm: asyncio.TimerHandle | None = None
        self._lost: str | None = "not opened yet"
        self._allowance = float(READ_BURST_BYTES)
        self._allowance_at_s = 0.0
        self._resume: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self._lost is None

    async def open(self) -> None:
        """Opens the port, for this process alone, with low latency where the driver can. Raises LineLost."""
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._frames.clear()
        self._lost = None
        try:
            transport, _ = await create_serial_connection(
                self._loop, lambda: self, str(self.path), baudrate=self.baud, exclusive=True
            )
        except (OSError, SerialException, ValueError) as why:
            self._lost = str(why)
            if isinstance(why, OSError) and why.errno == errno.EBUSY:
                raise LineLost(f"{self.path} is in use by another program, such as laterne flash", True) from why
            raise LineLost(f"{self.path}: {why}") from why
        if isinstance(transport, DescriptorTransport):
            transport.max_size = CHUNK_BYTES
        self._transport = transport
        self._health.count(self._subject, "opened")

    async def close(self) -> None:
        transport, self._transport = self._transport, None
        self._lost = self._lost or "closed"
        for timer in (self._resume, self._alarm):
            if timer is not None:
                timer.cancel()
        self._resume = self._alarm = None
        if transport is not None:
            transport.abort()
            with contextlib.suppress(OSError, SerialException):  # it is gone; that is what we want
                await transport.wait_closed()

    def write(self, data: bytes) -> None:
        """Raises LineLost."""
        if self._lost is not None or self._transport is None:
            raise LineLost(self._lost or "closed")
        try:
            self._transport.write(data)
        except (OSError, SerialException) as why:
            raise LineLost(str(why)) from why
        self._health.count(self._subject, "bytes sent", len(data))

    def forget(self) -> None:
        """Drops frames that nobody waits for: late answers, echoes, noise that looked like a frame."""
        if self._frames:
            self._health.count(self._subject, "frames unasked", len(self._frames))
            self._frames.clear()

    async def frame(self, until_s: float) -> tuple[Frame, float] | None:
        """The next frame and the moment it was there (monotonic), or None when there was none until then.

        Raises LineLost.
        """
        while not self._frames:
            if not await self._wait(until_s):
                return None
        return self._frames.popleft()

    async def rest(self, seconds: float) -> None:
        """Waits that long, or until stir(). Raises LineLost."""
        await self._wait(self._loop.time() + seconds)

    def stir(self) -> None:
        """Ends a rest()."""
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(True)

    async def _wait(self, until_s: float) -> bool:
        """Whether something has happened until then."""
        if self._lost is not None:
            raise LineLost(self._lost)
        if until_s <= self._loop.time():
            return False
        self._until_s = until_s
        # One timer serves question after question: it is set anew when it rings too early, not at each of them.
        if self._alarm is None or self._alarm.when() > until_s:
            self._set_alarm()
        self._waits = self._loop.create_future()
        try:
            happened = await self._waits
        finally:
            self._waits = None
        if self._lost is not None:
            raise LineLost(self._lost)
        return happened

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._until_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._waits is None or self._waits.done():
            return
        if self._until_s > self._loop.time():
            self._set_alarm()
        else:
            self._waits.set_result(False)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        now_s = self._loop.time()
        damaged, unknown = self._decoder.damaged, self._decoder.unknown
        for start in range(0, len(data), CHUNK_BYTES):
            for frame in self._decoder.feed(data[start : start + CHUNK_BYTES]):
                self._frames.append((frame, now_s))
                self.stir()
        self._health.count(self._subject, "bytes received", len(data))
        if self._decoder.damaged > damaged:
            self._health.count(self._subject, "frames damaged", self._decoder.damaged - damaged)
        if self._decoder.unknown > unknown:
            self._health.count(self._subject, "frames of another version", self._decoder.unknown - unknown)
        self._slow_down(now_s, len(data))

    def _slow_down(self, now_s: float, received: int) -> None:
        gained = (now_s - self._allowance_at_s) * MAX_READ_BYTES_S
        self._allowance = min(READ_BURST_BYTES, self._allowance + gained) - received
        self._allowance_at_s = now_s
        if self._allowance < 0 and self._transport is not None:
            self._transport.pause_reading()
            self._health.count(self._subject, "slowed down")
            self._resume = self._loop.call_later(-self._allowance / MAX_READ_BYTES_S, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and self._lost is None:
            self._transport.resume_reading()

    def connection_lost(self, why: Exception | None) -> None:
        if self._lost is None:
            self._lost = str(why) if why else "closed"
            self.stir()
