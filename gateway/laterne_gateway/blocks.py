"""Blocks of releases, encoded as a board wants them: so much content as fits into the room that it has for their code.

A board says where a block is to begin, how much content it takes at most, and how many bytes of code it has memory for
(protocol/README.md, 3.1). A block that fills that memory costs the fewest exchanges, so its size is ours to choose.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from laterne_gateway.patches import Base, Portion, encoded
from laterne_gateway.releases import Release
from laterne_protocol.update_messages import (
    ENVELOPE,
    FIRST_FILE,
    LEAST_WINDOW_BITS,
    MAX_BLOCK_BYTES,
    MAX_CODE_BYTES,
    RAW,
)

MAX_CODES = 32  # in memory, 4 KiB each at most: boards of a campaign want the same ones
MAX_BASES_BYTES = 65_536  # what a block between two of the longest files needs; to be searched they take 100 times it
LESS = 0.97  # of what would fit if all deflated alike: the second try shall be the last


@dataclass(frozen=True)
class Code:
    """An encoded block. of: release, item and start. size: of its content, bytes."""

    of: tuple[bytes, int, int]
    size: int
    encoding: int
    data: bytes


@dataclass(frozen=True)
class Want:
    """What a board wants of a release. most: bytes of content. room: bytes of code. raw: as it is, not deflated.

    older: the release that it runs, to make patches from. plain: items that it gets no patches for. bits, behind: of
    its window, and how much of the content before is in it.
    """

    item: int
    start: int
    most: int
    room: int
    older: Release | None = None
    plain: frozenset[int] = frozenset()
    raw: bool = False
    bits: int = LEAST_WINDOW_BITS
    behind: int = 0


class Blocks:
    """Of all releases. What was encoded last is kept."""

    def __init__(self) -> None:
        self._codes: OrderedDict[tuple[object, ...], Code] = OrderedDict()
        self._bases: OrderedDict[tuple[bytes, int], Base] = OrderedDict()

    def code(self, release: Release, want: Want) -> Code:
        """A block that begins where it is wanted, with code for no more than the room there is."""
        older = None if want.older is None else want.older.digest
        window = (want.bits, want.behind)
        key = (release.digest, want.item, want.start, want.most, want.room, older, want.plain, want.raw, window)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = self._made(release, want)
        self._codes.move_to_end(key)
        while len(self._codes) > MAX_CODES:
            self._codes.popitem(last=False)
        return code

    def _made(self, release: Release, want: Want) -> Code:
        room = min(want.room, MAX_CODE_BYTES)
        size = min(want.most, MAX_BLOCK_BYTES)
        before = _before(release, want)
        while True:
            portions = list(self._portions(release, want, size))
            size = sum(len(portion.content) for portion in portions)
            if want.raw or want.item == ENVELOPE:
                encoding, data = RAW, b"".join(portion.content for portion in portions)
            else:
                encoding, data = encoded(portions, want.bits, before)
            if len(data) <= room:
                return Code((release.digest, want.item, want.start), size, encoding, data)
            # At `room` it ends, if not before: no code is longer than its content.
            size = max(room, min(int(size * room / len(data) * LESS), size - 1))

    def _portions(self, release: Release, want: Want, size: int) -> Iterator[Portion]:
        item, start = want.item, want.start
        while size and item < len(release.items):
            content = release.items[item][start:][:size]
            if content:
                base = None if want.older is None or item in want.plain else self._base(want.older, release, item)
                yield Portion(content, start, base)
            size -= len(content)
            if item < FIRST_FILE:
                return  # envelope and index end where they end
            item, start = item + 1, 0

    def _base(self, older: Release, release: Release, item: int) -> Base | None:
        content = older.same(release, item)
        if not content:
            return None
        at = (older.digest, item)
        base = self._bases.get(at)
        if base is None:
            base = self._bases[at] = Base(content)
        self._bases.move_to_end(at)
        while sum(len(one.content) for one in self._bases.values()) > MAX_BASES_BYTES:
            self._bases.popitem(last=False)
        return base


def _before(release: Release, want: Want) -> bytes:
    """What a board's window holds: the content before the block, of the same file and of those before it."""
    item, found = want.item, b""
    if item >= FIRST_FILE:
        found = release.items[item][: want.start]
    while len(found) < want.behind and item > FIRST_FILE:
        item -= 1
        found = release.items[item] + found
    return found[max(0, len(found) - want.behind) :]
