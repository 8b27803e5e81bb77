"""A city's platform for the tests of routes: a real SensorThings server, its database, and a gateway that delivers."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GATEWAY, Parts, until

from laterne_emulator.sensorthings_server import NoServer, SensorThingsServer
from laterne_gateway import dead_letters
from laterne_gateway.buffered import Accepted
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.config import MqttSettings
from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.route_settings import CivitasSettings, RouteSettings, SensorThingsSettings
from laterne_gateway.routes import beside, sensorthings, sta_queues
from laterne_gateway.routes.civitas import CivitasRoute
from laterne_gateway.routes.sensorthings import SensorThingsRoute
from laterne_gateway.routes.source import Source

ROUTE = "city"
HELD = "observations refused, and nothing taken since"
Key = tuple[str, int, int]  # an observation of these tests: board, sequence, position
T0_MS = 1_795_000_000_250  # 2026-11-18
MINUTE_MS = 60_000
_made: dict[bool, Path] = {}
_making = threading.Lock()
_numbers = count(1)


def sensorthings_server(directory: Path, *, is_strict: bool) -> SensorThingsServer:
    """A server with empty tables that is not started yet. Tables are made once and copied: that takes 2 s."""
    try:
        server = SensorThingsServer(directory / "platform", is_strict=is_strict)
    except NoServer as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    with _making:
        kept = _made.get(is_strict)
        if kept is not None and kept.exists():
            server.database.parent.mkdir(parents=True)
            shutil.copy(kept, server.database)
        server.make()
        if kept is None or not kept.exists():
            _made[is_strict] = directory / "empty.sqlite3"
            shutil.copy(server.database, _made[is_strict])
    return server


def boards(how_many: int = 1) -> list[FakeBoard]:
    """Boards that no other test has."""
    return [FakeBoard(f"LE-{next(_numbers):04d}", number + 1) for number in range(how_many)]


@contextlib.contextmanager
def served(directory: Path, *, is_strict: bool) -> Iterator[SensorThingsServer]:
    """A server that runs meanwhile. is_strict: it takes one observation of a time, the other form all."""
    server = sensorthings_server(directory, is_strict=is_strict)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sensorthings route: as short as tests need them."""
    monkeypatch.setattr(sensorthings, "BASE_S", 0.05)
    monkeypatch.setattr(sensorthings, "CAP_S", 0.2)
    monkeypatch.setattr(sta_queues, "REST_S", 0.02)
    monkeypatch.setattr(sta_queues, "REST_CAP_S", 0.1)
    monkeypatch.setattr(beside, "LOOK_EVERY_S", 0.05)


@dataclass(frozen=True)
class Observed:
    """A row of the platform's database. at: its text there. position: in the report's column."""

    datastream: str
    at: str  # UTC
    value: float
    sequence: int
    position: int
    parameters: dict[str, object]
    quality: dict[str, object]


def stored(server: SensorThingsServer, board: str) -> list[Observed]:
    """Every observation of a board in its database, looked at from beside."""
    table = "sensorthings_v1_1_django_backend_"
    db = sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)
    try:
        rows = db.execute(
            f"select d.name, o.phenomenon_time_begin, o.result, o.parameters, o.result_quality "
            f"from {table}observation o join {table}datastream d on d.id = o.datastream_id order by o.rowid"
        ).fetchall()
    finally:
        db.close()
    found = []
    for name, at, value, parameters, quality in rows:
        said = json.loads(parameters)
        if said["board"] != board:
            continue
        found.append(
            Observed(name, at, float(value), said["sequence"], said["position"], said, json.loads(quality or "{}"))
        )
    return found


def dead_key(letter: DeadLetter) -> Key:
    return letter.board, letter.sequence, int(letter.place.rpartition("/")[2])


