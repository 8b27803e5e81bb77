"""A serial line: bytes out, whole frames in. It opens the port exclusively and says when it is gone.

It knows nothing of questions and answers (bus). What comes from the line is bounded twice: the decoder keeps at most
one frame, and reading is slowed to MAX_READ_BYTES_S, so that a babbling adapter cannot take the processor from the
other lines. What goes out is bounded by time: a port that takes no byte for TAKES_WITHIN_S is opened anew. What may
hang in its driver happens elsewhere (port.py).
"""

import asyncio
import errno
import logging
import os
from collections import deque

from serialx import SerialException

from laterne_gateway.config import LineSettings
from laterne_gateway.health import Health
from laterne_gateway.port import DriverHangs, Port
from laterne_protocol.frame import Frame, FrameDecoder

log = logging.getLogger("laterne")
logging.getLogger("serialx").setLevel(logging.WARNING)  # its debug lines hold payloads

MAX_READ_BYTES_S = 2_000_000  # twice what full-speed USB carries
READ_BURST_BYTES = 65_536  # a PTY or USB driver hands over what piled up during a commit
MAX_FRAMES_KEPT = 4  # one answer is awaited at a time; more are noise or late
CHUNK_BYTES = 4096  # more than three frames
NOT_ALLOWED = "the user needs the group dialout, the service a DeviceAllow for its kind (gateway/README.md)"
TAKES_WITHIN_S = 10.0  # a burst of an update takes a second at 9,600 baud: an adapter that takes nothing has crashed


class LineLost(Exception):
    """The port is closed or gone: open it again. remedy: what somebody may do about it."""

    def __init__(self, why: str, remedy: str = "check the plug and the path") -> None:
        super().__init__(why)
        self.remedy = remedy


class SerialLine:
    def __init__(self, settings: LineSettings, health: Health) -> None:
        self.name = settings.name
        self.path = settings.path
        self.baud = settings.baud
        self._subject = f"line {settings.name}"
        self._health = health
        self._port = Port(self.path, self.baud)
        self._descriptor: int | None = None
        self._unsent = bytearray()
        self._taken_at_s = 0.0  # when the port last took a byte of them
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
        """Opens the port, for this process alone. Raises LineLost."""
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._frames.clear()
        try:
            self._descriptor = await self._port.open()
        except DriverHangs as why:
            raise LineLost(str(why), "unplug the adapter and plug it in again") from why
        except (OSError, SerialException, ValueError) as why:
            if isinstance(why, OSError) and why.errno == errno.EBUSY:
                in_use = f"{self.path} is in use by another program, such as laterne flash"
                raise LineLost(in_use, "it is taken when that ends") from why
            said = (isinstance(why, OSError) and why.strerror) or why
            if isinstance(why, PermissionError):
                raise LineLost(f"{self.path}: {said}", NOT_ALLOWED) from why
            raise LineLost(f"{self.path}: {said}") from why
        self._lost = None
        self._loop.add_reader(self._descriptor, self._readable)
        self._health.count(self._subject, "opened")

    @property
    def hangs(self) -> bool:
        """Whether its driver has still to open or to close it."""
        return self._port.hangs

    async def close(self) -> None:
        """Also withdraws an open() that hangs."""
        self._lost = self._lost or "closed"
        for timer in (self._resume, self._alarm):
            if timer is not None:
                timer.cancel()
        self._resume = self._alarm = None
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = None
        self._unsent.clear()
        await self._port.close()

    def write(self, data: bytes) -> None:
        """Raises LineLost."""
        if self._lost is not None or self._descriptor is None:
            raise LineLost(self._lost or "closed")
        if self._unsent:
            if self._loop.time() - self._taken_at_s > TAKES_WITHIN_S:
                raise LineLost(f"{self.path}: has taken no byte for {TAKES_WITHIN_S:.0f} s", "it is opened anew")
            self._unsent += data
        else:
            self._unsent += data
            self._taken_at_s = self._loop.time()
            self._send()
            if self._lost is not None:
                raise LineLost(self._lost)
            if self._unsent:
                self._loop.add_writer(self._descriptor, self._writable)
        self._health.count(self._subject, "bytes sent", len(data))

    def _send(self) -> None:
        """As much as the port takes now."""
        assert self._descriptor is not None
        try:
            taken = os.write(self._descriptor, self._unsent)
        except BlockingIOError:
            return
        except OSError as why:
            self._gone(str(why))
            return
        self._unsent[:taken] = b""
        self._taken_at_s = self._loop.time()

    def _writable(self) -> None:
        self._send()
        if not self._unsent and self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)

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

    def _readable(self) -> None:
        assert self._descriptor is not None
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as why:
            self._gone(str(why))
            return
        if data:
            self._take(data)
        else:  # tty_io.c, hung_up_tty_read
            self._gone("the adapter is gone")

    def _take(self, data: bytes) -> None:
        now_s = self._loop.time()
        damaged, unknown = self._decoder.damaged, self._decoder.unknown
        for frame in self._decoder.feed(data):
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
        if self._allowance < 0 and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._health.count(self._subject, "slowed down")
            self._resume = self._loop.call_later(-self._allowance / MAX_READ_BYTES_S, self._read_on)

    def _read_on(self) -> None:
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._readable)

    def _gone(self, why: str) -> None:
        assert self._descriptor is not None
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        if self._resume is not None:
            self._resume.cancel()
        if self._lost is None:
            self._lost = why
            self.stir()
