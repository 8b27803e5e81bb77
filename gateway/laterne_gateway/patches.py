"""Blocks of an update as they go over the line: raw, deflated, or as the difference to what the board has.

A block is content of an item from some byte on, of a file also of the files behind it (protocol/README.md, 3.1). It is
encoded by itself, so that a board needs memory for one block and can begin again at any. The shortest of the encodings
wins.

A patch is a row of steps that build content from an older file: copy some of its bytes, or take these. It needs no
trust: whoever sends it can at most spoil a result whose digest is checked. Deflate's window is what a board can spare,
1 KiB or more; where it keeps it between two blocks, the next one is deflated with what is in it.

Found greedily: at each place the longest run that the old file has at one of the places with the same four bytes. That
is not the shortest patch, but compiled modules change in few places, and it takes 5 ms for 4,096 bytes.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from laterne_protocol.update_messages import DEFLATED, LEAST_WINDOW_BITS, PATCH, RAW

SEED_BYTES = 4  # a copy costs two to five bytes; what is shorter is better taken literally
MAX_PLACES = 32  # of one seed that are tried: a file of zeros would else cost the square of its size


class Base:
    """What a board has under an item's path, ready for being searched. content: at most 32 KiB."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._places: dict[bytes, list[int]] = defaultdict(list)
        for place in range(len(content) - SEED_BYTES + 1):
            self._places[content[place : place + SEED_BYTES]].append(place)

    def longest(self, block: bytes, start: int, near: int) -> tuple[int, int]:
        """Where the longest run of the base begins that stands at `start` in the block, and how long it is.

        near: where the file goes on if nothing has changed, tried first. (0, 0): none.
        """
        best, best_count = 0, 0
        seed = block[start : start + SEED_BYTES]
        for place in (near, *self._places.get(seed, ())[:MAX_PLACES]):
            count = self._run(block, start, place)
            if count > best_count:
                best, best_count = place, count
        return (best, best_count) if best_count >= SEED_BYTES else (0, 0)

    def _run(self, block: bytes, start: int, place: int) -> int:
        content, count = self.content, 0
        limit = min(len(block) - start, len(content) - place)
        while count < limit and content[place + count] == block[start + count]:
            count += 1
        return count


@dataclass(frozen=True)
class Portion:
    """What a block has of one item. start: where in the item. base: what the board has instead, if it has something."""

    content: bytes
    start: int = 0
    base: Base | None = None


def encoded(portions: Sequence[Portion], bits: int = LEAST_WINDOW_BITS, before: bytes = b"") -> tuple[int, bytes]:
    """The shortest encoding of a block and its code. bits: of the board's window. before: the content that is in it."""
    block = b"".join(portion.content for portion in portions)
    found = [(RAW, block), (DEFLATED, deflated(block, bits, before))]
    if any(portion.base is not None for portion in portions):
        difference = b"".join(map(steps, portions))
        found += [(PATCH, difference), (DEFLATED | PATCH, deflated(difference, bits))]
    return min(found, key=lambda one: len(one[1]))  # of equal ones the first: less work for the board


def steps(portion: Portion) -> bytes:
    """The steps that make this portion out of its base."""
    content, base = portion.content, portion.base
    out, literal = bytearray(), bytearray()
    start, at = 0, portion.start  # at: as the board counts it, behind what was copied last
    while start < len(content):
        # Where the old file goes on if bytes have only been changed, not put in.
        near = at + len(literal)
        place, count = (0, 0) if base is None else base.longest(content, start, near)
        if count == 0:
            literal.append(content[start])
            start += 1
            continue
        if literal:
            _put_varint(out, len(literal) << 1)
            out.extend(literal)
            literal.clear()
        _put_varint(out, count << 1 | 1)
        _put_varint(out, _zigzag(place - at))
        start, at = start + count, place + count
    if literal:
        _put_varint(out, len(literal) << 1)
        out.extend(literal)
    return bytes(out)


def deflated(data: bytes, bits: int, before: bytes = b"") -> bytes:
    """Without an end, and up to a whole byte, so that the next block may go on. before: what is in the window.

    Made anew of that, not by a compressor that was kept: so a block that is asked for again is the same.
    """
    if before:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -bits, zdict=before)
    else:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
