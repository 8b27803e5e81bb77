"""P1 at the platform's end: whatever a broker or the way to it does, every report arrives, once, in order.

A whole gateway of real parts delivers through a proxy to a real mosquitto, in fast time. Each case draws what happens
to which packet: it is swallowed, the connection is cut before, after or inside it, stalls or becomes slow; new
connections are refused for a while; the gateway ends in the middle and is put together again from its disk. In a class
of their own reports are refused by a PUBACK, whether the broker has them or not.
"""

import asyncio
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.street import Platform, Street, quick, street
from tests.servers import Mosquitto

from laterne_emulator.fast_time import FastLoop
from laterne_emulator.proxy import (
    CONNACK,
    CONNECT,
    DOWN,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UP,
    Answer,
    Do,
    Instead,
    Packet,
    refusal,
)
from laterne_emulator.sweep import at_once

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

CASES, CASES_REFUSED = 200, 40
AT_ONCE = 8
SPEED = 100.0  # the route gives up a connection attempt after 20 s, a silent broker after 60 s
DUE_MS = 1000  # boards that are asked more often only take time from each other
WITHIN_S = 1200.0  # a bound for what would hang, in fast time
# What a PUBACK may say (MQTT 5, 3.4.2.1), one that is not among that and is said, and one that nobody knows.
REASONS = (0x80, 0x83, 0x87, 0x90, 0x97, 0x99, 0x95, 0xF0)
CUTS = (Do.CUT, Do.CUT_AFTER, Do.CUT_INSIDE)

# (way, kind, what may happen to it): reports and their PUBACKs most often, as they are most of what passes.
# No report is swallowed alone: TCP loses the rest, too, and a window of several could not be kept in order.
POINTS = [
    (UP, PUBLISH, (*CUTS, *CUTS, Do.STALL, Do.SLOW)),
    (UP, PUBLISH, CUTS),
    (DOWN, PUBACK, (*CUTS, *CUTS, Do.SWALLOW, Do.STALL, Do.SLOW)),
    (DOWN, PUBACK, CUTS),
    (UP, CONNECT, (*CUTS, Do.STALL)),
    (DOWN, CONNACK, (*CUTS, Do.SWALLOW, Do.SLOW)),
    (UP, SUBSCRIBE, CUTS),
    (DOWN, SUBACK, (*CUTS, Do.SWALLOW)),
]


class Plan:
    """What this case does to which packets. Every connection after the last planned fault is a good one."""

    keeps_order = True

    def __init__(self, dice: random.Random, reports: int) -> None:
        self._at: dict[tuple[str, int, int], Do] = {}
        self.done: Counter[str] = Counter()
        for _ in range(dice.choice((1, 1, 2, 3))):
            way, kind, choices = dice.choice(POINTS)
            last = reports if kind in (PUBLISH, PUBACK) else 2
            self._at[way, kind, dice.randrange(last)] = dice.choice(choices)

    def __call__(self, packet: Packet) -> Do | Answer | Instead:
        do = self._at.get((packet.way, packet.kind, packet.number), Do.PASS)
        if do is not Do.PASS:
            self.done[f"{do.value} {packet.way} {packet.kind}"] += 1
        return do


class Refusals(Plan):
    """Some reports are refused by a PUBACK with one of REASONS; half of the cases' brokers have them all the same.

    The other half's have what was under way behind a refused one, and that one later: no order can be kept.
    """

    def __init__(self, dice: random.Random, reports: int) -> None:
        super().__init__(dice, 1)
        self._at = {}
        self._numbers = {dice.randrange(reports) for _ in range(dice.choice((1, 2, 4)))}
        self._reason = dice.choice(REASONS)
        self._has_them = self.keeps_order = dice.random() < 0.5

    def __call__(self, packet: Packet) -> Do | Answer | Instead:
        meant = (DOWN, PUBACK) if self._has_them else (UP, PUBLISH)
        if (packet.way, packet.kind) != meant or packet.number not in self._numbers:
            return Do.PASS
        self.done[f"refused {packet.way} {self._reason:02x}"] += 1
        said = refusal(packet, self._reason)
        return Instead(said) if self._has_them else Answer(said)


async def _refuse_for(place: Street, seconds: float) -> None:
    place.proxy.refusing = True
    await place.proxy.cut_all()
    await asyncio.sleep(seconds)
    place.proxy.refusing = False


async def _run(case: "Case", place: Street, platform: Platform, plan: Plan) -> None:
    dice, boards = case.dice, place.boards
    place.proxy.rule = plan
    restarts = dice.random() < 0.25
    refuses = dice.random() < 0.15
    some = dice.randrange(1, sum(len(board.taken) for board in boards))

    def some_delivered() -> bool:
        return sum(len(platform.delivered[board.name]) for board in boards) >= some

    async with asyncio.timeout(WITHIN_S):
        if restarts:
            async with place.running():
                await platform.until(some_delivered)
            await place.parts.reopen()
        async with place.running():
            await platform.until(some_delivered)
            for board in boards:
                board.close_reports(dice.randrange(4))
            if refuses:
                plan.done["refuse"] += 1
                await _refuse_for(place, dice.uniform(0.5, 5.0))
            await platform.until(partial(platform.has_all, boards))


def _twins(place: Street) -> int:
    return place.parts.health.counted("route mqtt", "twin at the broker")


@pytest.mark.parametrize(
    ("faults", "cases", "kind"), [("broker", CASES, Plan), ("mqtt: refused", CASES_REFUSED, Refusals)]
)
def test_every_report_arrives_once_whatever_happens_to_a_packet(
    broker: Mosquitto, memory: Path, fault_sweep: "FaultSweeps", faults: str, cases: int, kind: type[Plan]
) -> None:
    done: Counter[str] = Counter()

    async def run(platform: Platform, case: "Case") -> None:
        boards = [quick(FakeBoard(f"{case.name}-{n}", n)) for n in range(1, case.dice.choice((2, 2, 3)))]
        for board in boards:
            board.due_ms = DUE_MS
            board.close_reports(case.dice.randrange(6, 24))
        plan = kind(case.dice, sum(len(board.taken) for board in boards))
        async with street(memory / case.name, broker, boards, case.seed) as place:
            await _run(case, place, platform, plan)
        done.update(plan.done)
        assert not _twins(place), "a gateway took its own former process for a twin"
        outcome = platform.compared(boards)
        if not plan.keeps_order:
            outcome.problems = [one for one in outcome.problems if "out of order" not in one]
        case.survived(**outcome.counts)
        outcome.check()

    async def sweep() -> None:
        async with Platform(broker) as platform:
            await at_once(fault_sweep(faults, quick=cases), AT_ONCE, partial(run, platform))

    with asyncio.Runner(loop_factory=lambda: FastLoop(SPEED)) as runner:
        runner.run(sweep())
    print(dict(done))
    assert done, "no fault has happened"
