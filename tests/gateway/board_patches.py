"""A board's end of encoded blocks, written from protocol/README.md alone and not from the encoder."""

import zlib
from collections.abc import Sequence

Place = tuple[int, int, bytes | None]  # how many bytes of a block go to a file, from which byte on, and its base


class BadBlock(Exception):
    """What a board refuses: it asks for the content again."""


class Window:
    """A decoder, which goes on with the next block. bits: of its window. held: how much content it has seen."""

    def __init__(self, bits: int = 10) -> None:
        self.bits = bits
        self.held = 0
        self._inflate = zlib.decompressobj(-bits)

    def more(self, data: bytes, most: int) -> bytes:
        """At most so many bytes more. Raises BadBlock."""
        try:
            made = self._inflate.decompress(data, most + 1)
        except zlib.error as why:
            raise BadBlock(str(why)) from why
        if self._inflate.eof or self._inflate.unconsumed_tail or not data.endswith(b"\0\0\xff\xff"):
            raise BadBlock("it does not end with an empty stored block")
        self.held += len(made)
        return made


def decoded(encoding: int, data: bytes, places: Sequence[Place], window: Window | None = None) -> list[bytes]:
    """The content of a block for each place that it goes to. window: of the block before. Raises BadBlock."""
    size = sum(count for count, _, _ in places)
    if encoding not in (0, 1, 2, 3):
        raise BadBlock("no encoding of ours")
    if encoding == 1:
        data = (window or Window()).more(data, size)
    elif encoding == 3:  # of steps, none of which is empty, there are fewer bytes
        data = Window(15 if window is None else window.bits).more(data, 2 * size + 64)
    made, at = [], 0
    for count, start, base in places:
        if encoding & 2:
            content, at = patched(data, at, count, start, base)
        else:
            content, at = data[at : at + count], at + count
        made.append(content)
    if at != len(data):
        raise BadBlock(f"{len(data) - at} bytes are left")
    return made


def patched(steps: bytes, place: int, count: int, at: int, base: bytes | None) -> tuple[bytes, int]:
    """What the steps from `place` on make, and where they end. at: in the file, of the first byte that is made."""
    out = bytearray()
    while len(out) < count:
        head, place = _varint(steps, place)
        size = head >> 1
        if size < 1 or len(out) + size > count:
            raise BadBlock("a step of no bytes, or of too many")
        if head & 1:
            step, place = _varint(steps, place)
            at += -((step + 1) >> 1) if step & 1 else step >> 1
            if base is None or at < 0 or at + size > len(base):
                raise BadBlock("a copy from outside")
            out += base[at : at + size]
            at += size
        else:
            if place + size > len(steps):
                raise BadBlock("the literal ends early")
            out += steps[place : place + size]
            place += size
    return bytes(out), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14):
        if place >= len(data):
            raise BadBlock("the patch ends early")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise BadBlock("a number of more than 3 bytes")
