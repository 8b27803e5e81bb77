"""What may be wrong with one block of a flash: it lost what it held, it cannot be read, or it does not take what is
written. Every block of an image with every kind of harm is a case of its own.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from laterne_emulator.flash import BLOCK_BYTES, Bad, Flash, Wrong


class Rot(Enum):
    """What years leave of a block that nobody has written meanwhile. Charge is lost: bits become 1."""

    ONE_BIT = "one bit"
    BITS = "one bit in 16"
    ALL = "all of it"


Kind = Rot | Wrong
AT_REST: list[Kind] = [*Rot, Wrong.READ_FAILS_ONCE, Wrong.READ_FAILS]
WHEN_WRITTEN: list[Kind] = [Wrong.PROGRAM_DROPPED, Wrong.PROGRAM_WEAK, Wrong.ERASE_WEAK, Wrong.WRITE_FAILS]


@dataclass(frozen=True)
class Harm:
    """One block and what is wrong with it. seed: which bits; which read fails, where it is only once."""

    block: int
    kind: Kind
    seed: int = 0

    def __str__(self) -> str:
        return f"block {self.block}, {self.kind.name.lower().replace('_', ' ')}, seed {self.seed}"

    def do(self, flash: Flash, before: bytes) -> bytes:
        """To a board that is off, whose flash then holds this image, harmed. The image as it stands there."""
        dice = random.Random(f"{self.seed} {self.block} {self.kind.name}")
        flash.bad = None
        made = before
        if isinstance(self.kind, Rot):
            begin = self.block * BLOCK_BYTES
            rotten = _rotten(before[begin : begin + BLOCK_BYTES], self.kind, dice)
            made = before[:begin] + rotten + before[begin + BLOCK_BYTES :]
        else:
            once = self.kind is Wrong.READ_FAILS_ONCE
            flash.bad = Bad(self.block, self.kind, dice.choice((0, 1, 2, 3, 5, 8, 13)) if once else 0)
        flash.image.write_bytes(made)
        return made


def _rotten(held: bytes, kind: Rot, dice: random.Random) -> bytes:
    left = bytearray(held)
    charged = [at for at in range(len(held)) if held[at] != 0xFF]
    if kind is Rot.ALL or not charged:
        return b"\xff" * len(held)
    if kind is Rot.ONE_BIT:
        at = dice.choice(charged)
        left[at] |= 1 << dice.choice([bit for bit in range(8) if not held[at] >> bit & 1])
    else:
        for at in charged:
            left[at] |= dice.getrandbits(8) & dice.getrandbits(8) & dice.getrandbits(8) & dice.getrandbits(8)
    return bytes(left)


def used(image: Path) -> list[int]:
    """The blocks on which there is anything."""
    content = image.read_bytes()
    erased = b"\xff" * BLOCK_BYTES
    return [at // BLOCK_BYTES for at in range(0, len(content), BLOCK_BYTES) if content[at:][:BLOCK_BYTES] != erased]


def every(blocks: list[int], kinds: list[Kind], seed: int) -> Iterator[Harm]:
    """Each block with each kind, once, in an order that the seed shuffles; then again with other seeds, without end."""
    rounds = 0
    while True:
        harms = [Harm(block, kind, seed + rounds) for block in blocks for kind in kinds]
        random.Random(f"{seed} {rounds}").shuffle(harms)
        yield from harms
        rounds += 1
