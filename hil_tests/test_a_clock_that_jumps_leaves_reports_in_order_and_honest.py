"""P1 of time: the gateway's clock is wrong, jumps, or is in 1970; boards start anew; ticks of 30 bits wrap.

The gateway's estimate (board_clock) and the firmware's clock, on MicroPython, between a true time, a crystal and a
machine's clock that the test draws. Each case is some lives of a board, minutes to months of true time, with polls,
reports and jumps in between. All times are milliseconds; `true` counts from the case's beginning.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.firmware.micropython import MicroPython

from laterne_gateway import clock as gateway_clock
from laterne_gateway.board_clock import BoardClock
from laterne_protocol import report

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps

CASES = 600
UTC_MS = 1_790_000_000_000  # of the true beginning
TICKS = 1 << 30
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LOOK_MS = 5 * DAY_MS  # the firmware looks each second; less than half a wrap is enough
HOLD_AFTER_MS = 600_000  # protocol/README.md, 6.1
# What the gateway's machine may take for the time: right, hours off, not set at all, an old guess of the year before.
ERRORS_MS = {"right": 0, "ahead": 5 * HOUR_MS, "behind": -7 * HOUR_MS, "1970": -UTC_MS, "stale": -600 * DAY_MS}
UNKNOWN = ("1970", "stale")


@dataclass
class Machine:
    """The gateway's clocks at a true moment."""

    ppm: float
    true_ms: float = 0.0
    state: str = "right"

    def monotonic_s(self) -> float:
        return 17.0 + self.true_ms * (1 + self.ppm / 1e6) / 1000

    def utc_ms(self) -> int | None:
        return gateway_clock.credible(int(UTC_MS + self.true_ms) + ERRORS_MS[self.state])


@dataclass
class Life:
    """Of a board, from one start to the next. moments: for clock_runner. closed: where in them reports are closed.

    told: the error of what the gateway told last, by moment; None: nothing in this life.
    """

    boot: int
    began_ms: float
    start: int
    ppm: float
    moments: list[tuple[int, tuple[int, int, int] | None]] = field(default_factory=list)
    true_ms: list[float] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    told: list[tuple[int, int] | None] = field(default_factory=list)
    now_ms: int = 0

    def look(self, true_ms: float, time: "tuple[int, int, int] | None" = None, error_ms: int = 0) -> int:
        """The firmware looks at its clock, and takes over what it is told. Milliseconds since its start."""
        now_ms = int((true_ms - self.began_ms) * (1 + self.ppm / 1e6))
        while now_ms - self.now_ms > LOOK_MS:
            self._look(true_ms, self.now_ms + LOOK_MS, None, 0)
        return self._look(true_ms, now_ms, time, error_ms)

    def _look(self, true_ms: float, now_ms: int, time: "tuple[int, int, int] | None", error_ms: int) -> int:
        self.moments.append((now_ms - self.now_ms, time))
        self.true_ms.append(true_ms)
        taken = time is not None and time[0] == self.boot
        self.told.append((now_ms, error_ms) if taken else self.told[-1] if self.told else None)
        self.now_ms = now_ms
        return now_ms

    def close(self, true_ms: float) -> None:
        self.look(true_ms)
        self.closed.append(len(self.moments) - 1)


def _lived(dice: random.Random, seen: "Counter[str]") -> list[Life]:
    machine = Machine(dice.uniform(-30, 30))
    ppm = dice.uniform(-60, 60)  # both together below what boards count on
    machine.state = dice.choice(("right", "right", "1970", "stale"))
    estimate = BoardClock()
    lives: list[Life] = []
    for boot in range(1, dice.choice((2, 3, 4))):
        near_the_wrap = TICKS - dice.randrange(300_000)
        life = Life(boot, machine.true_ms, dice.choice((0, near_the_wrap, dice.randrange(TICKS))), ppm)
        lives.append(life)
        closes_ms = machine.true_ms + 60_000
        for _ in range(dice.randrange(20, 120)):
            pause_ms = dice.choice((2000.0, 5000.0, 5000.0, dice.uniform(200, 60_000)))
            if dice.random() < 0.01:  # no gateway for a while
                pause_ms = dice.choice((dice.uniform(0, HOUR_MS), dice.uniform(0, 30 * DAY_MS)))
                closes_ms = max(closes_ms, machine.true_ms + pause_ms - 150_000)
            until_ms = machine.true_ms + pause_ms
            while closes_ms <= until_ms:
                life.close(max(closes_ms, machine.true_ms))
                closes_ms += 60_000
            machine.true_ms = until_ms
            if dice.random() < 0.03:
                machine.state = dice.choice(list(ERRORS_MS))
                seen[machine.state] += 1
            time = estimate.told(machine)
            error_ms = ERRORS_MS[machine.state]
            assert time is None or machine.state not in UNKNOWN, "a gateway that does not know the time tells none"
            asked_s = machine.monotonic_s()
            machine.true_ms += dice.choice((1.0, 4.0, 150.0)) * dice.random()
            ticks_ms = life.look(machine.true_ms, time, error_ms)
            machine.true_ms += dice.choice((1.0, 4.0, 150.0)) * dice.random()
            estimate.add(boot, ticks_ms, asked_s, machine.monotonic_s(), dice.random() < 0.1)
        life.close(machine.true_ms + 10)
        machine.true_ms += dice.uniform(50, 5000)
        seen["wraps"] += (life.start + life.now_ms) // TICKS
    return lives


def _judge(life: Life, found: "list[list[object]]", seen: "Counter[str]") -> list[tuple[int, int]]:
    """(boot, milliseconds since it) of the life's reports, in the order of their closing."""
    at_ms = 0
    for (passed_ms, _), (now_ms, _) in zip(life.moments, found, strict=True):
        at_ms += passed_ms
        assert now_ms == at_ms, "ticks became other milliseconds"
    reports = []
    for index in life.closed:
        now_ms, clock = found[index]
        assert isinstance(now_ms, int)
        assert isinstance(clock, list)
        state, utc_ms, uncertainty_ms = clock
        reports.append((life.boot, now_ms))
        told = life.told[index]
        seen[f"reports in state {state}"] += 1
        if told is None:
            assert (state, utc_ms) == (report.NEVER_SET, None)
            continue
        told_ms, error_ms = told
        assert state == (report.SET if now_ms - told_ms <= HOLD_AFTER_MS else report.HELD)
        # Right where the machine was right, and as wrong as the machine said: from its next poll on.
        apart_ms = abs(utc_ms - (UTC_MS + life.true_ms[index] + error_ms))
        assert apart_ms <= uncertainty_ms, f"{apart_ms} ms off, it says {uncertainty_ms}"
        seen["reports that are wrong, as told"] += error_ms != 0
    return reports


def test_every_report_is_in_order_and_covers_the_time_that_its_gateway_had(fault_sweep: "FaultSweeps") -> None:
    seen: Counter[str] = Counter()
    with MicroPython("clock_runner.py", heap="4M") as board:
        for case in fault_sweep("clocks", quick=CASES):
            with case:
                order = []
                for life in _lived(case.dice, seen):
                    found = board.ask({"start": life.start, "boot": life.boot, "moments": life.moments})
                    order += _judge(life, found, seen)
                assert order == sorted(order)
                assert len(set(order)) == len(order)
                case.survived(sent=len(order), delivered=len(order))
    if case.number == CASES - 1:  # not when a single case is repeated
        happened = (*ERRORS_MS, "wraps", *(f"reports in state {state}" for state in range(3)))
        assert all(seen[what] for what in happened), seen
