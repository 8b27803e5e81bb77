"""One emulated board: its power, its resets, and the process that is its processor.

The process runs the firmware from a littlefs image with the heap of a real board. Everything that is not the
processor stands here, outside of that heap: pins, sensors, watchdog, flash faults, the USB port and the UART's end;
the process asks for them over a channel (requests.py). A reset, a bite of the watchdog or a power cut is SIGKILL and,
but for the cut, a new process.
"""

import asyncio
import hashlib
import os
import socket
from pathlib import Path
from struct import pack

from laterne_emulator import interpreter, processor, records
from laterne_emulator.flash import BLOCKS, INSTANT, PAGE_BYTES, Cut, Flash, FlashTiming
from laterne_emulator.i2c import Bus
from laterne_emulator.lives import NEXT_CAUSE, BoardFailed, Cause, Ending, Life
from laterne_emulator.pins import Pins
from laterne_emulator.requests import Requests
from laterne_emulator.terminal import UART_FD
from laterne_emulator.uart import UartEnd
from laterne_emulator.usb import UsbPort, open_terminal
from laterne_emulator.watchdog import Watchdog

HEAP_BYTES = 152 * 1024  # what the firmware may use (firmware/README.md, "Memory")
EMULATOR_HEAP_BYTES = 23 * 1024 + 768  # what the emulator's own modules keep of it; measured in test_emulated_board.py
UTC_AT_POWER_ON = 1_609_459_200  # rp2 starts its clock at 2021-01-01


class EmulatedBoard:
    """A board in a folder: `usb` (while it has power), `flash.img`, `console.log`.

    `heap_bytes` is what the firmware gets. `ticks_at_start_ms` (0 .. 2^30 - 1) and `clock_ppm` set the ticks of the
    following power-ons. Sensors are put on `buses`, levels on `pins`, a line on `uart`. `frozen`: a folder that stands
    for what is frozen into its interpreter; without one it starts as stock MicroPython does, and formats what it cannot
    mount.
    """

    def __init__(
        self,
        folder: Path,
        *,
        heap_bytes: int = HEAP_BYTES,
        blocks: int = BLOCKS,
        timing: FlashTiming = INSTANT,
        page_bytes: int = PAGE_BYTES,
        unique_id: bytes | None = None,
        frozen: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = folder.name
        self.folder = folder
        self.heap_bytes = heap_bytes
        self.frozen = frozen
        self.unique_id = unique_id or hashlib.sha256(folder.name.encode()).digest()[:8]
        self.flash = Flash(folder / "flash.img", blocks, timing, page_bytes)
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
        self._process: processor.Processor | None = None
        self._ending: Ending | None = None
        self._failure: Exception | None = None
        self._life: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()

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
                cause = NEXT_CAUSE.get(ending)
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
        self._ending = None
        self._ready.clear()
        self.pins.reset()
        self.uart.restart()
        console, terminal = open_terminal()
        ours, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        requests = Requests(ours, self, self._boot_record, self._is_ready, self._end, self._fail)
        self._process = self._start(terminal, channel)
        channel.close()
        os.close(terminal)
        self.uart.powered = True
        self.usb.attach(console, self._process.interrupt)
        ended = asyncio.Event()
        requests.begin()
        loop.add_reader(self._process.pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.pidfd)
            self._process.kill()
            status = self._process.wait()
            requests.stop()
            self.uart.powered = False
            self.usb.detach()
        return self._ending or self._judge(status)

    def _start(self, terminal: int, channel: socket.socket) -> processor.Processor:
        arguments = interpreter.arguments(self.heap_bytes + EMULATOR_HEAP_BYTES, self.frozen)
        return processor.start(arguments, terminal, channel.fileno(), self.uart.board_side.fileno())

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

    def _fail(self, why: Exception, ending: Ending) -> None:
        self._failure = why
        self._end(ending)

    def _is_ready(self, formatted: int, heap: int) -> None:
        self.formatted += formatted
        self.emulator_heap_bytes = heap
        self._ready.set()

    def _boot_record(self) -> bytes:
        bad = self.flash.bad
        boot = pack(
            records.BOOT,
            self.cause.value,
            self.usb.raw,
            self.flash.blocks,
            self.ticks_at_start_ms,
            self.clock_ppm,
            self.utc_at_start,
            UART_FD,
            self.uart.paced,
            bad.wrong.value if bad else 0,
            self.unique_id,
            self.flash.page_bytes,
            bad.block if bad else 0,
            bad.read if bad else 0,
        )
        return boot + os.fsencode(self.flash.image.resolve())
