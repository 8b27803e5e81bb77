"""P1 at a platform that gateways share: what they need there is made once, and no observation goes with the rest.

Two gateways provision one real server (django-ogc-sensorthings), for two boards or, as when a board was moved, for the
same one. One request at a time is served, in the order that a case wants: k of the first gateway, m of the second, j of
the first, then those of the second and what is left. The first may be killed after its k, before the next request or
after the server has done it, and is started again. Each sends observations as soon as it has its Datastream. The
server's ids ascend. In a third of the cases they seem to descend, which is worse than two transactions that become
visible in the other order.

A quick run has the cases in which both have looked for an entity before either has made it; `make soak` has more of all
others. Compared is the server's database.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import chain, product, repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.faulty_way import CUT_BODY, PASS, REFUSE, FaultyWay, Request
from tests.gateway.parts import Parts, parts
from tests.gateway.platform import served

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_emulator.sweep import at_once
from laterne_gateway.health import Health
from laterne_gateway.route_settings import SensorThingsSettings
from laterne_gateway.routes.sta_entities import Entities
from laterne_gateway.routes.sta_server import AwayError, FailedError, RefusedError, Server

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import FaultSweeps
    from laterne_emulator.sweep import Case

NEEDS = 24  # requests of a gateway that finds nothing: 22 for its entities, and its observations
MAKES = {2: "Locations", 5: "Things", 9: "Sensors", 12: "ObservedProperties", 15: "Datastreams"}  # which of them
HUNG = 4  # requests, from an ObservedProperty that is made to a Datastream that hangs on it and was not looked at again
OBSERVATIONS = 2
BOARDS = FakeBoard("LE-0001", 1), FakeBoard("LE-0002", 2)
CHANNEL = 0
FIRST, SECOND = "first", "second"
WITHIN_S = 60.0  # a bound for what would hang
TABLE = "sensorthings_v1_1_django_backend_"


class Way(NamedTuple):
    """What happens in a case. killed: "", or the first is killed "before" its request k or "after" it was done."""

    k: int
    m: int
    j: int
    killed: str
    same_board: bool
    ids_descend: bool


TWO_BOARDS, DESCENDING, SAME_BOARD = (False, False), (False, True), (True, False)
TOGETHER = [
    Way(at, m, j, killed, *kind)
    for at, collection in MAKES.items()
    for kind in (TWO_BOARDS, DESCENDING, SAME_BOARD)
    if kind == SAME_BOARD or collection == "ObservedProperties"  # which is all that two boards share
    for m, j, killed in product((at, at + 1, NEEDS), (2, HUNG, NEEDS), ("", "after"))
    if kind != SAME_BOARD or (j == NEEDS and (m != NEEDS or killed))
]
OTHERS = [
    way
    for k, m, j, killed, kind in product(
        range(NEEDS), range(NEEDS), (1, 2, HUNG, NEEDS), ("", "before", "after"), (TWO_BOARDS, DESCENDING, SAME_BOARD)
    )
    if (way := Way(k, m, j, killed, *kind)) not in TOGETHER
]
random.Random(1).shuffle(OTHERS)
WAYS = TOGETHER + OTHERS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    with served(tmp_path_factory.mktemp("city"), is_strict=False) as made:
        yield made


class Gateway:
    """What of a gateway provisions a board. Each process() is a new one, which knows nothing of those before."""

    def __init__(self, name: str, board: str, way: FaultyWay, around: Parts, prefix: str) -> None:
        self.name = name
        self.way = way
        self.taken: list[str] = []  # observations that the server has acknowledged
        self.alarms: list[str] = []
        self._board = board
        self._around = around
        self._prefix = prefix
        self._processes = 0

    async def process(self) -> None:
        """It has its Datastream, and has sent observations. Raises AwayError: it was killed."""
        server, health = Server(SensorThingsSettings("city", self.way.url)), Health()
        self._processes += 1
        wanted = [f"{self._prefix}{self.name}/{self._processes}/{number}" for number in range(OBSERVATIONS)]
        async with server.connected():
            entities = Entities("route", self._around.settings, self._prefix, server, self._around.roster, health)
            while wanted:
                try:
                    datastream = await entities.datastream(self._board, CHANNEL)
                    said = {"result": 1.5, "phenomenonTime": "2026-11-22T10:00:00Z", "parameters": {"mark": wanted[0]}}
                    await server.post("Observations", said | {"Datastream": {"@iot.id": datastream}})
                except (AwayError, FailedError, RefusedError) as why:
                    if isinstance(why, AwayError) and why.status is None:
                        raise
                    entities.forget(self._board, CHANNEL)  # it has gone: the route looks for it anew, too
                else:
                    self.taken.append(wanted.pop(0))
        alarms = health.snapshot().get("route", {}).get("alarms", [])
        assert isinstance(alarms, list)
        self.alarms = [one for one in alarms if "no coordinates" not in one]

    async def killed(self, k: int, when: str) -> None:
        """It is killed before its request k, or after that was done, and started again."""
        begun = len(self.way.requests)

        def rule(request: Request) -> str:
            if when == "after" and request.number == begun + k:
                return CUT_BODY
            return PASS if request.number < begun + k else REFUSE

        self.way.rule = rule
        with contextlib.suppress(AwayError):
            await self.process()
        self.way.rule = lambda request: PASS
        await self.process()


class Turns:
    """Whose request is served next: those of whom `order` tells, one after the other. Who has left is passed over."""

    def __init__(self, order: Iterator[str]) -> None:
        self._order = order
        self._wanted = next(order)
        self._left: set[str] = set()
        self._news = asyncio.Condition()

    def of(self, name: str) -> Callable[[], contextlib.AbstractAsyncContextManager[None]]:
        @contextlib.asynccontextmanager
        async def is_next() -> AsyncIterator[None]:
            async with self._news:
                await self._news.wait_for(lambda: self._wanted == name or self._wanted in self._left)
                try:
                    yield
                finally:
                    self._wanted = next(self._order)
                    self._news.notify_all()

        return is_next

    async def leave(self, name: str) -> None:
        async with self._news:
            self._left.add(name)
            self._news.notify_all()


async def run(server: SensorThingsServer, around: Parts, case: "Case") -> None:
    way = WAYS[case.number % len(WAYS)]
    prefix = f"{case.number}/"
    async with (
        asyncio.timeout(WITHIN_S),
        FaultyWay(server, ids_descend=way.ids_descend).open() as one,
        FaultyWay(server, ids_descend=way.ids_descend).open() as other,
    ):
        first = Gateway(FIRST, "LE-0001", one, around, prefix)
        second = Gateway(SECOND, "LE-0001" if way.same_board else "LE-0002", other, around, prefix)
        turns = Turns(chain(repeat(FIRST, way.k), repeat(SECOND, way.m), repeat(FIRST, way.j), repeat(SECOND)))

        async def work(gateway: Gateway) -> None:
            gateway.way.is_next = turns.of(gateway.name)
            if gateway is first and way.killed:
                await gateway.killed(way.k, way.killed)
            else:
                await gateway.process()
            await turns.leave(gateway.name)

        async with asyncio.TaskGroup() as group:
            group.create_task(work(first))
            group.create_task(work(second))
        if way.ids_descend:
            # It is settled when who was done before the lower one came has looked again, and nobody is worried when he
            # has seen that. With HUNG the first was not done.
            for gateway in (second,) if (way.j, way.m) == (HUNG, way.k) else (first, second, first, second):
                await gateway.process()
        judge(server, prefix, first, second)
        case.survived()


def judge(server: SensorThingsServer, prefix: str, *gateways: Gateway) -> None:
    """Each entity is there once, and so is each observation that was acknowledged; nobody is worried."""
    db = sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)
    try:
        for table in ("thing", "location", "sensor", "observedproperty", "datastream"):
            twice = db.execute(
                "select json_extract(properties, '$.reference') as reference, count(*) "
                f"from {TABLE}{table} where reference like ? group by reference having count(*) > 1",
                (f"{prefix}%",),
            ).fetchall()
            assert twice == [], table
        query = f"select json_extract(parameters, '$.mark') as mark from {TABLE}observation where mark like ?"
        marks = [mark for (mark,) in db.execute(query, (f"{prefix}%",))]
    finally:
        db.close()
    assert {mark for one in gateways for mark in one.taken} <= set(marks), "an observation is gone"
    assert [alarm for one in gateways for alarm in one.alarms] == []


async def test_each_entity_is_made_once_wherever_gateways_stop_or_die(
    tmp_path: Path, server: SensorThingsServer, fault_sweep: "FaultSweeps"
) -> None:
    async with parts(tmp_path, *BOARDS) as around:
        await at_once(fault_sweep("entities of a platform", quick=len(TOGETHER)), 2, partial(run, server, around))


async def test_a_gateway_alone_needs_as_many_requests_as_the_cases_reckon_with(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    async with parts(tmp_path, *BOARDS) as around, FaultyWay(server).open() as way:
        await Gateway("alone", "LE-0001", way, around, "alone/").process()
        assert len(way.requests) == NEEDS
        posts = {one.number: one.path.rpartition("/")[2] for one in way.requests if one.method == "POST"}
        assert posts == MAKES | {NEEDS - 2: "Observations", NEEDS - 1: "Observations"}
