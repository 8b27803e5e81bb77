"""The pages of an SQLite file and the records on them, read without its trees, its schema or SQLite itself.

For a file that SQLite will not read any more. sqlite.org/fileformat2.html, sections 1.6 (pages), 2.1 (records), 4 (the
log). Whatever the bytes are, they are read or left; what they mean the reader has to tell.
"""

import logging
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from laterne_gateway.database import PAGE_BYTES

log = logging.getLogger("laterne")

MAX_PAYLOAD_BYTES = 70_000  # the largest record is a roster; more is damage

_WAL_HEADER = struct.Struct(">8I")
_WAL_FRAME = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682  # with big-endian checksums one more


class NotReadableError(Exception):
    """Nothing on this page can be told."""


class Pages:
    """The pages of a database, those in its log instead of their former selves. `with Pages(file) as pages`."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._log: int | None = None
        self._in_log: dict[int, int] = {}  # page -> offset in the log
        try:
            self.count = os.fstat(self._file).st_size // PAGE_BYTES
            self._log = os.open(f"{file}-wal", os.O_RDONLY | os.O_CLOEXEC)
            self._in_log, in_log_count = _read_log(self._log)
            self.count = max(self.count, in_log_count)
        except FileNotFoundError:
            pass  # it has no log
        except OSError as why:
            log.warning("buffer: the log of the database cannot be read: %s", why)

    def __enter__(self) -> "Pages":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        if self._log is not None:
            os.close(self._log)

    def page(self, number: int) -> bytes:
        """Raises NotReadableError, OSError."""
        at = self._in_log.get(number)
        if at is not None and self._log is not None:
            data = os.pread(self._log, PAGE_BYTES, at)
        else:
            data = os.pread(self._file, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        if len(data) != PAGE_BYTES or number < 1:
            raise NotReadableError(f"page {number} is not there")
        return data


def _read_log(descriptor: int) -> tuple[dict[int, int], int]:
    """Where each page's last committed state is in the log, and how many pages the database has by it."""
    committed: dict[int, int] = {}
    count = 0
    header = os.pread(descriptor, _WAL_HEADER.size, 0)
    if len(header) < _WAL_HEADER.size:
        return committed, count
    magic, _, page_bytes, _, salt_1, salt_2, sum_1, sum_2 = _WAL_HEADER.unpack(header)
    order = ">" if magic == _WAL_MAGIC + 1 else "<"
    if magic & ~1 != _WAL_MAGIC or page_bytes != PAGE_BYTES or _checksum(header[:24], order, 0, 0) != (sum_1, sum_2):
        return committed, count
    pending: dict[int, int] = {}
    at = _WAL_HEADER.size
    while True:
        head = os.pread(descriptor, _WAL_FRAME.size, at)
        data = os.pread(descriptor, PAGE_BYTES, at + _WAL_FRAME.size)
        if len(head) + len(data) < _WAL_FRAME.size + PAGE_BYTES:
            return committed, count
        number, size, *rest = _WAL_FRAME.unpack(head)
        sum_1, sum_2 = _checksum(head[:8] + data, order, sum_1, sum_2)
        if rest != [salt_1, salt_2, sum_1, sum_2]:
            return committed, count  # the end of what was written, or damage: SQLite stops here, too
        pending[number] = at + _WAL_FRAME.size
        if size:
            committed.update(pending)
            pending.clear()
            count = size
        at += _WAL_FRAME.size + PAGE_BYTES


def _checksum(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    for one, two in struct.iter_unpack(order + "2I", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def records(page_of: Callable[[int], bytes], number: int) -> Iterator[tuple[int | None, list[object]]]:
    """The records on a page: of a table with their row number, of an index or a table without one with None.

    Cells that cannot be read are left out. Raises NotReadableError, OSError.
    """
    page = page_of(number)
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in (0x0D, 0x0A, 0x02):
        return  # an inner page of a table, an overflow page, a free one, or damage
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    pointers = start + (12 if kind == 0x02 else 8)
    if pointers + 2 * cells > PAGE_BYTES:
        raise NotReadableError(f"page {number} claims {cells} cells")
    for index in range(cells):
        at = int.from_bytes(page[pointers + 2 * index : pointers + 2 * index + 2], "big")
        try:
            yield _cell(page_of, page, at, kind)
        except (NotReadableError, IndexError, UnicodeDecodeError) as why:
            log.debug("buffer: page %d, cell %d: %s", number, index, why)


def _cell(page_of: Callable[[int], bytes], page: bytes, at: int, kind: int) -> tuple[int | None, list[object]]:
    if kind == 0x02:
        at += 4  # the page left of it
    size, at = _varint(page, at)
    rowid: int | None = None
    largest = ((PAGE_BYTES - 12) * 64 // 255) - 23
    if kind == 0x0D:
        rowid, at = _varint(page, at)
        largest = PAGE_BYTES - 35
    if not 0 < size <= MAX_PAYLOAD_BYTES:
        raise NotReadableError(f"a record of {size} bytes")
    local = size
    if size > largest:
        least = ((PAGE_BYTES - 12) * 32 // 255) - 23
        local = least + (size - least) % (PAGE_BYTES - 4)
        local = local if local <= largest else least
    payload = page[at : at + local]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while len(payload) < size:
        overflow = page_of(following)
        payload += overflow[4 : 4 + size - len(payload)]
        following = int.from_bytes(overflow[:4], "big")
    return rowid, _values(payload)


def _values(payload: bytes) -> list[object]:
    head_bytes, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < head_bytes:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[object] = []
    for kind in kinds:
        if kind >= 12:
            size = (kind - 12) // 2
        elif kind in (10, 11):
            raise NotReadableError(f"a value of kind {kind}")
        else:
            size = _SIZES[kind]
        data = payload[at : at + size]
        if len(data) != size:
            raise NotReadableError("a value that is cut short")
        at += size
        if kind == 0:
            values.append(None)
        elif kind == 7:
            raise NotReadableError("a real number: we store none")
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind < 7:
            values.append(int.from_bytes(data, "big", signed=True))
        else:
            values.append(data.decode() if kind % 2 else data)
    if at != len(payload):
        raise NotReadableError("bytes are left over")
    return values


_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)  # of the kinds 0 to 9 (fileformat2.html, 2.1)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError
