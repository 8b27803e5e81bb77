"""The module `machine` of an emulated board: what the firmware needs of micropython-rp2-stubs, no more.

Every peripheral but the UART is a question to the supervisor (records.py), where the sensors, the pins, the
watchdog and all faults live. The UART is an inherited descriptor, paced here as its line is paced there.
"""

import io
import select
from time import sleep_us, ticks_diff, ticks_us  # the real clock: `time` is replaced later

import control as _control
import records as _records

PWRON_RESET = _records.PWRON_RESET
HARD_RESET = _records.HARD_RESET
WDT_RESET = _records.WDT_RESET
SOFT_RESET = _records.SOFT_RESET

_cause = PWRON_RESET
_uid = b""
_uart_fd = -1
_uart_paced = 0


def _set(cause: int, uid: bytes, uart_fd: int, uart_paced: int) -> None:
    global _cause, _uid, _uart_fd, _uart_paced
    _cause, _uid, _uart_fd, _uart_paced = cause, uid, uart_fd, uart_paced


def reset() -> None:
    _control.end(_records.END_RESET)


def soft_reset() -> None:
    raise SystemExit  # as on boards: main.py's runner and the REPL make a soft reset of it


def bootloader(timeout: int = 0) -> None:
    _control.end(_records.END_BOOTLOADER)


def reset_cause() -> int:
    return _cause


def unique_id() -> bytes:
    return _uid


def freq(hz: "int | None" = None) -> int:
    return 125000000


def idle() -> None:
    sleep_us(1000)


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 1
    PULL_DOWN = 2

    def __init__(self, id: int, mode: int = -1, pull: int = -1, *, value: "int | None" = None) -> None:
        self.id = id
        if value is not None:  # before the mode, so that an output never shows a wrong level
            self.value(value)
        if mode != -1:
            _control.tell(_records.PIN_MODE, id, mode | (pull if pull > 0 else 0) << 8)

    def init(self, mode: int = -1, pull: int = -1, *, value: "int | None" = None) -> None:
        self.__init__(self.id, mode, pull, value=value)

    def value(self, x: "int | None" = None) -> "int | None":
        if x is None:
            _control.ask(_records.PIN_READ, self.id)
            return _control.value()
        _control.tell(_records.PIN_WRITE, self.id, 1 if x else 0)
        return None

    def __call__(self, x: "int | None" = None) -> "int | None":
        return self.value(x)

    def on(self) -> None:
        self.value(1)

    def off(self) -> None:
        self.value(0)

    high = on
    low = off

    def toggle(self) -> None:
        self.value(not self.value())


class Signal:
    def __init__(self, pin: Pin, *, invert: bool = False) -> None:
        self._pin = pin
        self._invert = invert

    def value(self, x: "int | None" = None) -> "int | None":
        if x is None:
            return self._pin.value() ^ self._invert
        return self._pin.value(bool(x) ^ self._invert)

    def __call__(self, x: "int | None" = None) -> "int | None":
        return self.value(x)

    def on(self) -> None:
        self.value(1)

    def off(self) -> None:
        self.value(0)


class ADC:
    def __init__(self, pin: "Pin | int") -> None:
        self._pin = pin if isinstance(pin, int) else pin.id

    def read_u16(self) -> int:
        _control.ask(_records.ADC_READ, self._pin)
        return _control.value()


class I2C:
    def __init__(
        self, id: int, *, scl: "Pin | None" = None, sda: "Pin | None" = None, freq: int = 400000, timeout: int = 50000
    ) -> None:
        self._id = id
        self._register = bytearray(1)
        self._wide_register = bytearray(2)

    def scan(self) -> "list[int]":
        _control.ask(_records.I2C_SCAN, self._id)
        return list(_control.reply[_records.HEADER_BYTES : _records.HEADER_BYTES + _control.value()])

    def _read(self, address: int, written: "bytes | None", into: bytearray) -> None:
        length = len(into)
        _control.ask(_records.I2C_TRANSFER, self._id, address | length << 16, written)
        reply = _control.reply
        for i in range(length):
            into[i] = reply[_records.HEADER_BYTES + i]

    def writeto(self, addr: int, buf: bytes, stop: bool = True) -> int:
        _control.ask(_records.I2C_TRANSFER, self._id, addr, buf)
        return len(buf)

    def readfrom_into(self, addr: int, buf: bytearray, stop: bool = True) -> None:
        self._read(addr, None, buf)

    def readfrom(self, addr: int, nbytes: int, stop: bool = True) -> bytes:
        into = bytearray(nbytes)
        self._read(addr, None, into)
        return bytes(into)

    def _memory_address(self, memaddr: int, addrsize: int) -> bytearray:
        if addrsize == 8:
            self._register[0] = memaddr
            return self._register
        self._wide_register[0] = memaddr >> 8
        self._wide_register[1] = memaddr & 0xFF
        return self._wide_register

    def readfrom_mem_into(self, addr: int, memaddr: int, buf: bytearray, *, addrsize: int = 8) -> None:
        self._read(addr, self._memory_address(memaddr, addrsize), buf)

    def readfrom_mem(self, addr: int, memaddr: int, nbytes: int, *, addrsize: int = 8) -> bytes:
        into = bytearray(nbytes)
        self.readfrom_mem_into(addr, memaddr, into, addrsize=addrsize)
        return bytes(into)

    def writeto_mem(self, addr: int, memaddr: int, buf: bytes, *, addrsize: int = 8) -> None:
        _control.ask(_records.I2C_TRANSFER, self._id, addr, bytes(self._memory_address(memaddr, addrsize)) + bytes(buf))


