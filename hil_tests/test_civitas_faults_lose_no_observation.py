"""P1 at CIVITAS/CORE's broker: whatever it or the way to it does, every observation arrives, or is a dead letter.

A gateway's buffer and route deliver through a proxy to a real mosquitto, in fast time; a subscriber keeps what the
platform would hear. In each third case the gateway ends amid it and is put together again from its disk. QoS 1 may
bring an envelope twice, and each observation bears what tells: after removal by (board, sequence, digest, position)
each is there once, with one value and one time.
"""

import asyncio
import json
import random
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.platform import City, Key, city, civitas, dead_key
from tests.gateway.street import LoopClock
from tests.servers import Mosquitto

from laterne_emulator.fast_time import FastLoop
from laterne_emulator.proxy import DOWN, PUBACK, PUBLISH, UP, Answer, Do, Instead, Packet, Proxy, refusal
from laterne_emulator.proxy import topic_and_payload as told_by
from laterne_emulator.sweep import at_once

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

CASES = 8  # of a fault
SPEED = 100.0  # the route takes a broker for gone after 60 s without a PUBACK
WITHIN_S = 1200.0  # a bound for what would hang, in fast time
BROKER_TAKES_BYTES = 2000  # the short broker's largest message: five observations or so
NOT_NOW = (0x80, 0x87, 0x90, 0x97)  # unspecified, not authorized, topic name invalid, quota exceeded: not its content
CONTENT = (0x83, 0x99)
Rule = Callable[[Packet], Do | Answer | Instead]


class Heard:
    """The subscriber of all cases: observations as they came, by board."""

    def __init__(self, broker: Mosquitto) -> None:
        self.broker = broker
        self.observations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.longest = 0

    async def run(self, ready: asyncio.Event) -> None:
        async with aiomqtt.Client(
            "127.0.0.1",
            self.broker.port,
            protocol=aiomqtt.ProtocolVersion.V5,
            timeout=600,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        ) as client:
            await client.subscribe("sensors/sta", qos=1)
            ready.set()
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                self.longest = max(self.longest, len(message.payload))
                for one in json.loads(message.payload)["observations"]:
                    self.observations[one["parameters"]["board"]].append(one)


class Plan:
    """What happens to the packets of a case. refused: what the platform's broker takes in no case."""

    def __init__(self, dice: random.Random, boards: list[FakeBoard]) -> None:
        self.dice = dice
        self.boards = boards
        self.refused: set[Key] = set()
        self.happened = 0

    def rule_of(self, fault: str) -> Rule:
        rule: Rule = getattr(self, fault.replace(" ", "_").replace(",", ""))()

        def counted(packet: Packet) -> Do | Answer | Instead:
            do = rule(packet)
            self.happened += do is not Do.PASS
            return do

        return counted

    def _at(self, way: str, kind: int, last: int, choices: tuple[Do, ...]) -> Rule:
        at = {self.dice.randrange(last): self.dice.choice(choices) for _ in range(self.dice.randrange(1, 4))}
        return lambda packet: at.get(packet.number, Do.PASS) if (packet.way, packet.kind) == (way, kind) else Do.PASS

    def away(self) -> Rule:
        return lambda packet: Do.PASS  # run() refuses connections

    def slow(self) -> Rule:
        return self._at(self.dice.choice((UP, DOWN)), self.dice.choice((PUBLISH, PUBACK)), 4, (Do.SLOW,))

    def stalled(self) -> Rule:
        way, kind = self.dice.choice(((UP, PUBLISH), (DOWN, PUBACK)))
        return self._at(way, kind, 4, (Do.STALL,))

    def cut_amid_a_message(self) -> Rule:
        way, kind = self.dice.choice(((UP, PUBLISH), (UP, PUBLISH), (DOWN, PUBACK)))
        return self._at(way, kind, 6, (Do.CUT_INSIDE, Do.CUT_INSIDE, Do.CUT, Do.CUT_AFTER))

    def stored_then_silence(self) -> Rule:
        return self._at(DOWN, PUBACK, 6, (Do.SWALLOW,))

    def refused_for_now(self) -> Rule:
        """As 5xx, 401 and 429: some messages are refused, and the same ones are taken later."""
        left, is_done = [self.dice.randrange(1, 6)], self.dice.random() < 0.5

        def rule(packet: Packet) -> Do | Answer | Instead:
            meant = (DOWN, PUBACK) if is_done else (UP, PUBLISH)
            if (packet.way, packet.kind) != meant or not left[0] or self.dice.random() < 0.3:
                return Do.PASS
            left[0] -= 1
            said = refusal(packet, self.dice.choice(NOT_NOW))
            return Instead(said) if is_done else Answer(said)

        return rule

    def one_row_refused(self) -> Rule:
        for board in self.boards:
            self.refused |= {
                (board.name, self.dice.randrange(1, 5), self.dice.randrange(2))
                for _ in range(self.dice.choice((0, 1, 2)))
            }
        self.refused.add((self.boards[0].name, 2, 1))
        reason = self.dice.choice(CONTENT)

        def rule(packet: Packet) -> Do | Answer | Instead:
            if (packet.way, packet.kind) != (UP, PUBLISH):
                return Do.PASS
            said = json.loads(told_by(packet)[1])["observations"]
            return Answer(refusal(packet, reason)) if self.refused & set(map(key_of, said)) else Do.PASS

        return rule

    def too_long_as_announced(self) -> Rule:
        """This broker says in its CONNACK how long a packet may be, and hangs up at a longer one."""

        def rule(packet: Packet) -> Do | Answer | Instead:
            if packet.way == UP and packet.kind == PUBLISH:
                assert len(packet.data) <= BROKER_TAKES_BYTES
                self.happened += 1
            return Do.PASS

        return rule

    def too_long(self) -> Rule:
        """This broker itself refuses what has more than BROKER_TAKES_BYTES, by a PUBACK with 0x95."""

        def rule(packet: Packet) -> Do | Answer | Instead:
            if packet.way == DOWN and packet.kind == PUBACK and packet.data[-1:] == b"\x95":
                self.happened += 1
            return Do.PASS

        return rule


