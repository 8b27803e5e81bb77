"""The images that a power cut can leave, made of one recorded run instead of one run for each.

    trace = Trace(board.flash)           # notes every erase and program from here on, and what it left
    ...                                  # the board runs, and is off again
    for state in States(trace.end(), seed):
        board.flash.image.write_bytes(state.image)

An image before an operation is the one from which the recording began, with what all operations before it left. The
operation itself is torn as flash.py tears one whose power is really taken; a test holds both to the same bytes.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from laterne_emulator.flash import BLOCK_BYTES, PAGE_BYTES, Cut, Flash, Torn, torn_erase, torn_program

KINDS = list(Torn)
DICED = [Torn.HEAD, Torn.TAIL, Torn.RANDOM_BITS, Torn.HALF_ERASED]  # what they leave depends on a seed


@dataclass(frozen=True)
class Operation:
    """address: of the page, or of the block if it is an erase. after: of its whole block, 4,096 bytes."""

    address: int
    is_erase: bool
    after: bytes

    @property
    def block(self) -> int:
        return self.address // BLOCK_BYTES * BLOCK_BYTES


@dataclass(frozen=True)
class Run:
    """What a board did to its flash. before: the image from which it began. page_bytes: what it programs at once."""

    before: bytes
    operations: list[Operation]
    page_bytes: int = PAGE_BYTES


class Trace:
    """Notes what a board does to its flash, over resets, until end()."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash
        self._before = flash.image.read_bytes()
        self._operations: list[Operation] = []
        self._under_way: tuple[int, bool] | None = None
        flash.noted = self._note

    def _note(self, address: int, is_erase: bool) -> None:
        self._settle()
        self._under_way = address, is_erase

    def _settle(self) -> None:
        # The board asks for one operation at a time: when it asks for the next, the last one is in the image.
        if self._under_way is None:
            return
        address, is_erase = self._under_way
        with self._flash.image.open("rb") as file:
            file.seek(address // BLOCK_BYTES * BLOCK_BYTES)
            self._operations.append(Operation(address, is_erase, file.read(BLOCK_BYTES)))
        self._under_way = None

    def end(self) -> Run:
        """The board is off."""
        self._settle()
        self._flash.noted = None
        return Run(self._before, self._operations, self._flash.page_bytes)


@dataclass(frozen=True)
class State:
    """cut: the one that leaves it, counted from where the recording began. image: what it left."""

    cut: Cut
    image: bytes

    def __str__(self) -> str:
        return f"cut at operation {self.cut.at}, {self.cut.torn.value}"


class States:
    """All images that a cut in this run can leave, each once, in an order that the seed shuffles; mostly endless.

    Every operation comes up once in each of the six ways; from then on in the four that a seed decides, with another
    one each time. seen: digests of images that came up elsewhere and are left out; what comes up here is added.
    """

    def __init__(self, run: Run, seed: int, seen: set[bytes] | None = None) -> None:
        self._run = run
        self._seed = seed
        self._seen = set() if seen is None else seen

    def __iter__(self) -> Iterator[State]:
        rounds = barren = 0
        while barren < len(KINDS):  # erases of what is erased, and nothing else: they leave one image, whatever is torn
            barren += 1
            for state in self._round(rounds):
                barren = 0
                yield state
            rounds += 1

    def all_of_one_seed(self) -> Iterator[State]:
        """Those of the first six rounds: each operation once in each way."""
        for rounds in range(len(KINDS)):
            yield from self._round(rounds)

    def _round(self, rounds: int) -> Iterator[State]:
        order = list(range(len(self._run.operations)))
        random.Random(f"{self._seed} {rounds}").shuffle(order)
        for at in order:
            again = rounds - len(KINDS)
            torn = KINDS[(at + rounds) % len(KINDS)] if again < 0 else DICED[(at + again) % len(DICED)]
            cut = Cut(at, torn, random.Random(f"{self._seed} {rounds} {at}").randrange(1 << 32))
            image = left_by(self._run, cut)
            digest = sha256(image).digest()[:16]
            if digest not in self._seen:
                self._seen.add(digest)
                yield State(cut, image)


def left_by(run: Run, cut: Cut) -> bytes:
    """The image that this cut leaves of a run."""
    image = bytearray(run.before)
    for done in run.operations[: cut.at]:
        image[done.block : done.block + BLOCK_BYTES] = done.after
    operation = run.operations[cut.at]
    begin = operation.address
    if operation.is_erase:
        image[begin : begin + BLOCK_BYTES] = torn_erase(bytes(image[begin : begin + BLOCK_BYTES]), cut)
    else:
        inside = begin - operation.block
        page = operation.after[inside : inside + run.page_bytes]
        old = bytes(image[begin : begin + run.page_bytes])
        image[begin : begin + run.page_bytes] = torn_program(old, page, cut)
    return bytes(image)
