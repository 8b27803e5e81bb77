"""The flash of an emulated board with one block that is bad (laterne_emulator/flash.py: Bad). In memory only then.

What fails returns an error, as the protocol of block devices has it. rp2's driver has no errors at all: it reads what
is there, and does not look at what it has written. esp32's raises OSError instead, out of the middle of littlefs, which
that does not survive (hil_tests/README.md).
"""

import records
from flash import Flash

_BLOCK = 4096
_EIO = 5


class BadFlash(Flash):
    def __init__(self, path: str, blocks: int, page: int, wrong: int, bad: int, read: int) -> None:
        super().__init__(path, blocks, page)
        self._wrong = wrong
        self._bad = bad
        self._reads = read  # of the bad block, until one fails

    def readblocks(self, block: int, buffer: bytearray, offset: int = 0) -> "int | None":
        if block == self._bad and self._wrong in (records.READ_FAILS_ONCE, records.READ_FAILS):
            self._reads -= 1
            if self._reads < 0 and (self._reads == -1 or self._wrong == records.READ_FAILS):
                return -_EIO
        return super().readblocks(block, buffer, offset)

    def writeblocks(self, block: int, buffer: "bytes | bytearray", offset: int = 0) -> "int | None":
        if block == self._bad and self._wrong == records.WRITE_FAILS:
            return -_EIO
        return super().writeblocks(block, buffer, offset)

    def ioctl(self, request: int, argument: int) -> int:
        if request == 6 and argument == self._bad and self._wrong == records.WRITE_FAILS:
            return -_EIO
        return super().ioctl(request, argument)

    def _program(self, address: int, data: "bytes | bytearray", at: int) -> None:
        if address // _BLOCK == self._bad:
            if self._wrong == records.PROGRAM_DROPPED:
                return
            if self._wrong == records.PROGRAM_WEAK:
                data, at = self._weak(data, at), 0
        super()._program(address, data, at)

    def _weak(self, data: "bytes | bytearray", at: int) -> bytearray:
        # The lowest bit of the page that should become 0 stays 1.
        page = bytearray(data[at : at + len(self._page)])
        for i in range(len(page)):
            if page[i] != 255:
                page[i] |= ~page[i] & (page[i] + 1)
                break
        return page

    def _erase(self, block: int) -> None:
        if block != self._bad or self._wrong != records.ERASE_WEAK:
            super()._erase(block)
            return
        # Its first page is still what it was.
        old = bytearray(len(self._page))
        self._file.seek(block * _BLOCK)
        self._file.readinto(old)
        super()._erase(block)
        self._file.seek(block * _BLOCK)
        self._file.write(old)