class City:
    """A gateway's buffer, roster and a sensorthings route that delivers from it, while delivering() is open.

    look_every_s: more in a fast loop, whose time stands still while one looks.
    """

    def __init__(self, parts: Parts, url: str, boards: list[FakeBoard]) -> None:
        self.look_every_s = 0.01
        self.parts = parts
        self.url = url
        self.boards = boards
        self.values: dict[Key, float] = {}  # what must arrive
        self.times: dict[Key, str] = {}

    async def put(self, board: FakeBoard, count: int, readings: int = 4) -> None:
        """So many reports of a minute each are in the buffer, with their times."""
        chain = self.parts.buffer.chains.get(board.name)
        first = 1 + (chain.sequence if chain else 0)
        made = []
        for sequence in range(first, first + count):
            board.utc_ms = T0_MS + sequence * MINUTE_MS
            made.append(self.accepted(board, sequence, readings=readings))
            for position in range(readings):
                self.values[board.name, sequence, position] = (2150 + position % 7) / 100
                at_ms = board.utc_ms - 5 - 1000 * (readings - 1 - position)
                self.times[board.name, sequence, position] = rfc3339(at_ms).replace("T", " ").removesuffix("Z")
        await asyncio.gather(*(self.parts.buffer.put(one) for one in made))

    async def put_report(self, board: FakeBoard, sequence: int, *, gaps: list[list[int]] | None = None) -> None:
        """A report with the board's time, if it has one."""
        await self.parts.buffer.put(self.accepted(board, sequence, gaps=gaps))

    def accepted(
        self, board: FakeBoard, sequence: int, *, readings: int = 4, gaps: list[list[int]] | None = None
    ) -> Accepted:
        body, digest = board.make(sequence, b"p" * 16, readings=readings, gaps=gaps)
        chain = self.parts.buffer.chains.get(board.name)
        follows = chain.sequence if gaps and chain else sequence - 1 or None
        return Accepted(
            board.name, sequence, digest, board.credential_digest, follows, board.utc_ms, board.utc_ms, body
        )

    def route(self, **settings: object) -> SensorThingsRoute:
        said = SensorThingsSettings(ROUTE, self.url, **settings)  # type: ignore[arg-type]  # a test names fields as they are
        return SensorThingsRoute(said, self.source(said))

    def source(self, settings: RouteSettings, gateway: str = GATEWAY) -> Source:
        """For a route of a gateway with this id."""
        it = self.parts
        return Source(replace(it.settings, id=gateway), settings, it.buffer, it.roster, it.clock, it.health, it.dates)

    @contextlib.asynccontextmanager
    async def delivering(self, **settings: object) -> AsyncIterator[SensorThingsRoute]:
        route = self.route(**settings)
        task = asyncio.create_task(route.run())
        try:
            yield route
        finally:
            task.cancel()
            outcome = await asyncio.gather(task, return_exceptions=True)
            if isinstance(outcome[0], Exception):
                raise outcome[0]

    async def delivered(self) -> None:
        """Waits until the route has nothing left."""
        await until(lambda: not self.parts.buffer.waiting(ROUTE), self.look_every_s)

    async def delivered_as_boards_go_on(self) -> None:
        """As delivered(). Where something waits to be judged (routes/blame.py) each board closes another report."""
        while self.parts.buffer.waiting(ROUTE):
            former = self.counted(HELD)
            await until(
                lambda: not self.parts.buffer.waiting(ROUTE) or self.counted(HELD) > former,  # noqa: B023 - awaited
                self.look_every_s,
            )
            for board in self.boards if self.parts.buffer.waiting(ROUTE) else ():
                await self.put(board, 1, 2)

    async def delivered_counts(self, what: str, count: int) -> None:
        """Waits until the route has counted so many of something."""
        await until(lambda: self.counted(what) >= count, self.look_every_s)

    def counted(self, what: str) -> int:
        return self.parts.health.counted(f"route {ROUTE}", what)

    def alarms(self) -> list[str]:
        found = self.parts.health.snapshot().get(f"route {ROUTE}", {}).get("alarms", [])
        assert isinstance(found, list)
        return found

    async def dead(self) -> list[DeadLetter]:
        found = await self.parts.buffer.read(lambda db, _: dead_letters.rows(db, ROUTE))
        assert isinstance(found, list)
        return found

    def counts(self, found: list[Key], refused: set[Key], dead: list[DeadLetter]) -> dict[str, int]:
        """As Case.survived() wants them. found: what the platform has. refused: what it takes in no case."""
        wanted = set(self.values) - refused
        return {
            "sent": len(self.values),
            "delivered": len(set(found) & wanted),
            "lost": len(wanted - set(found)),
            "repeated": len(found) - len(set(found)),
            "dead": len({dead_key(one) for one in dead} & refused),
        }

    def check(self, server: SensorThingsServer, *without: Key) -> None:
        """Every observation is there, once, with its value and time, but for these."""
        for board in self.boards:
            found = stored(server, board.name)
            keys = [(board.name, one.sequence, one.position) for one in found]
            wanted = {key for key in self.values if key[0] == board.name} - set(without)
            assert len(keys) == len(set(keys)), "stored twice"
            assert set(keys) == wanted
            for key, one in zip(keys, found, strict=True):
                assert one.value == self.values[key]
                assert one.at.startswith(self.times[key])
                assert one.quality == {"nameOfMeasure": "QARTOD", "DQ_Result": {"code": "1"}}


@contextlib.asynccontextmanager
async def civitas(
    here: City,
    port: int,
    *,
    gateway: str = GATEWAY,
    in_flight: int = 20,
    host: str = "127.0.0.1",
    password_file: Path | None = None,
    **settings: Any,
) -> AsyncIterator[CivitasRoute]:
    """A civitas route delivers from this gateway's buffer to a broker meanwhile. gateway: its id at the broker."""
    mqtt = MqttSettings(host, port, False, None, password_file, None, None, None, in_flight)
    said = CivitasSettings(ROUTE, mqtt, **settings)
    route = CivitasRoute(said, here.source(said, gateway))
    task = asyncio.create_task(route.run())
    try:
        yield route
    finally:
        task.cancel()
        outcome = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome[0], Exception):
            raise outcome[0]


@contextlib.asynccontextmanager
async def city(directory: Path, url: str, *boards: FakeBoard, clock: Clock | None = None) -> AsyncIterator[City]:
    """Boards without a place: the roster of these tests names none."""
    parts = Parts(directory, list(boards), clock=clock)
    parts.routes = (ROUTE,)
    await parts.open()
    try:
        yield City(parts, url, list(boards))
    finally:
        await parts.buffer.close()
