"""A city's platform for the tests of routes: a real SensorThings server, a faulty way to it, and its database."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GATEWAY, Parts, until

from laterne_emulator.sensorthings_server import PATH, NoServer, SensorThingsServer
from laterne_gateway import dead_letters
from laterne_gateway.buffered import Accepted
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.config import MqttSettings
from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.route_settings import CivitasSettings, SensorThingsSettings
from laterne_gateway.routes import beside, sensorthings, sta_queues
from laterne_gateway.routes.civitas import CivitasRoute
from laterne_gateway.routes.sensorthings import SensorThingsRoute

ROUTE = "city"
Key = tuple[str, int, int]  # an observation of these tests: board, sequence, position
T0_MS = 1_795_000_000_250  # 2026-11-18
MINUTE_MS = 60_000
_IDENTIFIER = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_OTHER_WAY_ROUND = bytes.maketrans(b"0123456789abcdef", b"fedcba9876543210")

_made: dict[bool, Path] = {}
_making = threading.Lock()


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


@dataclass(frozen=True)
class Request:
    """number: how many came before it, of all kinds. creates: whether it sends observations."""

    number: int
    method: str
    path: str
    body: bytes
    creates: bool


# What happens to a request.
PASS, REFUSE, SLOW, SWALLOW, CUT_BODY = "pass", "refuse", "slow", "swallow", "cut body"


@dataclass(frozen=True)
class Done:
    """The platform has done it, and this status is the answer."""

    status: int


@dataclass(frozen=True)
class Says:
    """The platform hears nothing of it: this is the answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class FaultyWay:
    """An HTTP server in front of the platform. rule: what happens to each request: one of the above, or a status.

    SLOW: the answer comes in small pieces. SWALLOW: the platform has done it, the answer never comes. CUT_BODY: the
    platform has done it, half of the answer comes. REFUSE: it is reset before. A status: it says so itself.

    is_next: waits until a request may be served. ids_descend: each entity seems to have a lower id than former ones.
    """

    def __init__(self, server: SensorThingsServer, *, ids_descend: bool = False) -> None:
        self._server = server
        self._shown = _turned if ids_descend else bytes
        self.rule: Callable[[Request], str | int | Done | Says] = lambda request: PASS
        self.is_next: Callable[[], contextlib.AbstractAsyncContextManager[None]] = contextlib.nullcontext
        self.requests: list[Request] = []
        self.most_together = 0  # requests with observations of one Datastream
        self._together: Counter[str] = Counter()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["FaultyWay"]:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
            async with ClientSession(timeout=ClientTimeout(total=60)) as self._session:
                await web.SockSite(runner, listening).start()
                try:
                    yield self
                finally:
                    await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        creates = request.method == "POST" and request.path.endswith("Observations")
        one = Request(len(self.requests), request.method, request.path_qs, body, creates)
        self.requests.append(one)
        async with self.is_next():
            return await self._serve(request, one)

    async def _serve(self, request: web.Request, one: Request) -> web.StreamResponse:
        what = self.rule(one)
        if what == REFUSE:
            return self._reset(request)
        if isinstance(what, int):
            return web.json_response({"message": "as the test wants it"}, status=what)
        if isinstance(what, Says):
            return web.Response(status=what.status, body=what.body, headers=dict(what.headers))
        try:
            with self._counted(one):
                status, headers, answer = await self._pass_on(request, one.body)
        except OSError:
            return self._reset(request)
        if isinstance(what, Done):
            return web.json_response({"message": "as the test wants it"}, status=what.status)
        if what == SWALLOW:
            await asyncio.sleep(3600)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(answer)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            await response.prepare(request)
            if what == CUT_BODY:
                await response.write(answer[: len(answer) // 2])
                return self._reset(request, response)
            step = max(1, len(answer) // 20) if what == SLOW else len(answer) or 1
            for at in range(0, len(answer), step):
                await response.write(answer[at : at + step])
                if what == SLOW:
                    await asyncio.sleep(0.02)
        return response

    @contextlib.contextmanager
    def _counted(self, one: Request) -> Iterator[None]:
        said = json.loads(one.body) if one.creates else []
        groups = [str(group["Datastream"]["@iot.id"]) for group in (said if isinstance(said, list) else [said])]
        self._together.update(groups)
        self.most_together = max(self.most_together, *self._together.values(), 0)
        try:
            yield
        finally:
            self._together.subtract(groups)

    async def _pass_on(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        from yarl import URL

        path = self._shown(request.raw_path.encode()).decode()
        url = URL(f"http://127.0.0.1:{self._server.port}{path}", encoded=True)
        kept = {name: request.headers[name] for name in ("Content-Type", "Authorization") if name in request.headers}
        sent = self._shown(body) or None
        async with self._session.request(request.method, url, data=sent, headers=kept) as answer:
            said = {name: answer.headers[name] for name in ("Content-Type", "Location") if name in answer.headers}
            return answer.status, said, self._shown(await answer.read())

    def _reset(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return response or web.Response()


def _turned(text: bytes) -> bytes:
    """With all ids in it turned round: 0 for f, 1 for e. Twice is as before."""
    return _IDENTIFIER.sub(lambda found: found[0].translate(_OTHER_WAY_ROUND), text)


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
            made.append(self._accepted(board, sequence, readings=readings))
            for position in range(readings):
                self.values[board.name, sequence, position] = (2150 + position % 7) / 100
                at_ms = board.utc_ms - 5 - 1000 * (readings - 1 - position)
                self.times[board.name, sequence, position] = rfc3339(at_ms).replace("T", " ").removesuffix("Z")
        await asyncio.gather(*(self.parts.buffer.put(one) for one in made))

    async def put_report(self, board: FakeBoard, sequence: int, *, gaps: list[list[int]] | None = None) -> None:
        """A report with the board's time, if it has one."""
        await self.parts.buffer.put(self._accepted(board, sequence, gaps=gaps))

    def _accepted(
        self, board: FakeBoard, sequence: int, *, readings: int = 4, gaps: list[list[int]] | None = None
    ) -> Accepted:
        body, digest = board.make(sequence, b"p" * 16, readings=readings, gaps=gaps)
        chain = self.parts.buffer.chains.get(board.name)
        follows = chain.sequence if gaps and chain else sequence - 1 or None
        return Accepted(
            board.name, sequence, digest, board.credential_digest, follows, board.utc_ms, board.utc_ms, body
        )

    def route(self, **settings: object) -> SensorThingsRoute:
        said = SensorThingsSettings(ROUTE, self.url, **settings)  # type: ignore[arg-type]
        parts = self.parts
        return SensorThingsRoute(
            parts.settings, said, parts.buffer, parts.roster, parts.clock, parts.health, parts.dates
        )

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
) -> AsyncIterator[None]:
    """A civitas route delivers from this gateway's buffer to a broker meanwhile. gateway: its id at the broker."""
    parts = here.parts
    mqtt = MqttSettings(host, port, False, None, password_file, None, None, None, in_flight)
    route = CivitasRoute(
        replace(parts.settings, id=gateway),
        CivitasSettings(ROUTE, mqtt, **settings),
        parts.buffer,
        parts.roster,
        parts.clock,
        parts.health,
        parts.dates,
    )
    task = asyncio.create_task(route.run())
    try:
        yield
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
