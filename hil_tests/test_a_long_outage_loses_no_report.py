"""P1 and P5: no broker for a long time, 16 boards with the real firmware that go on, the gateway as a process.

Everything is on disk, then everything is delivered, and what is new overtakes it. A report a second stands for one a
minute: forty minutes in every run, LATERNE_OUTAGE_S=86400 makes it a day (23,040 reports in 27 minutes).
"""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.firmware.enrolled import Awaited, EnrolledBoard, compared, enrolled_boards, wires
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.parts import GATEWAY, GatewayProcess
from tests.gateway.street import Platform
from tests.servers import Mosquitto

from laterne_emulator.proxy import Proxy
from laterne_gateway.buffer import LEFT_BEHIND

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

OUTAGE_S = float(os.environ.get("LATERNE_OUTAGE_S", "2400"))
BOARDS = 16
REPORT_S = 60.0
REPORTS = int(OUTAGE_S / REPORT_S)  # of a board
SETTINGS = {"report_s": 1, "sample_ms": 250}
STARTS_WITHIN_S = 60.0  # bounds for what would hang
WITHIN_S = STARTS_WITHIN_S + 3 * REPORTS


async def _closed(boards: list[EnrolledBoard], count: int) -> None:
    await asyncio.gather(*(board.board.usb.wait_for_print(f"closed {count} ") for board in boards))


async def _outage(gateway: GatewayProcess, boards: list[EnrolledBoard], proxy: Proxy, platform: Platform) -> None:
    proxy.refusing = True
    await gateway.start()
    await _closed(boards, REPORTS // 2)
    await gateway.kill()  # memory holds nothing of it
    await gateway.start()
    await _closed(boards, REPORTS)
    assert not any(platform.delivered[board.name] for board in boards)
    await gateway.kill()  # its pause before the next attempt may have grown long
    proxy.refusing = False
    await gateway.start()
    await platform.until(lambda: all(_live(platform, board) for board in boards))


def _live(platform: Platform, board: EnrolledBoard) -> bool:
    return any(not one.historical for one in platform.delivered[board.name])


@pytest.mark.timeout(WITHIN_S + 60)
async def test_what_came_while_the_broker_was_away_is_delivered_once_and_in_order(
    tmp_path: Path, broker: Mosquitto, emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    for case in fault_sweep("long outage", quick=1):
        with case:
            authority = FakeAuthority(GATEWAY)
            names = [f"{case.name}-{number}" for number in range(1, BOARDS + 1)]
            bench, boards = await enrolled_boards(emulated_boards, authority, names, SETTINGS)
            async with Platform(broker) as platform, Proxy(broker.port) as proxy:
                gateway = GatewayProcess(tmp_path, boards, wires(tmp_path, bench, boards), proxy, authority)
                try:
                    async with asyncio.timeout(WITHIN_S):
                        await bench.power_on()
                        await _outage(gateway, boards, proxy, platform)
                        told = {board.name: board.told() for board in boards}
                        await platform.until(Awaited(platform.delivered, told).arrived)
                    await bench.power_off()
                    assert await gateway.stop() == 0
                finally:
                    await gateway.end()
            lanes = sum(map(len, told.values())) > LEFT_BEHIND
            outcome = compared(boards, platform.delivered, told, lanes=lanes)
            case.survived(**outcome.counts)
            outcome.check()
            assert all(board.board.lives[:-1] == [] for board in boards), "no board has started again"
            assert "Traceback" not in gateway.said(), gateway.said()
        break  # a soak has a longer one, not more of them
