"""The flash chip of an emulated board, and what is left in it when the power goes in the middle of an operation.

The image file is the chip. The board's process reads and writes it, but asks before each erase (4 KiB) and each
page program (256 B); this side counts, says how long the chip is busy, and takes the power away. A cut is
SIGKILL while the board waits for its answer, never an exception: nothing unwinds, as on a real board.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from laterne_emulator import records

PAGE_BYTES = 256
BLOCK_BYTES = 4096
BLOCKS = 352  # what a Pico leaves for files: 1,408 KiB


class Torn(Enum):
    """What the operation at which the power goes leaves behind."""

    CLEAN = "clean"  # nothing of it is done
    HEAD = "head"  # the first part of the page or block is done, up to a random byte
    TAIL = "tail"  # only the last part is done
    RANDOM_BITS = "random bits"  # each bit that had to change has changed or not (NOR: program 1>0, erase 0>1)
    HALF_ERASED = "half erased"  # some pages of the block are erased, some untouched, one in between; a program: HEAD
    DONE = "done"  # all of it is done: the power goes right after


class Wrong(Enum):
    """What is wrong with a block, for as long as it is. Where it says *fails* littlefs is told so."""

    READ_FAILS_ONCE = records.READ_FAILS_ONCE  # in each life, and then not again
    READ_FAILS = records.READ_FAILS
    PROGRAM_DROPPED = records.PROGRAM_DROPPED  # it reports success and changes nothing
    PROGRAM_WEAK = records.PROGRAM_WEAK  # it reports success, and one bit of each page did not change
    ERASE_WEAK = records.ERASE_WEAK  # it reports success, and the first page is what it was
    WRITE_FAILS = records.WRITE_FAILS  # programs and erases: worn out


@dataclass(frozen=True)
class Bad:
    """A bad block. read: the first read of it in a life that fails, from 0."""

    block: int
    wrong: Wrong
    read: int = 0


class FlashMisuse(Exception):
    """The board programmed a page that was not erased, which destroys what it held."""


@dataclass(frozen=True)
class Cut:
    """Take the power at an operation: `at` 0 is the next one. `seed` decides what a torn operation leaves."""

    at: int
    torn: Torn = Torn.CLEAN
    seed: int = 0


@dataclass(frozen=True)
class FlashTiming:
    """How long the chip is busy, in ms for an erase of 4 KiB and for a page program, and the board deaf (uart.py).

    Assign `board.flash.timing` to change it while a board runs. Typical for a Pico's W25Q16JV: 45 and 0.4 ms, at most
    400 and 3 ms (data sheet, "AC electrical characteristics").
    """

    erase_ms: float = 0.0
    page_ms: float = 0.0


INSTANT = FlashTiming()
TYPICAL_TIMING = FlashTiming(erase_ms=45.0, page_ms=0.4)
SLOWEST_TIMING = FlashTiming(erase_ms=400.0, page_ms=3.0)


@dataclass
class FlashCount:
    """Operations since the board was made."""

    programs: int = 0
    erases: int = 0
    bytes_programmed: int = 0

    @property
    def operations(self) -> int:
        return self.programs + self.erases


class Flash:
    """One chip: an image file, its counters, and the cuts that are armed."""

    def __init__(
        self, image: Path, blocks: int = BLOCKS, timing: FlashTiming = INSTANT, page_bytes: int = PAGE_BYTES
    ) -> None:
        self.image = image
        self.page_bytes = page_bytes
        self.blocks = blocks
        self.timing = timing
        self.count = FlashCount()
        self.misused: list[int] = []  # addresses of pages that were programmed twice, not by our fault
        self.noted: Callable[[int, bool], None] | None = None  # told of each operation that is going to be done
        self.bad: Bad | None = None  # from the next life on
        self._cut: Cut | None = None
        self._until_cut = 0
        self._until_skipped = -1
        self._unerased: set[int] = set()  # blocks whose erase we pretended
        if not image.exists():
            image.write_bytes(b"\xff" * BLOCK_BYTES * blocks)
        if image.stat().st_size != BLOCK_BYTES * blocks:
            raise ValueError(f"{image} is {image.stat().st_size} bytes, {blocks} blocks need {BLOCK_BYTES * blocks}")

    def cut_power(self, cut: Cut | None) -> None:
        """Arm a cut, counted from now; None disarms it."""
        self._cut = cut
        self._until_cut = cut.at if cut else 0

    def skip_operation(self, at: int) -> None:
        """A bad cell: operation `at` from now reports success and changes nothing; the power stays."""
        self._until_skipped = at

    def begins(self) -> tuple[Cut | None, bool]:
        """The board asks to do one operation: (the cut that happens now, whether it is silently skipped)."""
        skipped = self._until_skipped == 0
        self._until_skipped -= 1
        if self._cut is None:
            return None, skipped
        if self._until_cut == 0:
            cut, self._cut = self._cut, None
            return cut, False
        self._until_cut -= 1
        return None, skipped

    def programs(self, address: int) -> None:
        if self.noted is not None:
            self.noted(address, False)
        self.count.programs += 1
        self.count.bytes_programmed += self.page_bytes

    def erases(self, block: int, skipped: bool) -> None:
        if self.noted is not None:
            self.noted(block * BLOCK_BYTES, True)
        self.count.erases += 1
        if skipped:
            self._unerased.add(block)
        else:
            self._unerased.discard(block)

    def may_program_twice(self, address: int) -> bool:
        """Whether an unerased page at this address is our doing (a bad block) and not the board's."""
        block = address // BLOCK_BYTES
        if block in self._unerased or (self.bad is not None and block == self.bad.block):
            return True
        self.misused.append(address)
        return False

    def tear_program(self, address: int, page: bytes, cut: Cut) -> None:
        """Leave in the image what a page program leaves that lost its power."""
        old = self._read(address, len(page))
        self._write(address, torn_program(old, page, cut))

    def tear_erase(self, block: int, cut: Cut) -> None:
        """Leave in the image what an erase leaves that lost its power."""
        old = self._read(block * BLOCK_BYTES, BLOCK_BYTES)
        self._write(block * BLOCK_BYTES, torn_erase(old, cut))

    def rot(self, address: int, bit: int) -> None:
        """Turn one bit over, as an old cell may do. The board must be off or it may not notice."""
        byte = self._read(address, 1)[0]
        self._write(address, bytes([byte ^ 1 << bit]))

    def _read(self, address: int, length: int) -> bytes:
        with self.image.open("rb") as file:
            file.seek(address)
            return file.read(length)

    def _write(self, address: int, data: bytes) -> None:
        with self.image.open("r+b") as file:
            file.seek(address)
            file.write(data)