FAULTS = (
    "away",
    "slow",
    "stalled",
    "refused for now",
    "one row refused",
    "too long",
    "too long, as announced",
    "stored, then silence",
    "cut amid a message",
)


def key_of(one: dict[str, Any]) -> Key:
    parameters = one["parameters"]
    return parameters["board"], parameters["sequence"], parameters["position"]


@pytest.fixture
def brokers(broker: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Mosquitto]]:
    """By fault, "" for all others."""
    short = f"max_queued_messages 1000\nmessage_size_limit {BROKER_TAKES_BYTES}\n"
    announcing = f"max_packet_size {BROKER_TAKES_BYTES}\n"
    made = {
        fault: Mosquitto(tmp_path_factory.mktemp("mosquitto"), f"set_tcp_nodelay true\n{extra}")
        for fault, extra in (("too long", short), ("too long, as announced", announcing))
    }
    for one in made.values():
        one.start()
    yield {"": broker, **made}
    for one in made.values():
        one.stop()


async def run(memory: Path, heard: Heard, happened: Counter[str], fault: str, case: "Case") -> None:
    dice = case.dice
    boards = [FakeBoard(f"c-{FAULTS.index(fault)}-{case.number}-{n}", n) for n in range(1, dice.choice((2, 3)))]
    plan = Plan(dice, boards)
    place = memory / case.name
    place.mkdir()
    async with Proxy(heard.broker.port) as proxy, asyncio.timeout(WITHIN_S):
        proxy.rule = plan.rule_of(fault)
        async with city(place, "", *boards, clock=LoopClock()) as here:
            here.look_every_s = 1.0
            for board in boards:
                await here.put(board, dice.randrange(4, 16), dice.randrange(2, 20))
            # A name of its own: brokers throw out who comes with another's.
            delivering = partial(civitas, here, proxy.port, gateway=case.name, in_flight=dice.choice((2, 20)))
            if dice.random() < 0.34:
                async with delivering():
                    await here.delivered_counts("observations delivered", 1)
                await here.parts.reopen()
            async with delivering():
                if fault == "away":
                    await here.delivered_counts("observations delivered", 1)
                    proxy.refusing = True
                    plan.happened += 1
                    await proxy.cut_all()
                for board in boards:
                    await here.put(board, dice.randrange(4), 3)
                if fault == "away":
                    await here.delivered_counts("connections ended", dice.randrange(1, 4))
                    proxy.refusing = False
                await here.delivered_as_boards_go_on()
                happened[fault] += plan.happened
                await judge(here, heard, plan, case)


async def judge(here: City, heard: Heard, plan: Plan, case: "Case") -> None:
    letters = await here.dead()
    wanted = set(here.values) - plan.refused

    def all_heard() -> bool:
        return wanted <= {key_of(one) for board in here.boards for one in heard.observations[board.name]}

    while not all_heard():  # noqa: ASYNC110 - what was acknowledged is on its way to the subscriber
        await asyncio.sleep(1.0)
    came = [one for board in here.boards for one in heard.observations[board.name]]
    different = {json.dumps(one, sort_keys=True) for one in came}
    keys = [key_of(json.loads(one)) for one in different]
    case.survived(**here.counts(keys, plan.refused, letters), again=len(came) - len(different))
    assert len(keys) == len(set(keys)), "twice, and not the same"
    assert set(keys) == wanted
    assert {dead_key(one) for one in letters} == plan.refused
    assert {key_of(one): one["result"] for one in came} == {key: here.values[key] for key in wanted}
    while [one for one in here.alarms() if "dead list" not in one]:  # noqa: ASYNC110 - over when it is over
        await asyncio.sleep(1.0)


def test_every_observation_arrives_whatever_happens_to_a_packet(
    brokers: dict[str, Mosquitto], memory: Path, fault_sweep: "FaultSweeps"
) -> None:
    happened: Counter[str] = Counter()

    async def sweep() -> None:
        heard = {fault: Heard(broker) for fault, broker in brokers.items()}
        ready = [asyncio.Event() for _ in heard]
        listening = [asyncio.create_task(one.run(event)) for one, event in zip(heard.values(), ready, strict=True)]
        await asyncio.gather(*(event.wait() for event in ready))
        try:
            async with asyncio.TaskGroup() as group:
                for fault in FAULTS:
                    cases = fault_sweep(f"civitas: {fault}", quick=CASES)
                    at = heard.get(fault, heard[""])
                    group.create_task(at_once(cases, 2, partial(run, memory, at, happened, fault)))
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
        for fault, one in heard.items():
            assert one.longest <= (BROKER_TAKES_BYTES if fault else 8000)

    with asyncio.Runner(loop_factory=lambda: FastLoop(SPEED)) as runner:
        runner.run(sweep())
    print(dict(happened))
    assert all(happened[fault] for fault in FAULTS) or fault_sweep("civitas: away").is_one, "a fault never happened"
