"""P1 and P5: a day without broker on a street of 16 boards, with the gateway as a process and a real broker.

Boards of the tests close a day's reports, dated a minute apart and signed, as fast as the gateway takes them: what a
day is for the gateway is their number. It is killed once in the day, and again while it drains.
"""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.gateway.street import Platform, quick
from tests.servers import Mosquitto

from laterne_emulator.proxy import Proxy

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps

BOARDS = 16
HOURS, MINUTES = 24, 60
READINGS = 24
MINUTE_MS = 60_000
LIVE_ROUNDS = 5
SLOWLY, AT_ONCE = 200, 100_000  # reports a second: as configured by default, and what no machine does
CAP_MIB = 64  # the buffer's cap, which a day does not reach
WITHIN_S = 240.0  # a bound for what would hang


async def _a_day_passes(gateway: GatewayProcess, boards: list[FakeBoard], ends_ms: int) -> None:
    for hour in range(HOURS):
        for minute in range(MINUTES):
            for board in boards:
                board.utc_ms = ends_ms - ((HOURS - hour) * MINUTES - minute) * MINUTE_MS
                board.close_reports(readings=READINGS)
            await asyncio.sleep(0)  # the lines are served meanwhile
        if hour == HOURS // 2:
            await gateway.kill()
            await gateway.start()
        for board in boards:  # an hour at most waits on a board
            await board.forgets(hour * MINUTES)
    for board in boards:
        await board.forgets(max(board.taken))


def _live(platform: Platform, board: FakeBoard) -> set[bytes]:
    return {one.body for one in platform.delivered[board.name] if not one.historical}


async def _boards_go_on(platform: Platform, boards: list[FakeBoard]) -> None:
    """Each closes some reports more, one after the other has been delivered as a live one."""
    for _ in range(LIVE_ROUNDS):
        for board in boards:
            board.utc_ms = int(time.time() * 1000)
            board.close_reports(readings=READINGS)
        await platform.until(lambda: all(board.taken[max(board.taken)] in _live(platform, board) for board in boards))


def _historical(platform: Platform, boards: list[FakeBoard]) -> int:
    return sum(one.historical for board in boards for one in platform.delivered[board.name])


@pytest.mark.timeout(WITHIN_S + 60)
async def test_a_day_of_reports_is_delivered_while_new_ones_overtake_it(
    memory: Path, broker: Mosquitto, fault_sweep: "FaultSweeps"
) -> None:
    for case in fault_sweep("day without broker", quick=1):
        with case:
            boards = [quick(FakeBoard(f"{case.name}-{number}", number)) for number in range(1, BOARDS + 1)]
            lines = [FakeLine(memory / f"line-{board.address}", [board]) for board in boards]
            async with Platform(broker) as platform, Proxy(broker.port) as proxy:
                proxy.refusing = True
                gateway = GatewayProcess(memory, boards, lines, proxy)
                gateway.set_backlog_a_second(SLOWLY)
                gateway.config.write_text(gateway.config.read_text() + f"[buffer]\nmax_mib = {CAP_MIB}\n")
                try:
                    async with asyncio.timeout(WITHIN_S):
                        await _run(gateway, proxy, platform, boards)
                finally:
                    await gateway.end()
                    for line in lines:
                        await line.close()
            outcome = platform.compared(boards, lanes=True)
            case.survived(**outcome.counts)
            outcome.check()
        break  # a soak has a longer one, not more of them


async def _run(gateway: GatewayProcess, proxy: Proxy, platform: Platform, boards: list[FakeBoard]) -> None:
    await gateway.start()
    await _a_day_passes(gateway, boards, int(time.time() * 1000))
    total = sum(len(board.taken) for board in boards)
    assert total == BOARDS * HOURS * MINUTES
    assert not any(platform.delivered[board.name] for board in boards)
    held = await _buffer(gateway)
    assert (held["waiting"], held["set aside"], held["gaps to tell"]) == ({"mqtt": total}, 0, 0)
    assert held["bytes"] < CAP_MIB << 20
    await gateway.kill()  # its pause before the next attempt may have grown long
    proxy.refusing = False
    await gateway.start()
    await gateway.says(f"{total} reports waiting")
    await _boards_go_on(platform, boards)
    drained = _historical(platform, boards)
    assert 0 < drained < total, "what is new did not wait for what the outage had left behind"
    await gateway.kill()
    gateway.set_backlog_a_second(AT_ONCE)
    await gateway.start()
    await platform.until(partial(platform.has_all, boards))
    await gateway.says("what an outage had left behind is delivered")
    assert (await _buffer(gateway))["waiting"] == {"mqtt": 0}
    assert "WARNING buffer: " not in gateway.said(), gateway.said()  # no alarm: no cap was reached
    assert await gateway.stop() == 0
    assert "Traceback" not in gateway.said(), gateway.said()


async def _buffer(gateway: GatewayProcess) -> Any:
    found = await asyncio.to_thread(gateway.status)
    assert found is not None
    return found["buffer"]
