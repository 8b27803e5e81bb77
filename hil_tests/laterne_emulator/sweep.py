"""Sweeps of faults: many small cases under one seed, each with its own check, counted and repeatable.

    def test_...(fault_sweep: FaultSweeps) -> None:
        for case in fault_sweep("broker faults", quick=300):
            with case:
                outcome = run(case.dice)                   # all that is random comes from here
                case.survived(sent=..., delivered=...)     # counts it; a case that failed says how to repeat it

A case's randomness is random.Random(f"{seed} {fault class} {number}"), and nothing else. The seed is the same in every
quick run; --fault-seed gives another, LATERNE_SEED=random one that nobody has tried. --fault-case repeats a single one.
"""

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

DEFAULT_SEED = 20261122
SEED_VARIABLE = "LATERNE_SEED"  # "random", or a number; make soak sets it
FACTOR_VARIABLE = "LATERNE_FAULTS"  # so many times the quick sweep's cases


@dataclass
class FaultClass:
    """A line of the table. sent, delivered: reports, or observations where a route translates them.

    counts_reports: False where the faults are not on the way of reports.
    """

    name: str
    seed: int
    cases: int = 0
    sent: int = 0
    delivered: int = 0
    lost: int = 0
    again: int = 0  # came again, and were removed by (board, sequence)
    repeated: int = 0  # were still there twice after that
    dead: int = 0  # became dead letters, each as it should
    failed: int = 0
    counts_reports: bool = False
    tried: int = 0  # states of a flash (cut_sweep.py)
    distinct: int = 0
    possible: int = 0
    ends: dict[str, int] = field(default_factory=dict)  # of boards with a bad block (damage.py): how many ended so


@dataclass
class Settings:
    """What the command line and the environment say. only: the one case to run. factor: of the quick sweep's cases."""

    seed: int = DEFAULT_SEED
    only: int | None = None
    factor: float = 1.0

    @classmethod
    def found(cls, seed: int | None, only: int | None) -> "Settings":
        said = os.environ.get(SEED_VARIABLE, "")
        if seed is None:
            seed = random.SystemRandom().randrange(1_000_000_000) if said == "random" else int(said or DEFAULT_SEED)
        return cls(seed, only, float(os.environ.get(FACTOR_VARIABLE, "1")))


class Case:
    """One case. number: from 0. dice: seeded; seed: a number of its own for what wants one.

    name: fit for a file or a board.
    """

    def __init__(self, of: FaultClass, number: int, repeat: str) -> None:
        self._of = of
        self._repeat = repeat
        self.number = number
        self.dice = random.Random(f"{of.seed} {of.name} {number}")
        self.seed = random.Random(f"{of.seed} {of.name} {number}").randrange(1 << 32)
        self.name = f"{re.sub('[^A-Za-z0-9]+', '-', of.name)}-{number}"

    def survived(
        self,
        sent: int | None = None,
        delivered: int = 0,
        lost: int = 0,
        again: int = 0,
        repeated: int = 0,
        dead: int = 0,
    ) -> None:
        """The case has been judged; its reports are counted. Losses and repetitions are counted before they fail."""
        line = self._of
        line.cases += 1
        if sent is not None:
            line.counts_reports = True
            line.sent += sent
            line.delivered += delivered
            line.lost += lost
            line.again += again
            line.repeated += repeated
            line.dead += dead

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Cancelled: another case has failed.
        if why is not None and not isinstance(why, KeyboardInterrupt | asyncio.CancelledError):
            self._of.failed += 1
            where = f"{self._of.name}: case {self.number} of seed {self._of.seed}"
            why.add_note(f"{where}; repeat it with:\n{self._repeat}")


class Sweep:
    """The cases of one class in one test. number_of_cases: None without end, for sweeps that break when done."""

    def __init__(self, line: FaultClass, test: str, number_of_cases: int | None, only: int | None) -> None:
        self._line = line
        self._test = test
        self._cases = number_of_cases
        self._only = only

    @property
    def seed(self) -> int:
        return self._line.seed

    @property
    def is_one(self) -> bool:
        """Whether a single case is repeated."""
        return self._only is not None

    def __iter__(self) -> Iterator[Case]:
        if self._only is not None:
            yield self.case(self._only)
            return
        number = 0
        while self._cases is None or number < self._cases:
            yield self.case(number)
            number += 1

    def counted(self, tried: int, distinct: int, possible: int) -> None:
        """States of a flash: so many were tried, so many of them differ, so many there are with one seed."""
        self._line.tried += tried
        self._line.cases = max(self._line.cases, self._line.tried)  # a second cut is no case of its own
        self._line.distinct += distinct
        self._line.possible += possible

    def ended(self, how: str) -> None:
        """A board with a bad block ended so: one of ENDS."""
        self._line.ends[how] = self._line.ends.get(how, 0) + 1

    def case(self, number: int) -> Case:
        seed = self._line.seed
        return Case(self._line, number, f'pytest "{self._test}" --fault-seed {seed} --fault-case {number}')


