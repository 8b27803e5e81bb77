"""P1 and P5: SIGKILL at chosen moments of a report's way, and at random ones, in a real gateway process.

The moments are chosen from outside, by what boards and broker see: a report has been handed over (its commit is about
to come), a board reads the acknowledgement (the commit is over), a PUBLISH or a PUBACK is at the proxy, not yet passed
on or just passed on. What a kill cannot show, that the disk has it, is shown in
test_the_buffer_survives_a_power_cut_at_any_write.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.gateway.street import Platform, quick
from tests.servers import Mosquitto

from laterne_emulator.coordinator import Outcome
from laterne_emulator.proxy import DOWN, PUBACK, PUBLISH, UP, Do, Packet, Proxy

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_protocol import messages

CASES = 40
WITHIN_S = 60.0  # a bound for what would hang; a start takes 0.5 s
HANDED_OVER, ACKNOWLEDGED, RANDOM = "handed over", "acknowledged", "at random"
BEFORE, AFTER = "before", "after"
POINTS = [
    HANDED_OVER,
    HANDED_OVER,
    ACKNOWLEDGED,
    RANDOM,
    *((w, k, s) for w, k in ((UP, PUBLISH), (DOWN, PUBACK)) for s in (BEFORE, AFTER)),
]


class WatchedBoard(FakeBoard):
    """A board that says when it has handed over a report, and when it has read an acknowledgement."""

    seen: Callable[[str], None] = staticmethod(lambda what: None)

    def answer(self, question: "messages.Message") -> bytes | None:
        before, asked = self.acknowledged, len(self.backlog)
        said = super().answer(question)
        if self.acknowledged > before:
            self.seen(ACKNOWLEDGED)
        elif asked:
            self.seen(HANDED_OVER)
        return said


class Killer:
    """Kills once, `delay_s` after the count-th time that the point is met."""

    def __init__(self, gateway: GatewayProcess, dice: random.Random) -> None:
        self._gateway = gateway
        self.point = dice.choice(POINTS)
        self._count = dice.randrange(1, 12)
        # A commit takes one to some milliseconds: the kill comes before, in it, or after.
        self._delay_s = dice.choice((0.0, 0.0, dice.uniform(0, 0.005), dice.uniform(0, 0.05)))
        self.done = asyncio.Event()

    def meet(self, point: object) -> bool:
        """Whether this was the moment."""
        if point != self.point or self._count == 0:
            return False
        self._count -= 1
        if self._count:
            return False
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self.kill)
        else:
            self.kill()
        return True

    def rule(self, packet: Packet) -> Do:
        if self.meet((packet.way, packet.kind, BEFORE)):
            return Do.CUT
        return Do.CUT_AFTER if self.meet((packet.way, packet.kind, AFTER)) else Do.PASS

    def kill(self) -> None:
        assert self._gateway.process is not None
        self._gateway.process.kill()
        self.done.set()


async def _goes_on_until(done: asyncio.Event, boards: list[WatchedBoard]) -> None:
    """A commit may acknowledge many reports at once: boards close more until the point has been met often enough."""
    while not done.is_set():
        try:
            async with asyncio.timeout(0.5):
                await done.wait()
        except TimeoutError:
            for board in boards:
                board.close_reports(3)


async def test_a_gateway_killed_at_any_moment_loses_no_report(
    tmp_path: Path, broker: Mosquitto, fault_sweep: "FaultSweeps"
) -> None:
    boards = [quick(WatchedBoard(f"killed-{number}", number)) for number in (1, 2)]
    lines = [FakeLine(tmp_path / f"line-{board.address}", [board]) for board in boards]
    counted = Outcome()
    async with Platform(broker) as platform, Proxy(broker.port) as proxy:
        gateway = GatewayProcess(tmp_path, boards, lines, proxy)
        await gateway.start()
        try:
            for case in fault_sweep("gateway killed", quick=CASES):
                with case:
                    killer = Killer(gateway, case.dice)
                    proxy.rule = killer.rule
                    for board in boards:
                        board.seen = killer.meet  # type: ignore[assignment]  # mypy takes `seen` for a method
                        board.close_reports(case.dice.randrange(15, 40))
                    async with asyncio.timeout(WITHIN_S):
                        if killer.point == RANDOM:
                            await asyncio.sleep(case.dice.uniform(0.0, 1.0))
                            killer.kill()
                        await _goes_on_until(killer.done, boards)
                        await gateway.kill()  # it is dead: reaps it
                        proxy.rule = lambda packet: Do.PASS
                        await gateway.start()
                        await platform.until(partial(platform.has_all, boards))
                        for board in boards:
                            await board.forgets(max(board.taken))
                    outcome = platform.compared(boards)
                    case.survived(**{name: now - counted.counts[name] for name, now in outcome.counts.items()})
                    counted = outcome
                    outcome.check()
            assert await gateway.stop() == 0
        finally:
            await gateway.end()
            for line in lines:
                await line.close()
    assert "Traceback" not in gateway.said(), gateway.said()
