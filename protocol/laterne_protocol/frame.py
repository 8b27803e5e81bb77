"""Frames on a line: where one message ends and the next begins.

A frame is COBS(header + payload + CRC-32), closed by one zero byte (protocol/README.md, 2). This module
holds bytes only; it neither reads a port nor knows what a payload means.
"""

import binascii

from laterne_protocol.errors import FrameError

VERSION = 1
MAX_PAYLOAD_BYTES = 1024  # a board keeps two of these in RAM
HEADER_BYTES = 3
CRC_BYTES = 4
_MAX_PLAIN_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES + CRC_BYTES
_MIN_PLAIN_BYTES = HEADER_BYTES + CRC_BYTES
MAX_FRAME_BYTES = _MAX_PLAIN_BYTES + _MAX_PLAIN_BYTES // 254 + 1  # COBS: one byte for every 254, and one; no delimiter
DELIMITER = b"\x00"

# Kinds (4 bits).
MESSAGE = 1  # a message in the clear (protocol/README.md, 3)
HANDSHAKE = 2  # a step of a handshake: one byte that says which, and its bytes (9.3)
RECORD = 3  # a message in a session (10)
USB = 4  # on a board's USB port only: a question about an order (12.7)

# Bus addresses.
GATEWAY = 0
FIRST_BOARD = 1
LAST_BOARD = 32
ANY_BOARD = 255  # on a line with one board: whoever is there


def header(kind: int, destination: int, source: int) -> bytes:
    """The three bytes before a frame's payload. A record authenticates them."""
    return bytes((VERSION << 4 | kind, destination, source))


class Frame:
    """One packet on a line: kind 0..15, destination and source address 0..255, payload up to 1,024 bytes."""

    def __init__(self, kind: int, destination: int, source: int, payload: bytes) -> None:
        self.kind = kind
        self.destination = destination
        self.source = source
        self.payload = payload

    def to_bytes(self) -> bytes:
        """The frame as it goes on the line, its closing zero byte included.

        Raises FrameError: a payload that is too long, an address or kind out of range.
        """
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise FrameError("a payload of %d bytes, at most %d fit" % (len(self.payload), MAX_PAYLOAD_BYTES))
        if not (0 <= self.kind < 16 and 0 <= self.destination < 256 and 0 <= self.source < 256):
            raise FrameError("kind %d, %d to %d: out of range" % (self.kind, self.source, self.destination))
        head = header(self.kind, self.destination, self.source)
        crc = binascii.crc32(self.payload, binascii.crc32(head)).to_bytes(CRC_BYTES, "little")
        return _stuff(b"".join((head, self.payload, crc)))


class FrameDecoder:
    """Feed bytes as they come, get whole frames. It never raises for what they are: a line may carry anything.

    damaged: how many closed packets were refused (COBS, CRC, length). overlong: how many of them were longer than a
    frame can be, or than there was memory for. unknown: how many were whole, but of another version. At most
    MAX_FRAME_BYTES are kept.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.overlong = 0
        self.unknown = 0
        self._pending = bytearray()
        self._skipping = False  # an overlong packet is under way: nothing is kept until its delimiter

    def forget(self) -> None:
        """feed() has raised MemoryError: what it was at is lost, up to the next delimiter, and counts as overlong."""
        self._pending = bytearray()
        self._skipping = True

    def feed(self, data: "bytes | bytearray | memoryview") -> "list[Frame]":
        """The frames that these bytes complete, in order."""
        frames = []
        pieces = bytes(data).split(DELIMITER)
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            if not self._skipping:
                if len(self._pending) + len(piece) > MAX_FRAME_BYTES:
                    self._pending = bytearray()
                    self._skipping = True
                else:
                    self._pending.extend(piece)
            if index == last:
                break
            if self._skipping:
                self._skipping = False
                self.overlong += 1
                self.damaged += 1
            elif self._pending:  # two zeros in a row close nothing: a sender may put one ahead to clear the line
                stuffed, self._pending = self._pending, bytearray()
                frame = self._close(stuffed)
                if frame is not None:
                    frames.append(frame)
        return frames

    def _close(self, stuffed: bytearray) -> "Frame | None":
        plain = _unstuff(stuffed)
        if plain is None or not _MIN_PLAIN_BYTES <= len(plain) <= _MAX_PLAIN_BYTES:
            self.damaged += 1
            return None
        # Views: a board that is short of memory has none for copies of a frame.
        body = memoryview(plain)[:-CRC_BYTES]
        if binascii.crc32(body) != int.from_bytes(plain[-CRC_BYTES:], "little"):
            self.damaged += 1
            return None
        if body[0] >> 4 != VERSION:
            self.unknown += 1
            return None
        return Frame(body[0] & 15, body[1], body[2], bytes(body[HEADER_BYTES:]))


def _stuff(whole: bytes) -> bytes:
    # COBS: each block is its length + 1 and up to 254 bytes without a zero; a block of 254 stands for no zero.
    # Work by blocks, not by bytes: find() is C on both interpreters.
    out = bytearray()
    at = 0
    size = len(whole)
    while True:
        zero = whole.find(DELIMITER, at, at + 254)
        if zero >= 0:
            out.append(zero - at + 1)
            out.extend(whole[at:zero])
            at = zero + 1
        elif at + 254 <= size:
            out.append(255)
            out.extend(whole[at : at + 254])
            at += 254
            if at == size:
                break
        else:
            out.append(size - at + 1)
            out.extend(whole[at:])
            break
    out.append(0)
    return bytes(out)


def _unstuff(stuffed: bytearray) -> "bytearray | None":
    out = bytearray()
    at = 0
    size = len(stuffed)
    code = 0
    while at < size:
        former = code
        code = stuffed[at]
        # A full block at the very end stands for itself; an empty one after it would be a second form of the same.
        if at + code > size or (former == 255 and code == 1 and at + 1 == size):
            return None
        out.extend(stuffed[at + 1 : at + code])
        at += code
        if code < 255 and at < size:
            out.append(0)
    return out
