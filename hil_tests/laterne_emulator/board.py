"""One emulated board: its power, its resets, and the process that is its processor.

The process runs the firmware from a littlefs image with the heap of a real board. Everything that is not the
processor stands here, outside of that heap: pins, sensors, watchdog, flash faults, the USB port and the UART's end.
A reset, a bite of the watchdog or a power cut is SIGKILL and, but for the cut, a new process.
"""

import asyncio
import hashlib
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from struct import pack, unpack_from

from laterne_emulator import interpreter, records
from laterne_emulator.flash import BLOCKS, INSTANT, Cut, Flash, FlashMisuse, FlashTiming
from laterne_emulator.i2c import Bus
from laterne_emulator.pins import Pins
from laterne_emulator.uart import UartEnd
from laterne_emulator.usb import UsbPort, open_terminal
from laterne_emulator.watchdog import Watchdog

HEAP_BYTES = 152 * 1024  # what the firmware may use (firmware/README.md, "Memory")
EMULATOR_HEAP_BYTES = 22 * 1024 + 768  # what the emulator's own modules keep of it; measured in test_emulated_board.py
UTC_AT_POWER_ON = 1_609_459_200  # rp2 starts its clock at 2021-01-01


class Cause(Enum):
    """machine.reset_cause() of one life."""

    POWER_ON = records.PWRON_RESET
    HARD = records.HARD_RESET
    WATCHDOG = records.WDT_RESET
    SOFT = records.SOFT_RESET


class Ending(Enum):
    """Why a life ended."""

    RESET = "machine.reset() or the reset button"
    SOFT_RESET = "soft reset"
    WATCHDOG = "the watchdog bit"
    POWER_CUT = "power cut at a flash operation"
    POWER_OFF = "power off"
    BOOTLOADER = "machine.bootloader()"
    FLASH_MISUSE = "programmed a page that was not erased"
    FAILED = "the process failed"


_NEXT_CAUSE = {
    Ending.RESET: Cause.HARD,
    Ending.SOFT_RESET: Cause.SOFT,
    Ending.WATCHDOG: Cause.WATCHDOG,
}  # after any other ending the board stays down
_ENDING_OF = {
    records.END_RESET: Ending.RESET,
    records.END_SOFT: Ending.SOFT_RESET,
    records.END_BOOTLOADER: Ending.BOOTLOADER,
}


@dataclass(frozen=True)
class Life:
    """From one reset to the next."""

    cause: Cause
    ending: Ending


class BoardFailed(Exception):
    """The emulation itself broke: the message holds what the board printed last."""


