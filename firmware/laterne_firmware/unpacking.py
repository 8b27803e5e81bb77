"""The content of blocks from their codes (protocol/README.md, 3.1), in pieces and in little memory.

A code is bounded before it comes here, 4,096 bytes; what comes of it is bounded here: never more than is asked for.
Codes come from a gateway, and what is wrong with one is found here or by the digest of the file; neither is an
accident.
"""

import io

import deflate
from micropython import const

from laterne_protocol.update_messages import DEFLATED, LEAST_WINDOW_BITS, PATCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Read = Callable[[int], bytes]

_PIECE_BYTES = const(512)
_CHUNK_BYTES = const(1024)  # as in updating
_MAX_LEFT = const(8)  # of a code behind the last byte of content: end, head, and an empty stored block


class BadBlock(Exception):
    """A code that is none, or makes more or less than is due."""


class Code(io.IOBase):  # type: ignore[misc]  # the stubs know it as an alias
    """Codes as a stream: the first `length` bytes of what the chunks hold, and what was left of the code before."""

    def __init__(self) -> None:
        self._left = b""
        self._at = self._length = 0

    def follows(self, chunks: "list[bytearray]", length: int) -> None:
        self._chunks = chunks
        self._length = length
        self._at = -len(self._left)  # so that they are counted from the end

    def readinto(self, buffer: "bytearray | memoryview") -> int:
        # The decoder asks for each byte: what is made here is made for each of them, and is garbage.
        at = self._at
        if at >= self._length:
            return 0
        buffer[0] = self._left[at] if at < 0 else self._chunks[at // _CHUNK_BYTES][at % _CHUNK_BYTES]
        self._at = at + 1
        return 1

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many and fewer where a chunk ends; none at the end. Not behind deflate."""
        at = self._at
        if at >= self._length:
            return b""
        first = at % _CHUNK_BYTES
        end = min(first + size, _CHUNK_BYTES, first + self._length - at)
        self._at += end - first
        return bytes(memoryview(self._chunks[at // _CHUNK_BYTES])[first:end])

    def ends(self) -> bool:
        """Whether this is the end of a code. What its decoder has not read is kept: the chunks will hold another."""
        if self._length - self._at > _MAX_LEFT:
            return False
        byte, left = bytearray(1), b""
        while self.readinto(byte):
            left += byte
        self._left = left
        return True

    def ioctl(self, request: int, argument: int) -> int:
        return 0


class Block:
    """The content of one block, from its first byte on, and of those that go on with it.

    bits: of the window, which is ours to choose: an honest code may want 32 KiB. left: how much of the block was not
    taken yet. held: how much content the window has seen, if it is kept for the next one.
    """

    def __init__(self, bits: int, encoding: int, chunks: "list[bytearray]", length: int, size: int) -> None:
        self.left = size
        self.held = 0
        self._code = Code()
        self._code.follows(chunks, length)
        self._is_patch = encoding & PATCH
        self._is_kept = encoding == DEFLATED and bits > LEAST_WINDOW_BITS
        self._read = self._code.read
        if encoding & DEFLATED:
            self._read = deflate.DeflateIO(self._code, deflate.RAW, bits).read

    def goes_on(self, encoding: int, chunks: "list[bytearray]", length: int, size: int) -> bool:
        """Whether this is the next block."""
        if encoding != DEFLATED:
            return False
        self.left = size
        self._code.follows(chunks, length)
        return True

    def portion(self, count: int, base: str, at: int) -> "Generator[bytes, None, None]":
        """The next `count` bytes, which are those of a file from byte `at` on; at most `left`.

        base: path of the file that a patch begins with. Raises BadBlock, also when some pieces were given.
        """
        made = _copied(self._read, count) if not self._is_patch else _patched(self._read, count, base, at)
        try:
            for piece in made:
                count -= len(piece)
                self.left -= len(piece)
                if self._is_kept:
                    self.held += len(piece)
                yield piece
            if count or (not self.left and not self._code.ends()):
                raise BadBlock("a block of another size")
        except (OSError, EOFError):  # of the decoder, or of the base
            raise BadBlock("not the code of a block")


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
