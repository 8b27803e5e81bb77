"""What a board's process asks of everything around it: the supervisor's end of the control channel (records.py).

One Requests lives as long as one process. It knows what stands around the processor and nothing of power: whether a
life ends, and what follows, is decided by whoever made it (board.py).
"""

import asyncio
import socket
from collections.abc import Callable
from struct import pack, unpack_from
from typing import Protocol

from laterne_emulator import records
from laterne_emulator.flash import Cut, Flash, FlashMisuse
from laterne_emulator.i2c import Bus
from laterne_emulator.lives import Ending
from laterne_emulator.pins import Pins
from laterne_emulator.uart import UartEnd
from laterne_emulator.usb import UsbPort
from laterne_emulator.watchdog import Watchdog

AT_ONCE = 64  # requests of one board, then let the other boards have their turn
_ENDING_OF = {
    records.END_RESET: Ending.RESET,
    records.END_SOFT: Ending.SOFT_RESET,
    records.END_BOOTLOADER: Ending.BOOTLOADER,
}


class Surroundings(Protocol):
    """What stands around a processor. A test may put another flash there while the board runs."""

    name: str
    flash: Flash
    pins: Pins
    buses: dict[int, Bus]
    uart: UartEnd
    usb: UsbPort
    watchdog: Watchdog


class Requests:
    """channel: our end of it, closed by stop(). boot_record: records.BOOT and the path of the image. is_ready: told
    whether the flash was formatted, and how many bytes of heap the emulator keeps. end: the power goes, or the board
    resets. fail: and whoever waits is told why.
    """

    def __init__(
        self,
        channel: socket.socket,
        around: Surroundings,
        boot_record: Callable[[], bytes],
        is_ready: Callable[[int, int], None],
        end: Callable[[Ending], None],
        fail: Callable[[Exception, Ending], None],
    ) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._around = around
        self._boot_record = boot_record
        self._end = end
        self._fail = fail
        self._cut: Cut | None = None
        self._torn_page = 0
        self._serve: dict[int, Callable[[int, int, int, bytes], None]] = {
            records.HELLO: self._hello,
            records.READY: lambda s, formatted, heap, p: is_ready(formatted, heap),
            records.END: lambda s, why, v, p: end(_ENDING_OF[why]),
            records.PIN_MODE: lambda s, pin, v, p: self._around.pins.board_sets_mode(pin, v & 0xFF, v >> 8),
            records.PIN_WRITE: lambda s, pin, v, p: self._around.pins.board_writes(pin, v),
            records.PIN_READ: lambda s, pin, v, p: self._answer(s, self._around.pins.level(pin)),
            records.ADC_READ: lambda s, pin, v, p: self._answer(s, self._analogue(pin)),
            records.I2C_TRANSFER: self._i2c_transfer,
            records.I2C_SCAN: self._i2c_scan,
            records.UART_INIT: lambda s, uart, baud, p: setattr(self._around.uart, "baud", baud),
            records.UART_ANY: lambda s, uart, v, p: self._answer(s, self._around.uart.waiting()),
            records.WATCHDOG_START: lambda s, a, ms, p: self._around.watchdog.start(ms),
            records.WATCHDOG_FEED: lambda s, a, v, p: self._around.watchdog.feed(),
            records.FLASH_PROGRAM: self._flash_program,
            records.FLASH_ERASE: self._flash_erase,
            records.FLASH_PAGE: self._flash_page,
            records.FLASH_MISUSE: self._flash_misuse,
        }

    def begin(self) -> None:
        asyncio.get_running_loop().add_reader(self._channel, self._readable)

    def stop(self) -> None:
        """The process has ended: what it said last is heard."""
        self._readable()
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
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
                self._fail(why, Ending.FAILED)
                return

    def _answer(self, sequence: int, value: int = 0, payload: bytes = b"", error: int = 0, flags: int = 0) -> None:
        try:
            head = pack(records.HEADER, error, flags, sequence, value)
            self._channel.send((head + payload).ljust(records.REPLY_BYTES, b"\0"))
        except (ConnectionError, BlockingIOError):
            # The process has just ended, or has not read 100 replies: it asks for one at a time.
            return

    def _hello(self, sequence: int, argument: int, value: int, payload: bytes) -> None:
        boot = self._boot_record()
        self._answer(sequence, len(boot) - records.BOOT_BYTES, boot)

    def _analogue(self, pin: int) -> int:
        source = self._around.pins.adc.get(pin)
        return source() if source else 0

    def _i2c_transfer(self, sequence: int, bus: int, value: int, payload: bytes) -> None:
        error, read = self._around.buses[bus].transfer(value & 0xFFFF, payload, value >> 16)
        self._answer(sequence, payload=read, error=error)

    def _i2c_scan(self, sequence: int, bus: int, value: int, payload: bytes) -> None:
        found = self._around.buses[bus].scan()
        self._answer(sequence, len(found), found)

    # --- flash operations -------------------------------------------------------------------------

    def _flash_program(self, sequence: int, argument: int, address: int, payload: bytes) -> None:
        cut, skipped = self._around.flash.begins()
        if cut:
            self._cut, self._torn_page = cut, address
            self._answer(sequence, flags=records.FLASH_HOLD)
            return
        self._around.flash.programs(address)
        self._answer_busy(sequence, self._around.flash.timing.page_ms, skipped)

    def _flash_page(self, sequence: int, argument: int, value: int, payload: bytes) -> None:
        assert self._cut is not None
        # First the power, then the page: the process must not see what is left of it.
        self._end(Ending.POWER_CUT)
        self._around.flash.tear_program(self._torn_page, payload, self._cut)

    def _flash_erase(self, sequence: int, argument: int, block: int, payload: bytes) -> None:
        cut, skipped = self._around.flash.begins()
        if cut:
            self._end(Ending.POWER_CUT)
            self._around.flash.tear_erase(block, cut)
            return
        self._around.flash.erases(block, skipped)
        self._answer_busy(sequence, self._around.flash.timing.erase_ms, skipped)

    def _answer_busy(self, sequence: int, busy_ms: float, skipped: bool) -> None:
        if busy_ms:
            self._around.uart.flash_busy(busy_ms / 1000)
        self._answer(sequence, round(busy_ms * 1000), flags=records.FLASH_SKIP if skipped else 0)

    def _flash_misuse(self, sequence: int, argument: int, address: int, payload: bytes) -> None:
        if self._around.flash.may_program_twice(address):
            self._answer(sequence)
            return
        misuse = FlashMisuse(f"{self._around.name} programmed the page at 0x{address:x} that was not erased")
        self._fail(misuse, Ending.FLASH_MISUSE)
