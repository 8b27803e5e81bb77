"""P1 and P5: no broker for a long time, and 16 boards that go on. Everything is on disk, then everything is delivered.

In fast time: half an hour in every run, LATERNE_OUTAGE_S=86400 makes it a day (23,040 reports).
"""

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.street import Platform, Street, quick, street
from tests.servers import Mosquitto

from laterne_emulator.fast_time import FastLoop

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps

OUTAGE_S = float(os.environ.get("LATERNE_OUTAGE_S", "1800"))
BOARDS = 16
REPORT_S = 60.0
SPEED = 400.0


async def _outage(place: Street, platform: Platform, boards: list[FakeBoard]) -> None:
    place.proxy.refusing = True
    async with place.running():
        for _ in range(int(OUTAGE_S / REPORT_S)):
            for board in boards:
                board.close_reports()
            await asyncio.sleep(REPORT_S)
        for board in boards:
            await board.forgets(max(board.taken))
        assert place.parts.buffer.waiting("mqtt") == sum(len(board.taken) for board in boards)
        assert not any(platform.delivered[board.name] for board in boards)
    await place.parts.reopen()  # the gateway is started again meanwhile: memory holds nothing of it
    async with place.running():
        await asyncio.sleep(REPORT_S)
        place.proxy.refusing = False
        await platform.until(partial(platform.has_all, boards))
        assert max(len(board.backlog) for board in boards) == 0


@pytest.mark.timeout(3000)
def test_what_came_while_the_broker_was_away_is_delivered_once_and_in_order(
    broker: Mosquitto, memory: Path, fault_sweep: "FaultSweeps"
) -> None:
    async def sweep() -> None:
        async with Platform(broker) as platform:
            for case in fault_sweep("long outage", quick=1):
                with case:
                    boards = [quick(FakeBoard(f"{case.name}-{n}", 1)) for n in range(1, BOARDS + 1)]
                    for board in boards:
                        board.due_ms = int(REPORT_S * 1000)
                    async with street(memory / case.name, broker, boards, case.seed, buses=False) as place:
                        await _outage(place, platform, boards)
                    outcome = platform.compared(boards)
                    case.survived(**outcome.counts)
                    outcome.check()
                break  # a soak has a longer one, not more of them

    with asyncio.Runner(loop_factory=lambda: FastLoop(SPEED)) as runner:
        runner.run(sweep())
