"""Sweeps of power cuts: what a board does is recorded once, and from each image that a cut can leave it goes on.

For every state: the image is judged from outside, the board gets power and goes on to the end, and the end is judged.
That run is recorded, too: what a second cut in it can leave is the next depth, for which nothing is to be run twice.
"""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from laterne_emulator import image, slot_reading
from laterne_emulator.board import EmulatedBoard
from laterne_emulator.cut_states import Run, States, Trace
from laterne_emulator.flash import Cut
from laterne_emulator.sweep import Settings

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps

WITHIN_S = 20.0  # a bound for what would hang
MOST_RESETS = 40  # and for what would start again without an end; the longest of ours has twelve
DONE = "done"  # what a board prints when all is over
EVERY = 8  # of so many cases one is started once more: a start by power writes nothing


class Life:
    """What was printed from power-on to the end of what a board does, or to the cut, whatever resets there were."""

    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.lines = printed.splitlines()
        self.runs = [line.removeprefix("runs ") for line in self.lines if line.startswith("runs ")]
        self.is_done = DONE in self.lines


class Judge(Protocol):
    """What holds. found: all files of an image, by absolute path; where: which case it is, for messages."""

    def at_any_time(self, found: Mapping[str, bytes], where: str) -> None:
        """In whatever state the power has left the board."""

    def at_the_end(self, found: Mapping[str, bytes], life: Life, where: str) -> None:
        """When all is over, however often the power went before."""


@dataclass
class Counted:
    """Of one depth. tried: states from which a board went on; distinct: so many different images; possible: so many
    there are with one seed for what torn operations leave."""

    tried: int = 0
    digests: set[bytes] = field(default_factory=set)
    possible: int = 0

    def add(self, made: bytes) -> None:
        self.tried += 1
        self.digests.add(sha256(made).digest()[:16])


async def live(board: EmulatedBoard, cut: Cut | None = None) -> Life:
    """One power-on, with all resets that follow, until the board says that all is over or the cut takes the power."""
    log = board.folder / "console.log"
    log.unlink(missing_ok=True)
    async with asyncio.timeout(WITHIN_S):
        await board.power_on(cut)
        down = asyncio.create_task(board.wait_until_down())
        done = asyncio.create_task(board.usb.wait_for_print(DONE))
        lost = asyncio.create_task(board.wait_for_life(len(board.lives) + MOST_RESETS))
        await asyncio.wait([down, done, lost], return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        lost.cancel()
        await board.power_off()
        await down
    return Life(log.read_text(errors="replace") if log.exists() else "")  # none: the power went before a word


async def goes_on(board: EmulatedBoard, made: bytes, judge: Judge, where: str, *, twice: bool = False) -> Run:
    """From this image to the end, judged before and after; what was done to the flash. twice: and started once more."""
    board.flash.image.write_bytes(made)
    judge.at_any_time(image.contents(board.flash.image), where)
    trace = Trace(board.flash)
    life = await live(board)
    run = trace.end()
    found = image.contents(board.flash.image)
    judge.at_the_end(found, life, where)
    if twice:
        count = board.flash.count.operations
        life = await live(board)
        record = slot_reading.record_in(found)
        if record is not None and not record.attempts:
            assert board.flash.count.operations == count, f"{where}: a start by power writes nothing"
        judge.at_the_end(image.contents(board.flash.image), life, where)
    return run


async def sweep(board: EmulatedBoard, judge: Judge, sweeps: "FaultSweeps", name: str, ways: float = 1.0) -> None:
    """Every operation is cut, and in half of these cases one more after it; in a soak in twenty times as many ways, and
    five more after each. The board is off and has the image from which all begins. ways: of the six ways to tear an
    operation; under 1 where many operations do the same.
    """
    before = board.flash.image.read_bytes()
    whole = await goes_on(board, before, judge, "without a cut", twice=True)
    is_soak = Settings.found(None, None).factor > 1
    cases = sweeps(name, quick=max(4, round(ways * len(whole.operations))) * (2 if is_soak else 1))
    again = sweeps(f"{name}, cut again")
    first, second = Counted(), Counted()
    first.possible = sum(1 for _ in States(whole, cases.seed).all_of_one_seed())
    states = enumerate(States(whole, cases.seed))
    operations = 0
    try:
        for case in cases:
            state = next((state for number, state in states if number == case.number), None)
            if state is None:  # there are no more of them
                return
            with case:
                where = f"{state} of {len(whole.operations)}"
                first.add(state.image)
                run = await goes_on(board, state.image, judge, where, twice=case.number % EVERY == 0)
                operations += len(run.operations)
                count = 5 if is_soak else case.number % 2
                following = States(run, case.seed, {sha256(run.before).digest()[:16]})  # less the one of depth 1
                for number, after in enumerate(itertools.islice(following, count)):
                    second.add(after.image)
                    also = f"{where}, then {after} of {len(run.operations)}"
                    await goes_on(board, after.image, judge, also, twice=number % EVERY == EVERY - 1)
                case.survived()
    finally:
        # As many of the possible ones of a run as of the first run, at every state of depth 1: an estimate.
        each = first.possible / max(1, len(whole.operations))
        second.possible = round(first.possible * each * operations / max(1, first.tried))
        cases.counted(first.tried, len(first.digests), first.possible)
        again.counted(second.tried, len(second.digests - first.digests), second.possible)


def turn_a_bit_over_when_it_is_there(board: EmulatedBoard, content: bytes) -> list[int]:
    """As soon as all of this content stands on flash a bit of its begin is another one, once; where: in the list."""
    turned: list[int] = []

    def look(address: int, is_erase: bool) -> None:
        found = board.flash.image.read_bytes()
        if not turned and content[-200:] in found and content[:200] in found:
            turned.append(found.index(content[:200]) + 50)
            board.flash.rot(turned[0], 3)

    board.flash.noted = look
    return turned
