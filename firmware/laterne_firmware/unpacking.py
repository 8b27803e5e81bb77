"""The content of a block from its code (protocol/README.md, 3.1), in pieces and in little memory.

A code is bounded before it comes here, 4,096 bytes; what comes of it is bounded here: never more than is asked for.
Codes come from a gateway, and what is wrong with one is found here or by the digest of the file; neither is an
accident.
"""

import io

import deflate
from micropython import const

from laterne_protocol.update_messages import PATCH, ZLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Read = Callable[[int], bytes]

_PIECE_BYTES = const(512)
# First byte of a zlib stream, RFC 1950, 2.2: deflate, with a window of 256, 512 or 1,024 bytes. A board makes a buffer
# of that size, and an honest one takes 32 KiB where nobody looks.
_HEADS = (0x08, 0x18, 0x28)


class BadBlock(Exception):
    """A code that is none, or makes more or less than is due."""


class Code(io.IOBase):  # type: ignore[misc]  # the stubs know it as an alias
    """A code as a stream: the first `length` bytes of what the chunks hold, which are all of the same size."""

    def __init__(self, chunks: "list[bytearray]", length: int) -> None:
        self._chunks = chunks
        self._length = length
        self._at = 0

    def readinto(self, buffer: "bytearray | memoryview") -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many and fewer where a chunk ends; none at the end."""
        at = self._at
        if at >= self._length:
            return b""
        chunk_bytes = len(self._chunks[0])
        first = at % chunk_bytes
        end = min(first + size, chunk_bytes, first + self._length - at)
        self._at += end - first
        return bytes(memoryview(self._chunks[at // chunk_bytes])[first:end])

    def begins_with_one_of(self, heads: "tuple[int, ...]") -> bool:
        return self._chunks[0][0] in heads

    def ioctl(self, request: int, argument: int) -> int:
        return 0


class Block:
    """The content of one block, from its first byte on. left: how much of it was not taken yet."""

    def __init__(self, encoding: int, chunks: "list[bytearray]", length: int, size: int) -> None:
        self.left = size
        self._is_patch = encoding & PATCH
        self._read = _reader(encoding, Code(chunks, length))

    def portion(self, count: int, base: str, at: int) -> "Generator[bytes, None, None]":
        """The next `count` bytes, which are those of a file from byte `at` on; at most `left`.

        base: path of the file that a patch begins with. Raises BadBlock, also when some pieces were given.
        """
        made = _copied(self._read, count) if not self._is_patch else _patched(self._read, count, base, at)
        try:
            for piece in made:
                count -= len(piece)
                self.left -= len(piece)
                yield piece
            if count or (not self.left and self._read(1)):
                raise BadBlock("a block of another size")
        except (OSError, EOFError):  # of the decoder, or of the base
            raise BadBlock("not the code of a block")


def _reader(encoding: int, stream: Code) -> "Read":
    if not encoding & ZLIB:
        return stream.read  # type: ignore[no-any-return]  # of an untyped base, see Code
    if not stream.begins_with_one_of(_HEADS):
        raise BadBlock("a window that is too large")
    return deflate.DeflateIO(stream, deflate.ZLIB).read


def _copied(read: "Read", count: int) -> "Generator[bytes, None, None]":
    while count:
        piece = read(min(count, _PIECE_BYTES))
        if not piece:
            return
        count -= len(piece)
        yield piece


def _patched(read: "Read", count: int, base: str, at: int) -> "Generator[bytes, None, None]":
    file = None
    try:
        while count:
            step = _varint(read)
            left = step >> 1
            count -= left
            if not left or count < 0:
                raise BadBlock("an empty step, or one into the next file")
            take = read
            if step & 1:
                zigzag = _varint(read)
                at += -(zigzag + 1 >> 1) if zigzag & 1 else zigzag >> 1
                if at < 0:
                    raise BadBlock("a copy from before the base")
                if file is None:
                    file = open(base, "rb")
                file.seek(at)
                at += left
                take = file.read
            while left:
                piece = take(min(left, _PIECE_BYTES))
                if not piece:
                    raise BadBlock("a step beyond the end")
                left -= len(piece)
                yield piece
    finally:
        if file is not None:
            file.close()


def _varint(read: "Read") -> int:
    number = shift = 0
    while shift < 21:
        byte = read(1)
        if not byte:
            raise BadBlock("half a number")
        number |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return number
    raise BadBlock("a number that is too long")
