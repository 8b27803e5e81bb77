"""One file of the backlog: up to SEGMENT_REPORTS records with consecutive sequence numbers, the first in its name.

A record is magic (1 byte), length (2), sequence (4), boot count (4), what was acknowledged by then (4), digest of the
payload (16), CRC-32 over those and the body (4), all little endian, then the body: what a start needs to know is read
without taking a report apart. Each is appended in one write and closed: littlefs shows all of it or nothing after a
power cut. What does not read back is damage, and is stated as a gap; it never stops the rest.
"""

import os
import struct
from binascii import crc32

from micropython import const

from laterne_protocol.report import MAX_REPORT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SEGMENT_REPORTS = 64  # an hour of reports: one write of the state record for each segment
SEGMENT_BYTES = 32768  # of records, then the next segment begins
_MAGIC = const(0xA7)
_HEADER = "<BHIII16sI"
_HEADER_BYTES = const(35)
_CRC_AT = const(31)


class Segment:
    """path: its file. first: its first sequence. count: records in it. size: bytes of those records.

    newest: (boot count, acknowledged by then, digest of the payload) of its last record, after scan().
    damaged: something behind them, or between them, cannot be read. It takes no more records then.
    """

    def __init__(self, directory: str, first: int) -> None:
        self.path = "%s/%08x" % (directory, first)
        self.first = first
        self.count = 0
        self.size = 0
        self.damaged = False
        self.newest = (0, 0, b"")
        # Where the next record to read begins: reports are asked for one after the other.
        self._index = 0
        self._offset = 0

    @property
    def last(self) -> int:
        """The sequence of its last record; first - 1 while there is none."""
        return self.first + self.count - 1

    @property
    def full(self) -> bool:
        return self.damaged or self.count >= SEGMENT_REPORTS or self.size >= SEGMENT_BYTES

    def append(self, body: bytes, boot: int, acknowledged: int, digest: bytes) -> None:
        """One record more, on flash when this returns. OSError: the flash refused, nothing was added for good."""
        record = bytearray(_HEADER_BYTES + len(body))
        record[_HEADER_BYTES:] = body
        number = self.first + self.count
        struct.pack_into(_HEADER, record, 0, _MAGIC, len(body), number, boot, acknowledged, digest, 0)
        struct.pack_into("<I", record, _CRC_AT, _crc(record[:_CRC_AT], body))
        try:
            with open(self.path, "ab") as file:
                file.write(record)
        except OSError:
            self.damaged = True  # what the file holds now is not known: the next record goes to another one
            raise
        self.count += 1
        self.size += len(record)

    def scan(self) -> None:
        """Counts the records, by their headers; the last one is read whole, as its digest starts the chain again."""
        self.count = self.size = 0
        self.damaged = False
        offsets = []
        length = os.stat(self.path)[6]
        with open(self.path, "rb") as file:
            while self.size < length:
                body_bytes = self._header(file, self.size, self.first + self.count)
                if body_bytes is None or self.size + _HEADER_BYTES + body_bytes > length:
                    self.damaged = True
                    break
                offsets.append(self.size)
                self.size += _HEADER_BYTES + body_bytes
                self.count += 1
            while offsets and self._body(file, offsets[-1], self.last) is None:
                self.damaged = True
                self.size = offsets.pop()
                self.count -= 1

    def read(self, sequence: int) -> "bytes | None":
        """The body of a record, or None when it is damaged. self.count shrinks when all behind it is lost, too."""
        index = sequence - self.first
        if index < self._index:
            self._index = self._offset = 0
        try:
            with open(self.path, "rb") as file:
                while True:
                    body_bytes = self._header(file, self._offset, self.first + self._index)
                    if body_bytes is None:
                        self.damaged = True
                        self.count = self._index
                        return None
                    if self._index == index:
                        break
                    self._index += 1
                    self._offset += _HEADER_BYTES + body_bytes
                body = self._body(file, self._offset, sequence)
        except OSError:
            self.damaged = True
            self.count = index
            return None
        if body is None:
            self.damaged = True
        return body

    def _header(self, file: "BinaryIO", offset: int, sequence: int) -> "int | None":
        """The length of the body of the record that begins here, None when it is not this one."""
        file.seek(offset)
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return None
        magic, length, number, boot, acknowledged, digest, _ = struct.unpack(_HEADER, header)
        if magic != _MAGIC or number != sequence or not 0 < length <= MAX_REPORT_BYTES:
            return None
        self.newest = (boot, acknowledged, digest)
        return length

    def _body(self, file: "BinaryIO", offset: int, sequence: int) -> "bytes | None":
        length = self._header(file, offset, sequence)
        if length is None:
            return None
        file.seek(offset)
        header = file.read(_HEADER_BYTES)
        body = file.read(length)
        if len(body) != length or struct.unpack("<I", header[_CRC_AT:])[0] != _crc(header[:_CRC_AT], body):
            return None
        return body


def _crc(head: "bytes | bytearray", body: bytes) -> int:
    return crc32(body, crc32(head)) & 0xFFFFFFFF