async def at_once(cases: Sweep, count: int, run: Callable[[Case], Awaitable[None]]) -> None:
    """Runs all cases, `count` at a time: while one waits, others compute. Raises the group of those that failed."""
    given = iter(cases)

    async def one_after_the_other() -> None:
        for case in given:
            with case:
                await run(case)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one_after_the_other())


class Table:
    """All classes of this run, in the order in which they came up."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lines: dict[str, FaultClass] = {}

    def sweep(self, name: str, test: str, quick: int | None) -> Sweep:
        """The next cases of a class. quick: how many the quick sweep has; None: the sweep ends by itself."""
        line = self.lines.setdefault(name, FaultClass(name, self.settings.seed))
        count = None if quick is None else max(1, round(quick * self.settings.factor))
        return Sweep(line, test, count, self.settings.only)

    def counted(self) -> list[dict[str, Any]]:
        """What was counted so far, for another process's table."""
        return [asdict(line) for line in self.lines.values()]

    def add(self, counted: list[dict[str, Any]]) -> None:
        """What another process of this run has counted."""
        for each in counted:
            line = self.lines.setdefault(each["name"], FaultClass(each["name"], each["seed"]))
            line.counts_reports |= each["counts_reports"]
            for what in (*_SUMS, *_STATES, "failed"):
                setattr(line, what, getattr(line, what) + each[what])
            for how, count in each["ends"].items():
                line.ends[how] = line.ends.get(how, 0) + count

    def text(self) -> list[str]:
        """The table, a line each."""
        heads = (
            "fault class",
            "cases",
            "sent",
            "delivered",
            "lost",
            "came again",
            "after removal",
            "dead letters",
            "seed",
        )
        rows: list[tuple[str, ...]] = [heads]
        for line in self.lines.values():
            counts = (line.sent, line.delivered, line.lost, line.again, line.repeated, line.dead)
            shown = [f"{count:,}" if line.counts_reports else "-" for count in counts]
            name = f"{line.name} (FAILED)" if line.failed else line.name
            rows.append((name, f"{line.cases:,}", *shown, str(line.seed)))
        total = [sum(getattr(line, what) for line in self.lines.values()) for what in _SUMS]
        rows.append(("all", *(f"{count:,}" for count in total), ""))
        made = _in_columns(rows)
        swept = [line for line in self.lines.values() if line.tried]
        if swept:
            columns = ("states of a flash after cuts", "tried", "distinct", "possible", "failures")
            states: list[tuple[str, ...]] = [columns]
            for line in swept:
                found = (line.tried, line.distinct, line.possible, line.failed)
                states.append((line.name, *(f"{count:,}" for count in found)))
            total = [sum(getattr(line, what) for line in swept) for what in (*_STATES, "failed")]
            states.append(("all", *(f"{count:,}" for count in total)))
            made += [*_in_columns(states), "possible: with one seed for what is torn; of a second cut an estimate"]
        harmed = [line for line in self.lines.values() if line.ends]
        if harmed:
            ends: list[tuple[str, ...]] = [("states of a flash after damage", "tried", *ENDS, "failures")]
            for line in harmed:
                each = [sum(line.ends.values()), *(line.ends.get(how, 0) for how in ENDS), line.failed]
                ends.append((line.name, *(f"{count:,}" for count in each)))
            made += _in_columns(ends)
        return [
            *made,
            'case K of a class draws from random.Random(f"{seed} {fault class} {K}"); '
            "--fault-seed SEED --fault-case K repeats it",
        ]


def _in_columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# What becomes of a board one block of which is bad.
ENDS = ("as without", "another release", "rescue", "goes on later", "older state", "without its flash")
_STATES = ("tried", "distinct", "possible")
_SUMS = ("cases", "sent", "delivered", "lost", "again", "repeated", "dead")
