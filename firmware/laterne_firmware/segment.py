"""One file of the backlog: up to SEGMENT_REPORTS records with consecutive sequence numbers, the first in its name.

A record is magic (1 byte), length (2), sequence (4), boot count (4), what was acknowledged by then (4), digest of the
payload (16), CRC-32 over those and the body (4), all little endian, then the body: what a start needs to know is read
without taking a report apart. Each is appended in one write and closed: littlefs shows all of it or nothing after a
power cut. What does not read back is damage, and is stated as a gap; it never stops the rest.
"""

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
HEADER_BYTES = 35
_CRC_AT = const(31)


class Segment:
    """first: its first sequence. count: records in it. size: bytes of those records. `recovery` counts them at a start.

    damaged: something behind them, or between them, cannot be read. It takes no more records then.
    """

    # A board far from its gateway holds two dozen of these: what can be computed, or is the same in all, is not kept.

    def __init__(self, directory: str, first: int) -> None:
        self._directory = directory
        self.first = first
        self.count = 0
        self.size = 0
        self.damaged = False

    @property
    def path(self) -> str:
        return "%s/%08x" % (self._directory, self.first)

    @property
    def last(self) -> int:
        """The sequence of its last record; first - 1 while there is none."""
        return self.first + self.count - 1

    @property
    def full(self) -> bool:
        return self.damaged or self.count >= SEGMENT_REPORTS or self.size >= SEGMENT_BYTES

    def append(self, body: bytes, boot: int, acknowledged: int, digest: bytes) -> None:
        """One record more, on flash when this returns. OSError: the flash refused, nothing was added for good."""
        header = bytearray(HEADER_BYTES)
        number = self.first + self.count
        struct.pack_into(_HEADER, header, 0, _MAGIC, len(body), number, boot, acknowledged, digest, 0)
        struct.pack_into("<I", header, _CRC_AT, _crc(header, body))
        try:
            with open(self.path, "ab") as file:
                file.write(header)
                file.write(body)
        except OSError:
            self.damaged = True  # what the file holds now is not known: the next record goes to another one
            raise
        self.count += 1
        self.size += HEADER_BYTES + len(body)

    def read(self, sequence: int, place: "list[int]") -> "bytes | None":
        """The body of a record, or None when it is damaged. self.count shrinks when all behind it is lost, too.

        place: [sequence, where its record begins]: reports are asked for one after the other, and looking for the
        next one begins there. [0, 0] for nowhere.
        """
        if not self.first <= place[0] <= sequence:
            place[:] = [self.first, 0]
        try:
            with open(self.path, "rb") as file:
                while place[0] < sequence:
                    header = self.header(file, place[1], place[0])
                    if header is None:
                        break
                    place[0] += 1
                    place[1] += HEADER_BYTES + header[0]
                if self.header(file, place[1], place[0]) is None:
                    self.damaged = True
                    self.count = place[0] - self.first
                    return None
                body = self.body(file, place[1], sequence)
        except OSError:
            self.damaged = True
            self.count = sequence - self.first
            return None
        if body is None:
            self.damaged = True
        return body

    def header(self, file: "BinaryIO", offset: int, sequence: int) -> "tuple[int, int, int, bytes] | None":
        """Length of the body, boot count, what was acknowledged by then, digest; None when another record is there."""
        file.seek(offset)
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return None
        magic, length, number, boot, acknowledged, digest, _ = struct.unpack(_HEADER, header)
        if magic != _MAGIC or number != sequence or not 0 < length <= MAX_REPORT_BYTES:
            return None
        return length, boot, acknowledged, digest

    def body(self, file: "BinaryIO", offset: int, sequence: int) -> "bytes | None":
        """The body of the record that begins here; None when it is not this one, or not whole."""
        found = self.header(file, offset, sequence)
        if found is None:
            return None
        file.seek(offset)
        header = file.read(HEADER_BYTES)
        body = file.read(found[0])
        if len(body) != found[0] or struct.unpack("<I", header[_CRC_AT:])[0] != _crc(header, body):
            return None
        return body


def _crc(header: "bytes | bytearray", body: bytes) -> int:
    return crc32(body, crc32(memoryview(header)[:_CRC_AT])) & 0xFFFFFFFF
