"""A serial line between a gateway's port and the UARTs of boards: its time, its noise, its faults.

The gateway opens a PTY by a stable path (a symbolic link). Point to point the line is full duplex; a bus is half
duplex, has up to 32 boards, and two who send at once destroy each other's bytes. Random decisions are made byte by
byte from a seed for each sender, so that a run repeats whatever the machine's timing.
"""

import asyncio
import os
import pty
import random
import termios
import tty
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from laterne_emulator.uart import DEFAULT_BAUD, UartEnd
from laterne_emulator.usb import point_link

BITS_PER_BYTE = 10  # start, 8 data, stop
MAX_BOARDS = 32
QUEUE_BYTES = 4096  # then the sender is not read any more, as a full driver blocks its writer
STEP_S = 0.001  # bytes move in steps of about a millisecond: asyncio's timers are no finer
BAUD_TOLERANCE = 0.03  # a UART still samples the stop bit within it
MAX_FRAME_BYTES = 2048  # what is kept of a frame to send it twice
FRAME_END = 0  # protocol/README.md: a zero byte ends a frame

_BAUDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}
_SPEEDS = {baud: speed for speed, baud in _BAUDS.items()}


@dataclass
class LineFaults:
    """Probabilities from 0 to 1, for both directions. All may be changed while the line runs."""

    bit_errors: float = 0.0  # of each bit
    lost: float = 0.0  # of each byte
    doubled: float = 0.0  # of each byte
    frames_doubled: float = 0.0  # of each frame: the whole of it arrives twice
    delayed: float = 0.0  # of each byte: the line pauses before it
    delay_s: float = 0.05
    split: bool = False  # what is delivered at once is a random part of what is there
    echo: bool = False  # the gateway hears what it sends, as with many RS-485 adapters


@dataclass
class LineCount:
    to_board: int = 0
    to_gateway: int = 0
    flips: int = 0
    lost: int = 0
    doubled: int = 0
    frames_doubled: int = 0
    collisions: int = 0  # bytes destroyed because two sent at once
    garbled: int = 0  # bytes destroyed because sender and receiver differ in baud
    gateway_overrun: int = 0  # bytes for a gateway that did not read


class _Sender:
    """Bytes of one sender that are not yet on the line."""

    def __init__(self, seed: str, end: UartEnd | None) -> None:
        self.end = end  # None: the gateway
        self.dice = random.Random(seed)
        self.waiting = bytearray()
        self.free_at = 0.0  # when the last byte was through
        self.babbling = False
        self.frame = bytearray()
        self.repeating = 0  # bytes at the head of `waiting` that are already a repetition
        self.delay_decided = False  # for the byte at the head of `waiting`

    @property
    def active(self) -> bool:
        return bool(self.waiting)


