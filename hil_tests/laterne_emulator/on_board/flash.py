"""The flash of an emulated board as MicroPython's VfsLfs2 wants it: 4 KiB erase blocks, pages of 256 bytes (or 32).

Every erase and every page program is asked for first (records.py): the supervisor counts it, says how long
the flash is busy, and may take the power away at that moment. What a torn operation leaves behind is
written by the supervisor (laterne_emulator/flash.py).

A board's flash driver is no bytecode: no Ctrl-C interrupts it, nor littlefs, which calls it. Here an interrupt that is
wanted is put aside while a call of ours runs, and one that comes meanwhile, too (processor.py), and it is wanted again
at the end. Nothing in _begin and _end jumps: only at jumps does bytecode look for interrupts (py/vm.c).
"""

from struct import pack_into
from time import sleep_us

import control
from records import (
    EDGE,
    FLASH_ERASE,
    FLASH_HOLD,
    FLASH_MISUSE,
    FLASH_PAGE,
    FLASH_PROGRAM,
    FLASH_SKIP,
    OUTSIDE,
    WANTED,
    WHERE,
    WITHIN,
)
from uctypes import bytearray_at

_BLOCK = 4096
_NOTHING = bytes(8)
_shared = _pending = bytearray(0)
_values = (0, 0)


def share(shared: int, pending: int, interrupt: int) -> None:
    """The addresses of the memory that the supervisor has, too, and of the interpreter's mp_pending_exception, and what
    stands in the latter when an interrupt is wanted.
    """
    global _shared, _pending, _values
    _shared, _pending = bytearray_at(shared, WANTED + 1), bytearray_at(pending, len(_NOTHING))
    _values = (0, interrupt)


def _begin() -> None:
    _shared[WHERE] = EDGE
    _shared[WANTED] = _pending != _NOTHING
    pack_into("<Q", _pending, 0, 0)
    _shared[WHERE] = WITHIN


def _end() -> None:
    _shared[WHERE] = EDGE
    pack_into("<Q", _pending, 0, _values[_shared[WANTED]])
    _shared[WHERE] = OUTSIDE


class Flash:
    def __init__(self, path: str, blocks: int, page: int) -> None:
        self._file = open(path, "r+b")
        self._blocks = blocks
        self._page = bytearray(page)
        self._erased = b"\xff" * page

    def readblocks(self, block: int, buffer: bytearray, offset: int = 0) -> None:
        _begin()
        self._file.seek(block * _BLOCK + offset)
        self._file.readinto(buffer)
        _end()

    def writeblocks(self, block: int, buffer: "bytes | bytearray", offset: int = 0) -> None:
        _begin()
        for at in range(0, len(buffer), len(self._page)):
            self._program(block * _BLOCK + offset + at, buffer, at)
        _end()

    def _program(self, address: int, data: "bytes | bytearray", at: int) -> None:
        control.ask(FLASH_PROGRAM, 0, address)
        flags = control.flags()
        if flags & FLASH_HOLD:
            control.send_page(FLASH_PAGE, data, at, len(self._page))
            control.hang()
        self._busy()
        if flags & FLASH_SKIP:
            return
        file, page = self._file, self._page
        file.seek(address)
        file.readinto(page)
        if page == self._erased:
            file.seek(address)
            file.write(data, at, len(page))
            return
        control.ask(FLASH_MISUSE, 0, address)
        for i in range(len(page)):
            page[i] &= data[at + i]  # NOR: a program can only clear bits
        file.seek(address)
        file.write(page)

    def _erase(self, block: int) -> None:
        control.ask(FLASH_ERASE, 0, block)
        flags = control.flags()
        if flags & FLASH_HOLD:
            control.hang()
        self._busy()
        if flags & FLASH_SKIP:
            return
        self._file.seek(block * _BLOCK)
        for _ in range(_BLOCK // len(self._erased)):
            self._file.write(self._erased)

    def _busy(self) -> None:
        busy_us = control.value()
        if busy_us:
            sleep_us(busy_us)

    def ioctl(self, request: int, argument: int) -> int:
        _begin()
        answer = 0
        if request == 4:
            answer = self._blocks
        elif request == 5:
            answer = _BLOCK
        elif request == 6:
            self._erase(argument)
        _end()
        return answer
