"""P1 on the line: noise, loss, doubling, delay, splitting, unplugging, babbling; every report arrives, once, in order.

Boards that speak the real protocol sit behind the emulator's line and a PTY; a whole gateway of real parts asks them in
fast time and delivers to a real mosquitto. Each case draws one to three faults of the line, how strong they are and
how long they last.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.gateway.fake_board import FakeBoard
from tests.gateway.street import Platform, Street, quick, street
from tests.servers import Mosquitto

from laterne_emulator.fast_time import FastLoop
from laterne_emulator.line import Line, LineFaults
from laterne_emulator.sweep import at_once

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

CASES = 300
AT_ONCE = 16
SPEED = 400.0
WITHIN_S = 7200.0  # a bound for what would hang, in fast time
MAX_LASTS_S = 60.0  # then a fault ends: P1 promises delivery when the line is back, not through any noise


async def _noise(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.bit_errors = 10 ** dice.uniform(-5, -2.8)


async def _loss(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.lost = 10 ** dice.uniform(-4.5, -2.2)


async def _doubling(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.doubled = 10 ** dice.uniform(-4.5, -2.2)


async def _frames_twice(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.frames_doubled = dice.uniform(0.05, 0.9)


async def _delay(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.delayed, line.faults.delay_s = 10 ** dice.uniform(-3.5, -2), dice.uniform(0.01, 1.2)


async def _splitting(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.split = True


async def _echo(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    line.faults.echo = True


async def _unplugging(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 4)):
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        line.unplug()
        await asyncio.sleep(dice.uniform(0.0, 3.0))
        line.plug()


async def _babbling(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 3)):
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        line.babble(dice.randrange(len(boards)), True)
        await asyncio.sleep(dice.uniform(0.05, 3.0))
        for number in range(len(boards)):
            line.babble(number, False)


async def _restarts(line: Line, boards: Sequence[FakeBoard], dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 3)):
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        dice.choice(boards).restart()


Fault = Callable[[Line, Sequence[FakeBoard], random.Random], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    "noise": _noise,
    "loss": _loss,
    "doubling": _doubling,
    "frames twice": _frames_twice,
    "delay": _delay,
    "splitting": _splitting,
    "echo": _echo,
    "unplugging": _unplugging,
    "babbling": _babbling,
    "restarts": _restarts,
}


async def _run(place: Street, platform: Platform, boards: list[FakeBoard], names: list[str], seed: int) -> None:
    lines = [one.line for one in place.lines]
    faults = [
        FAULTS[name](line, one.boards, random.Random(f"{seed} {name} {number}"))
        for number, (line, one) in enumerate(zip(lines, place.lines, strict=True))
        for name in names
    ]

    async def trouble() -> None:
        await asyncio.gather(*faults)
        await asyncio.sleep(MAX_LASTS_S)

    def quiet(done: object) -> None:
        for line in lines:
            line.faults = LineFaults()
            line.plug()
            for number in range(len(line.ends)):
                line.babble(number, False)

    async with asyncio.timeout(WITHIN_S):
        async with place.running():
            troubling = asyncio.create_task(trouble())
            troubling.add_done_callback(quiet)
            await platform.until(lambda: any(platform.delivered[board.name] for board in boards))
            for board in boards:
                board.close_reports(3)
            await platform.until(partial(platform.has_all, boards))
            troubling.cancel()
            for board in boards:
                await board.forgets(max(board.taken))


def test_every_report_arrives_once_whatever_the_line_does(
    broker: Mosquitto, memory: Path, fault_sweep: "FaultSweeps"
) -> None:
    seen: Counter[str] = Counter()

    async def run(platform: Platform, case: "Case") -> None:
        dice = case.dice
        boards = [quick(FakeBoard(f"{case.name}-{n}", n)) for n in range(1, dice.choice((2, 2, 3, 4)))]
        for board in boards:
            board.close_reports(dice.randrange(2, 12), readings=dice.choice((4, 4, 60)))
        names = dice.sample(sorted(FAULTS), dice.choice((1, 1, 2, 3)))
        async with street(memory / case.name, broker, boards, case.seed, buses=dice.random() < 0.7) as place:
            await _run(place, platform, boards, names, case.seed)
            for one in place.lines:
                seen.update(_happened(one.line))
        seen.update(names)
        outcome = platform.compared(boards)
        case.survived(**outcome.counts)
        outcome.check()

    async def sweep() -> None:
        async with Platform(broker) as platform:
            await at_once(fault_sweep("line", quick=CASES), AT_ONCE, partial(run, platform))

    with asyncio.Runner(loop_factory=lambda: FastLoop(SPEED)) as runner:
        runner.run(sweep())
    print(dict(seen))


def _happened(line: Line) -> dict[str, int]:
    count = line.count
    return {
        "bits flipped": count.flips,
        "bytes lost": count.lost,
        "bytes doubled": count.doubled,
        "frames doubled": count.frames_doubled,
        "bytes collided": count.collisions,
    }