class Line:
    """One line, plugged in when it is made. Needs a running event loop. `paced=False` moves bytes at once."""

    def __init__(
        self,
        path: Path,
        ends: Sequence[UartEnd],
        *,
        baud: int = DEFAULT_BAUD,
        bus: bool = False,
        paced: bool = True,
        latency_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        if len(ends) > (MAX_BOARDS if bus else 1):
            raise ValueError(f"{len(ends)} boards do not fit: a bus takes {MAX_BOARDS}, a plain line one")
        if baud not in _SPEEDS:
            raise ValueError(
                f"{baud} is no baud rate that a port can be set to: {', '.join(map(str, sorted(_SPEEDS)))}"
            )
        self.path = path
        self.ends = tuple(ends)
        self.faults = LineFaults()
        self.count = LineCount()
        self._baud = baud
        self._bus = bus
        self._paced = paced
        self._latency_s = latency_s
        self._split_dice = random.Random(f"{seed} split")
        self._gateway = _Sender(f"{seed} gateway", None)
        self._boards = [_Sender(f"{seed} board {number}", end) for number, end in enumerate(ends)]
        self._senders = [self._gateway, *self._boards]
        self._in_transit: deque[tuple[float, _Sender, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0  # bytes that came from all senders
        self._moved = asyncio.Event()
        self._host = self._device = -1
        self._loop = asyncio.get_running_loop()
        self._tap: BinaryIO | None = None
        for sender, end in zip(self._boards, ends, strict=True):
            end.paced = paced
            end.on_reset = sender.waiting.clear
            self._loop.add_reader(end.line_side, self._from_board, sender)
        self.plug()

    # --- plugged and unplugged --------------------------------------------------------------------

    @property
    def plugged(self) -> bool:
        return self._host >= 0

    def plug(self) -> None:
        """The adapter is there: its path appears."""
        if self.plugged:
            return
        self._host, self._device = pty.openpty()
        tty.setraw(self._device)
        settings = termios.tcgetattr(self._device)
        settings[4] = settings[5] = _SPEEDS[self._baud]
        termios.tcsetattr(self._device, termios.TCSANOW, settings)
        os.set_blocking(self._host, False)
        point_link(self.path, os.ttyname(self._device))
        self._loop.add_reader(self._host, self._from_gateway)

    def unplug(self) -> None:
        """The adapter is pulled out: its path vanishes, and whoever has it open gets an I/O error."""
        if not self.plugged:
            return
        self._loop.remove_reader(self._host)
        self.path.unlink(missing_ok=True)
        os.close(self._host)
        os.close(self._device)
        self._host = self._device = -1
        self._gateway.waiting.clear()

    def babble(self, number: int, on: bool) -> None:
        """Board `number` (0 is the first) sends noise without end, or stops it."""
        self._boards[number].babbling = on
        if not on:
            self._boards[number].waiting.clear()
        self._pump()

    def tap(self, path: Path | None) -> None:
        """Append all that is sent on the line, both ways, to a file: what a clip on the cable hears. None: stop."""
        if self._tap is not None:
            self._tap.close()
        self._tap = None if path is None else path.open("ab", buffering=0)

    def close(self) -> None:
        self.unplug()
        self.tap(None)
        for end in self.ends:
            self._loop.remove_reader(end.line_side)
            end.on_reset = None
        if self._timer:
            self._timer.cancel()

    async def idle(self, after: int = 0) -> None:
        """Return when nothing is on the line, and at least `after` bytes have come to it from all its senders."""
        while self._taken < after or self._in_transit or any(sender.waiting for sender in self._senders):
            self._moved.clear()
            await self._moved.wait()

    # --- bytes come from a sender -----------------------------------------------------------------

    def _from_gateway(self) -> None:
        try:
            data = os.read(self._host, QUEUE_BYTES)
        except BlockingIOError:
            return
        self._take(self._gateway, data)
        if len(self._gateway.waiting) >= QUEUE_BYTES:
            self._loop.remove_reader(self._host)

    def _from_board(self, sender: _Sender) -> None:
        assert sender.end is not None
        try:
            data = sender.end.line_side.recv(QUEUE_BYTES)
        except BlockingIOError:
            return
        sender.end.count.sent += len(data)
        self._take(sender, data)
        if len(sender.waiting) >= QUEUE_BYTES:
            self._loop.remove_reader(sender.end.line_side)

    def _take(self, sender: _Sender, data: bytes) -> None:
        if not sender.waiting:
            sender.free_at = max(sender.free_at, self._loop.time())
        self._taken += len(data)
        if self._tap is not None:
            self._tap.write(data)
        sender.waiting += data
        self._pump()

    def _read_on(self, sender: _Sender) -> None:
        if len(sender.waiting) >= QUEUE_BYTES:
            return
        if sender.end is not None:
            self._loop.add_reader(sender.end.line_side, self._from_board, sender)
        elif self.plugged:
            self._loop.add_reader(self._host, self._from_gateway)

    # --- bytes move -------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Move what is through by now, and come back when more is."""
        now = self._loop.time()
        colliding = self._bus and sum(sender.active or sender.babbling for sender in self._senders) > 1
        for sender in self._senders:
            if sender.babbling:
                if not sender.waiting:
                    sender.free_at = max(sender.free_at, now)
                sender.waiting += sender.dice.randbytes(max(0, 16 - len(sender.waiting)))
            was_full = len(sender.waiting) >= QUEUE_BYTES
            data = self._through(sender, now)
            if not data:
                continue
            if was_full:
                self._read_on(sender)
            if colliding:
                self.count.collisions += len(data)
                data = sender.dice.randbytes(len(data))
            self._in_transit.append((now + self._latency_s, sender, data))
        while self._in_transit and self._in_transit[0][0] <= now:
            _, sender, data = self._in_transit.popleft()
            self._deliver(sender, data)
        self._moved.set()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        due = [self._in_transit[0][0]] if self._in_transit else []
        for sender in self._senders:
            # A babbling sender always has more, also when a late timer has just taken all there was.
            waiting = max(len(sender.waiting), sender.babbling)
            if waiting:
                byte_s = self._byte_s(sender)
                step = max(1, int(STEP_S / byte_s)) if byte_s else 1
                due.append(sender.free_at + min(step, waiting) * byte_s)
        if due:
            self._timer = self._loop.call_at(min(due), self._pump)

    def _byte_s(self, sender: _Sender) -> float:
        if not self._paced and not sender.babbling:
            return 0.0
        return BITS_PER_BYTE / (sender.end.baud if sender.end else self._gateway_baud())

    def _through(self, sender: _Sender, now: float) -> bytes:
        """Take the bytes that are on the line by now, after noise, loss, doubling and pauses."""
        byte_s = self._byte_s(sender)
        ready = len(sender.waiting)
        if byte_s:
            # A millionth of a byte more: a timer that is on time must not miss its byte by rounding.
            ready = min(ready, int((now - sender.free_at) / byte_s + 1e-6))
        if ready <= 0 or sender.free_at > now:
            return b""
        if self.faults.split:
            ready = self._split_dice.randint(1, ready)
        faults = self.faults
        if not (faults.bit_errors or faults.lost or faults.doubled or faults.frames_doubled or faults.delayed):
            data = bytes(sender.waiting[:ready])
            del sender.waiting[:ready]
            sender.repeating = max(0, sender.repeating - ready)
            sender.free_at += ready * byte_s
            return data
        out = bytearray()
        for _ in range(ready):
            if self._pauses(sender):
                break
            sender.free_at += byte_s
            self._disturb(sender, out)
        return bytes(out)

    def _pauses(self, sender: _Sender) -> bool:
        """Whether the line pauses before the next byte; decided once for each."""
        if sender.delay_decided:
            sender.delay_decided = False
            return False
        if self.faults.delayed and sender.dice.random() < self.faults.delayed:
            sender.delay_decided = True
            sender.free_at += self.faults.delay_s
            return True
        return False

    def _disturb(self, sender: _Sender, out: bytearray) -> None:
        """Move one byte from the sender to `out`, or lose it, or change it."""
        faults, dice = self.faults, sender.dice
        byte = sender.waiting.pop(0)
        if sender.repeating:
            sender.repeating -= 1
        elif faults.frames_doubled:
            sender.frame.append(byte)
            if byte == FRAME_END:
                if dice.random() < faults.frames_doubled and len(sender.frame) <= MAX_FRAME_BYTES:
                    sender.waiting[:0] = sender.frame
                    sender.repeating = len(sender.frame)
                    self.count.frames_doubled += 1
                sender.frame.clear()
            elif len(sender.frame) > MAX_FRAME_BYTES:
                sender.frame.pop(0)
        if faults.lost and dice.random() < faults.lost:
            self.count.lost += 1
            return
        if faults.bit_errors and dice.random() < 1 - (1 - faults.bit_errors) ** 8:
            byte ^= 1 << dice.randrange(8)
            self.count.flips += 1
        out.append(byte)
        if faults.doubled and dice.random() < faults.doubled:
            out.append(byte)
            self.count.doubled += 1

    # --- bytes arrive -----------------------------------------------------------------------------

    def _deliver(self, sender: _Sender, data: bytes) -> None:
        baud = sender.end.baud if sender.end else self._gateway_baud()
        if sender is self._gateway:
            self.count.to_board += len(data)
            if self.faults.echo:
                self._to_gateway(data)
            listeners = self.ends
        else:
            self.count.to_gateway += len(data)
            self._to_gateway(self._as_heard(data, baud, self._gateway_baud(), sender))
            listeners = tuple(end for end in self.ends if end is not sender.end) if self._bus else ()
        for end in listeners:
            end.deliver(self._as_heard(data, baud, end.baud, sender))

    def _as_heard(self, data: bytes, sent: int, heard: int, sender: _Sender) -> bytes:
        if abs(sent - heard) <= BAUD_TOLERANCE * sent:
            return data
        self.count.garbled += len(data)
        return sender.dice.randbytes(max(1, len(data) * heard // sent))

    def _to_gateway(self, data: bytes) -> None:
        if not self.plugged:
            return
        try:
            written = os.write(self._host, data)
        except BlockingIOError:
            written = 0
        self.count.gateway_overrun += len(data) - written

    def _gateway_baud(self) -> int:
        """What the program on the port has set; a rate without a name of its own counts as the line's."""
        if not self.plugged:
            return self._baud
        return _BAUDS.get(termios.tcgetattr(self._host)[5], self._baud)