class EmulatedBoard:
    """A board in a folder: `usb` (while it has power), `flash.img`, `console.log`.

    `heap_bytes` is what the firmware gets. `ticks_at_start_ms` (0 .. 2^30 - 1) and `clock_ppm` set the ticks of the
    following power-ons. Sensors are put on `buses`, levels on `pins`, a line on `uart`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        heap_bytes: int = HEAP_BYTES,
        blocks: int = BLOCKS,
        timing: FlashTiming = INSTANT,
        unique_id: bytes | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = folder.name
        self.folder = folder
        self.heap_bytes = heap_bytes
        self.unique_id = unique_id or hashlib.sha256(folder.name.encode()).digest()[:8]
        self.flash = Flash(folder / "flash.img", blocks, timing)
        self.pins = Pins()
        self.buses = {0: Bus(), 1: Bus()}
        self.uart = UartEnd()
        self.usb = UsbPort(folder / "usb", folder / "console.log")
        self.watchdog = Watchdog(lambda: self._end(Ending.WATCHDOG))
        self.ticks_at_start_ms = 0
        self.clock_ppm = 0
        self.utc_at_start = UTC_AT_POWER_ON
        self.lives: list[Life] = []  # those that ended
        self.cause = Cause.POWER_ON
        self.powered = False
        self.formatted = 0  # how often a board found no file system and made one
        self.emulator_heap_bytes = 0  # measured by the last life
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._ending: Ending | None = None
        self._cut: Cut | None = None
        self._torn_page = 0
        self._failure: Exception | None = None
        self._life: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._serve: dict[int, Callable[[int, int, int, bytes], None]] = {
            records.HELLO: self._hello,
            records.READY: self._is_ready,
            records.END: lambda s, why, v, p: self._end(_ENDING_OF[why]),
            records.PIN_MODE: lambda s, pin, v, p: self.pins.board_sets_mode(pin, v & 0xFF, v >> 8),
            records.PIN_WRITE: lambda s, pin, v, p: self.pins.board_writes(pin, v),
            records.PIN_READ: lambda s, pin, v, p: self._answer(s, self.pins.level(pin)),
            records.ADC_READ: lambda s, pin, v, p: self._answer(s, self._analogue(pin)),
            records.I2C_TRANSFER: self._i2c_transfer,
            records.I2C_SCAN: self._i2c_scan,
            records.UART_INIT: lambda s, uart, baud, p: setattr(self.uart, "baud", baud),
            records.UART_ANY: lambda s, uart, v, p: self._answer(s, self.uart.waiting()),
            records.WATCHDOG_START: lambda s, a, ms, p: self.watchdog.start(ms),
            records.WATCHDOG_FEED: lambda s, a, v, p: self.watchdog.feed(),
            records.INTERRUPT: self._set_interrupt,
            records.FLASH_PROGRAM: self._flash_program,
            records.FLASH_ERASE: self._flash_erase,
            records.FLASH_PAGE: self._flash_page,
            records.FLASH_MISUSE: self._flash_misuse,
        }

    @property
    def boots(self) -> int:
        return len(self.lives) + self.powered

    @property
    def failure(self) -> Exception | None:
        """FlashMisuse or BoardFailed that nobody has been told of yet."""
        return self._failure

    # --- power ------------------------------------------------------------------------------------

    async def power_on(self, cut: Cut | None = None) -> None:
        """Give power. Returns when boot.py is about to run, or when `cut` has taken the power before that.

        Raises interpreter.EmulatorUnusable, BoardFailed.
        """
        if self.powered:
            return
        interpreter.on_board_folder()  # what can be missing is missed before anything is opened
        interpreter.wheel_folder()
        await self._over()
        self.flash.cut_power(cut)
        self.powered, self.cause, self._failure = True, Cause.POWER_ON, None
        self._ready.clear()
        self.usb.plug()
        self._life = asyncio.create_task(self._live(), name=f"{self.name} has power")
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait([ready, self._life], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._life.done() or self._failure is not None:  # it may have failed and not be down yet
            await self._over()
        self._check()

    async def power_off(self) -> None:
        """Take the power away now. Raises FlashMisuse or BoardFailed if the board had failed before."""
        if self.powered:
            self._end(Ending.POWER_OFF)
        await self.wait_until_down()

    async def wait_until_down(self) -> None:
        """Wait until the board has no power: after a power cut. Raises FlashMisuse or BoardFailed."""
        await self._over()
        self._check()

    async def _over(self) -> None:
        """Wait for the end of all lives. Whoever is tired of waiting may be cancelled; the board lives on."""
        if self._life is not None:
            await asyncio.wait([self._life])
            self._life.result()

    async def wait_for_life(self, number: int) -> Life:
        """The life of this number (0 is the first), as soon as it has ended."""
        while len(self.lives) <= number:
            self._ended.clear()
            await self._ended.wait()
        return self.lives[number]

    def reset(self) -> None:
        """Press the reset button."""
        if self.powered:
            self._end(Ending.RESET)

    async def close(self) -> None:
        """Power off for good and give back all descriptors; the folder stays."""
        try:
            await self.power_off()
        finally:
            self.uart.close()

    def _check(self) -> None:
        failure, self._failure = self._failure, None  # it is raised to one caller, not again at the end of a test
        if failure is not None:
            raise failure

    # --- lives ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            while True:
                ending = await self._live_once()
                self.lives.append(Life(self.cause, ending))
                if ending is not Ending.SOFT_RESET:
                    self.watchdog.reset()
                    self.usb.unplug()
                cause = _NEXT_CAUSE.get(ending)
                if cause is None:
                    return
                self._ended.set()
                self.cause = cause
                if ending is Ending.SOFT_RESET:
                    self.usb.say(b"MPY: soft reboot\r\n")
                else:
                    self.usb.plug()
        finally:
            self.powered = self.uart.powered = False
            self.watchdog.reset()
            self.usb.unplug()
            self._ended.set()

    async def _live_once(self) -> Ending:
        loop = asyncio.get_running_loop()
        self._ending = self._cut = None
        self._ready.clear()
        self.pins.reset()
        self.uart.restart()
        console, terminal = open_terminal()
        self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        self._process = self._start(terminal, channel)
        channel.close()
        os.close(terminal)
        self.uart.powered = True
        self.usb.attach(console)
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._channel, self._serve_channel)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._process.kill()
            status = self._process.wait()
            self._serve_channel()  # what it said last
            loop.remove_reader(self._channel)
            self._channel.close()
            self.uart.powered = False
            self.usb.detach()
        return self._ending or self._judge(status)

    def _start(self, terminal: int, channel: socket.socket) -> "subprocess.Popen[bytes]":
        arguments, environment = interpreter.command(self.heap_bytes + EMULATOR_HEAP_BYTES, channel.fileno())
        return subprocess.Popen(
            arguments,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            pass_fds=[channel.fileno(), self.uart.board_side.fileno()],
            env=environment,
            cwd="/",
        )

    def _judge(self, status: int) -> Ending:
        """Why did a process end of which nobody said why? Ctrl-D and SystemExit in the REPL end it with a status."""
        if status >= 0 and self._ready.is_set():
            return Ending.SOFT_RESET
        last = self.usb.printed()[-2000:]
        self._failure = BoardFailed(f"{self.name}: the process ended with {status}; it printed last: {last!r}")
        return Ending.FAILED

    def _end(self, why: Ending) -> None:
        if self._process is None or self._ending is not None:
            return
        self._ending = why
        self._process.kill()

    # --- the control channel (records.py) ---------------------------------------------------------

    def _serve_channel(self) -> None:
        assert self._channel is not None
        for _ in range(64):  # then let the other boards have their turn
            try:
                record = self._channel.recv(records.HEADER_BYTES + records.PAYLOAD_BYTES)
            except (BlockingIOError, ConnectionError):
                return
            if not record:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            operation, argument, sequence, value = unpack_from(records.HEADER, record)
            try:
                self._serve[operation](sequence, argument, value, record[records.HEADER_BYTES :])
            except Exception as why:
                # A fault of a sensor model or of this supervisor: the board cannot go on, and the test must see it.
                self._failure = why
                self._end(Ending.FAILED)
                return

    def _answer(self, sequence: int, value: int = 0, payload: bytes = b"", error: int = 0, flags: int = 0) -> None:
        assert self._channel is not None
        try:
            head = pack(records.HEADER, error, flags, sequence, value)
            self._channel.send((head + payload).ljust(records.REPLY_BYTES, b"\0"))
        except (ConnectionError, BlockingIOError):
            # The process has just ended, or has not read 100 replies: it asks for one at a time.
            return

    def _hello(self, sequence: int, argument: int, value: int, payload: bytes) -> None:
        boot = pack(
            records.BOOT,
            self.cause.value,
            self.usb.raw,
            self.flash.blocks,
            self.ticks_at_start_ms,
            self.clock_ppm,
            self.utc_at_start,
            self.uart.board_side.fileno(),
            self.uart.paced,
            self.unique_id,
        )
        boot += os.fsencode(self.flash.image.resolve())
        self._answer(sequence, len(boot) - records.BOOT_BYTES, boot)

    def _set_interrupt(self, sequence: int, argument: int, on: int, payload: bytes) -> None:
        self.usb.let_interrupt(on > 0, at_once=on == records.INTERRUPT_NOW)
        if on != records.INTERRUPT_SOON:
            self._answer(sequence)

    def _is_ready(self, sequence: int, formatted: int, heap: int, payload: bytes) -> None:
        self.formatted += formatted
        self.emulator_heap_bytes = heap
        self._ready.set()

    def _analogue(self, pin: int) -> int:
        source = self.pins.adc.get(pin)
        return source() if source else 0

    def _i2c_transfer(self, sequence: int, bus: int, value: int, payload: bytes) -> None:
        error, read = self.buses[bus].transfer(value & 0xFFFF, payload, value >> 16)
        self._answer(sequence, payload=read, error=error)

    def _i2c_scan(self, sequence: int, bus: int, value: int, payload: bytes) -> None:
        found = self.buses[bus].scan()
        self._answer(sequence, len(found), found)

    # --- flash operations -------------------------------------------------------------------------

    def _flash_program(self, sequence: int, argument: int, address: int, payload: bytes) -> None:
        cut, skipped = self.flash.begins()
        if cut:
            self._cut, self._torn_page = cut, address
            self._answer(sequence, flags=records.FLASH_HOLD)
            return
        self.flash.programs()
        self._answer_busy(sequence, self.flash.timing.page_ms, skipped)

    def _flash_page(self, sequence: int, argument: int, value: int, payload: bytes) -> None:
        assert self._cut is not None
        # First the power, then the page: the process must not see what is left of it.
        self._end(Ending.POWER_CUT)
        self.flash.tear_program(self._torn_page, payload, self._cut)

    def _flash_erase(self, sequence: int, argument: int, block: int, payload: bytes) -> None:
        cut, skipped = self.flash.begins()
        if cut:
            self._end(Ending.POWER_CUT)
            self.flash.tear_erase(block, cut)
            return
        self.flash.erases(block, skipped)
        self._answer_busy(sequence, self.flash.timing.erase_ms, skipped)

    def _answer_busy(self, sequence: int, busy_ms: float, skipped: bool) -> None:
        if busy_ms:
            self.uart.flash_busy(busy_ms / 1000)
        self._answer(sequence, round(busy_ms * 1000), flags=records.FLASH_SKIP if skipped else 0)

    def _flash_misuse(self, sequence: int, argument: int, address: int, payload: bytes) -> None:
        if self.flash.may_program_twice(address):
            self._answer(sequence)
            return
        self._failure = FlashMisuse(f"{self.name} programmed the page at 0x{address:x} that was not erased")
        self._end(Ending.FLASH_MISUSE)