def torn_program(old: bytes, page: bytes, cut: Cut) -> bytes:
    """What stands in a page of `old` bytes when a program of `page` is torn. Bits only ever go from 1 to 0."""
    dice = random.Random(f"{cut.seed} program")
    split = dice.randrange(1, len(old))
    done = bytes(a & b for a, b in zip(old, page, strict=True))
    match cut.torn:
        case Torn.CLEAN:
            return old
        case Torn.DONE:
            return done
        case Torn.HEAD | Torn.HALF_ERASED:
            return done[:split] + old[split:]
        case Torn.TAIL:
            return old[:split] + done[split:]
        case Torn.RANDOM_BITS:
            return bytes(a & (b | dice.getrandbits(8)) for a, b in zip(old, page, strict=True))


def torn_erase(old: bytes, cut: Cut) -> bytes:
    """What stands in a block of `old` bytes when its erase is torn. Bits only ever go from 0 to 1."""
    dice = random.Random(f"{cut.seed} erase")
    split = dice.randrange(1, BLOCK_BYTES)
    erased = b"\xff" * BLOCK_BYTES
    match cut.torn:
        case Torn.CLEAN:
            return old
        case Torn.DONE:
            return erased
        case Torn.HEAD:
            return erased[:split] + old[split:]
        case Torn.TAIL:
            return old[:split] + erased[split:]
        case Torn.RANDOM_BITS:
            return bytes(a | dice.getrandbits(8) for a in old)
        case Torn.HALF_ERASED:
            pages = [old[at : at + PAGE_BYTES] for at in range(0, BLOCK_BYTES, PAGE_BYTES)]
            left = b""
            for page in pages:
                weak = bytes(a | dice.getrandbits(8) for a in page)
                left += dice.choice([page, weak, erased[:PAGE_BYTES]])
            return left
