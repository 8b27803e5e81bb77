"""P1 from the flash of real firmware to the platform, while everything fails at once.

Emulated boards with the real firmware, `laterne-gateway` as a process, a proxy in front of a real mosquitto. In each
run boards lose their power (at a flash operation, or just so) and are reset, lines make noise, lose bytes and are
pulled out, the gateway is killed, and the way to the broker is cut, stalls or is refused: many seeded faults, one upon
the other. Then everything is whole again, and both ends are compared: what the boards said that they have on flash, and
what the platform was handed.

A seed repeats which faults come in which order and how strong they are; when exactly they meet the processes is the
machine's timing.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.enrolled import Awaited, EnrolledBoard, compared, enrolled_boards, wires
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.parts import GATEWAY, GatewayProcess
from tests.gateway.street import Platform
from tests.servers import Mosquitto

from laterne_emulator.flash import Cut, Torn
from laterne_emulator.line import Line, LineFaults
from laterne_emulator.proxy import DOWN, PUBACK, PUBLISH, UP, Do, Packet, Proxy

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps
    from laterne_emulator.sweep import Case

RUNS = 2
BOARDS = 4
FAULTS_S = 12.0
SETTINGS = {"report_s": 1, "sample_ms": 200}
CUT_WITHIN = 12  # flash operations; a report costs one to some
CUT_WITHIN_S = 3.0  # a board that is not writing loses its power all the same
STARTS_WITHIN_S, DRAINS_WITHIN_S = 60.0, 40.0  # bounds for what would hang


class Trouble:
    """Who makes the faults of a run. Each has dice of its own, so that none depends on how fast the others are."""

    def __init__(self, case: "Case", bench: "Bench", gateway: GatewayProcess, proxy: Proxy) -> None:
        self._case = case
        self._bench = bench
        self._gateway = gateway
        self._proxy = proxy
        self.done: Counter[str] = Counter()

    async def last(self, seconds: float) -> None:
        """Faults come for so long; then everything is whole: powered, plugged in, quiet, the gateway just started."""
        makers: list[Callable[[random.Random], Awaitable[str]]] = [
            *(partial(self._power, name) for name in self._bench.boards),
            *(partial(self._line, line) for line in dict.fromkeys(self._bench.lines.values())),
            self._kill,
            self._way,
        ]
        tasks = [asyncio.create_task(self._again(number, make)) for number, make in enumerate(makers)]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for one in ended:
            if not isinstance(one, asyncio.CancelledError):
                raise one
        for line in dict.fromkeys(self._bench.lines.values()):
            _whole(line)
        for board in self._bench.boards.values():
            board.flash.cut_power(None)
            if not board.powered:
                await board.power_on()
        self._proxy.refusing, self._proxy.rule = False, lambda packet: Do.PASS
        await self._gateway.kill()  # its pauses may have grown long
        await self._gateway.start()

    async def _again(self, number: int, make: Callable[[random.Random], Awaitable[str]]) -> BaseException:
        dice = random.Random(f"{self._case.seed} {number}")
        while True:
            await asyncio.sleep(dice.uniform(0.2, 2.0))
            self.done[await make(dice)] += 1

    async def _power(self, name: str, dice: random.Random) -> str:
        board = self._bench.boards[name]
        what = dice.choice(["cut", "cut", "cut", "power off", "reset"])
        if what == "reset":
            board.reset()
            return "board reset"
        if what == "cut":
            torn = dice.choice(list(Torn))
            board.flash.cut_power(Cut(dice.randrange(CUT_WITHIN), torn, dice.randrange(1 << 32)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_WITHIN_S):
                    await board.wait_until_down()
        what = "board power off" if board.powered else "board power cut at an operation"
        await board.power_off()
        await asyncio.sleep(dice.uniform(0.0, 0.5))
        await board.power_on()
        return what

    async def _line(self, line: Line, dice: random.Random) -> str:
        what = dice.choice(["noise", "loss", "frames twice", "splitting", "unplugged"])
        if what == "noise":
            line.faults.bit_errors = 10 ** dice.uniform(-4.5, -2.8)
        elif what == "loss":
            line.faults.lost = 10 ** dice.uniform(-4.0, -2.2)
        elif what == "frames twice":
            line.faults.frames_doubled = dice.uniform(0.1, 0.9)
        elif what == "splitting":
            line.faults.split = True
        else:
            line.unplug()
        await asyncio.sleep(dice.uniform(0.1, 1.5))
        _whole(line)
        return f"line {what}"

    async def _kill(self, dice: random.Random) -> str:
        await asyncio.sleep(dice.uniform(0.5, 3.0))
        await self._gateway.kill()
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        await self._gateway.start()
        return "gateway killed"

    async def _way(self, dice: random.Random) -> str:
        do = dice.choice([None, Do.CUT, Do.CUT_AFTER, Do.CUT_INSIDE, Do.STALL])
        if do is None:
            self._proxy.refusing = True
            await self._proxy.cut_all()
        else:
            meets = dice.choice([(UP, PUBLISH), (DOWN, PUBACK)])
            self._proxy.rule = partial(_whenever, meets, do)
        await asyncio.sleep(dice.uniform(0.2, 1.5))
        self._proxy.refusing, self._proxy.rule = False, lambda packet: Do.PASS
        return f"way {do.value if do else 'refused'}"


def _whenever(meets: tuple[str, int], do: Do, packet: Packet) -> Do:
    return do if (packet.way, packet.kind) == meets else Do.PASS


def _whole(line: Line) -> None:
    line.faults = LineFaults()
    line.plug()


async def _run(trouble: Trouble, bench: "Bench", gateway: GatewayProcess, platform: Platform,
               boards: list[EnrolledBoard]) -> dict[str, dict[int, bytes]]:  # fmt: skip
    """What the boards had told when everything was whole again: that has to arrive, they go on."""
    async with asyncio.timeout(STARTS_WITHIN_S):
        await asyncio.gather(gateway.start(), bench.power_on())
        await platform.until(lambda: all(platform.delivered[board.name] for board in boards))
    await trouble.last(FAULTS_S)
    told = {board.name: board.told() for board in boards}
    with contextlib.suppress(TimeoutError):  # the coordinator says what is missing
        async with asyncio.timeout(DRAINS_WITHIN_S):
            await platform.until(Awaited(platform.delivered, told).arrived)
    return told


async def test_whatever_fails_together_no_report_is_lost(
    tmp_path: Path, broker: Mosquitto, emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    done: Counter[str] = Counter()
    for case in fault_sweep("all at once", quick=RUNS):
        with case:
            authority = FakeAuthority(GATEWAY)
            names = [f"{case.name}-{number}" for number in range(1, BOARDS + 1)]
            bus = bool(case.number % 2)
            bench, boards = await enrolled_boards(emulated_boards, authority, names, SETTINGS, bus=bus)
            directory = tmp_path / case.name
            directory.mkdir()
            lines = wires(directory, bench, boards, bus=bus)
            async with Platform(broker) as platform, Proxy(broker.port) as proxy:
                gateway = GatewayProcess(directory, boards, lines, proxy, authority)
                try:
                    trouble = Trouble(case, bench, gateway, proxy)
                    told = await _run(trouble, bench, gateway, platform, boards)
                    await bench.power_off()
                    assert await gateway.stop() == 0
                finally:
                    await gateway.end()
            done += trouble.done
            outcome = compared(boards, platform.delivered, told)
            case.survived(**outcome.counts)
            outcome.check()
            assert "Traceback" not in gateway.said(), gateway.said()
            assert "set aside" not in gateway.said(), gateway.said()
    print(dict(done))
    assert done["board power cut at an operation"]
    assert done["gateway killed"]