class WDT:
    def __init__(self, id: int = 0, timeout: int = 5000) -> None:
        _control.tell(_records.WATCHDOG_START, id, timeout)

    def feed(self) -> None:
        _control.tell(_records.WATCHDOG_FEED)


_FIFO_BYTES = 32  # the transmitter's, as on RP2040
_MP_STREAM_POLL = 3
_MP_STREAM_GET_FILENO = 10


class UART(io.IOBase):
    # An io.IOBase subclass has only the methods that are written here; StreamReader needs readline, too.
    def __init__(self, id: int, baudrate: int = 115200, **settings: object) -> None:
        self._id = id
        self._file = open(_uart_fd, "r+b")
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)
        self.init(baudrate, **settings)

    def init(
        self,
        baudrate: int = 115200,
        bits: int = 8,
        parity: "int | None" = None,
        stop: int = 1,
        *,
        tx: "Pin | None" = None,
        rx: "Pin | None" = None,
        txbuf: int = 256,
        rxbuf: int = 256,
        timeout: int = 0,
        timeout_char: int = 0,
    ) -> None:
        self._byte_us = 10000000 // baudrate if _uart_paced else 0
        self._room = txbuf + _FIFO_BYTES
        self._timeout_us = timeout * 1000
        self._sent_at = ticks_us()  # when the last byte that was written is on the line
        _control.tell(_records.UART_INIT, self._id, baudrate)

    def deinit(self) -> None:
        pass

    def ioctl(self, request: int, argument: int) -> int:
        if request == _MP_STREAM_GET_FILENO:
            return _uart_fd  # a real poll(2): no spinning
        if request == _MP_STREAM_POLL:
            self._poll.modify(self._file, argument)
            for _, events in self._poll.ipoll(0):
                return events
            return 0
        return -1

    def read(self, nbytes: int = -1) -> "bytes | None":
        return self._file.read(nbytes) if nbytes >= 0 else self._file.read()

    def readinto(self, buf: bytearray, nbytes: int = -1) -> "int | None":
        return self._file.readinto(buf, nbytes) if nbytes >= 0 else self._file.readinto(buf)

    def readline(self) -> "bytes | None":
        return self._file.readline()

    def any(self) -> int:
        _control.ask(_records.UART_ANY, self._id)
        return _control.value()

    def _left_us(self) -> int:
        left = ticks_diff(self._sent_at, ticks_us())
        return left if left > 0 else 0

    def write(self, buf: bytes) -> "int | None":
        # As on rp2: what does not fit into txbuf and the FIFO waits for room until the timeout, and the
        # rest is left to the caller; None if not one byte fits.
        length = len(buf)
        byte_us = self._byte_us
        if not byte_us:
            return self._file.write(buf)
        done = 0
        give_up_at = ticks_us() + self._timeout_us
        while True:
            left_us = self._left_us()
            count = min(self._room - left_us // byte_us, length - done)
            if count > 0:
                sent = self._file.write(buf, done, count)
                if sent:
                    self._sent_at = ticks_us() + left_us + sent * byte_us
                    done += sent
            if done == length:
                return done
            if ticks_diff(give_up_at, ticks_us()) <= 0:
                if not done:
                    sleep_us(1000)  # poll(2) calls this UART writable: do not let asyncio spin
                return done or None
            sleep_us(8 * byte_us)

    def txdone(self) -> bool:
        return not self._left_us()

    def flush(self) -> None:
        while True:
            left_us = self._left_us()
            if not left_us:
                return
            sleep_us(left_us)
