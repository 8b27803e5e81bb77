"""An HTTP server on the way to a SensorThings server: what happens to each request is a test's rule."""

import asyncio
import contextlib
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

from laterne_emulator.proxy import reset
from laterne_emulator.sensorthings_server import PATH, SensorThingsServer

_IDENTIFIER = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_OTHER_WAY_ROUND = bytes.maketrans(b"0123456789abcdef", b"fedcba9876543210")


@dataclass(frozen=True)
class Request:
    """number: how many came before it, of all kinds. creates: whether it sends observations."""

    number: int
    method: str
    path: str
    body: bytes
    creates: bool


# What happens to a request.
PASS, REFUSE, SLOW, SWALLOW, CUT_BODY, CUT_REQUEST = "pass", "refuse", "slow", "swallow", "cut body", "cut request"


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


@dataclass(frozen=True)
class AllBut:
    """The platform does all rows of a DataArray but those that are bad (told by component): in their place is an error.

    As FROST answers; the server of these tests refuses all of a Datastream's rows when one is bad.
    """

    is_bad: Callable[[dict[str, Any]], bool]


What = str | int | Done | Says | AllBut


class FaultyWay:
    """An HTTP server in front of the platform. rule: what happens to each request: one of the above, or a status.

    SLOW: the answer comes in small pieces. SWALLOW: the platform has done it, the answer never comes. CUT_BODY: the
    platform has done it, half of the answer comes. CUT_REQUEST: the platform gets half of the body, then its connection
    ends, and ours is reset. REFUSE: it is reset before. A status: it says so itself.

    is_next: waits until a request may be served. ids_descend: each entity seems to have a lower id than former ones.
    """

    def __init__(self, server: SensorThingsServer, *, ids_descend: bool = False) -> None:
        self._server = server
        self._shown = _turned if ids_descend else bytes
        self.rule: Callable[[Request], What] = lambda request: PASS
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
        if what == CUT_REQUEST:
            await self._pass_on_half(request, one.body)
        if what in (REFUSE, CUT_REQUEST):
            return self._reset(request)
        if isinstance(what, int):
            return web.json_response({"message": "as the test wants it"}, status=what)
        if isinstance(what, Says):
            return web.Response(status=what.status, body=what.body, headers=dict(what.headers))
        try:
            with self._counted(one):
                if isinstance(what, AllBut):
                    status, headers, answer = await self._pass_on_all_but(request, one.body, what)
                else:
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

    def _path(self, request: web.Request) -> str:
        return self._shown(request.raw_path.encode()).decode()

    async def _pass_on(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        from yarl import URL

        url = URL(f"http://127.0.0.1:{self._server.port}{self._path(request)}", encoded=True)
        kept = {name: request.headers[name] for name in ("Content-Type", "Authorization") if name in request.headers}
        sent = self._shown(body) or None
        async with self._session.request(request.method, url, data=sent, headers=kept) as answer:
            said = {name: answer.headers[name] for name in ("Content-Type", "Location") if name in answer.headers}
            return answer.status, said, self._shown(await answer.read())

    async def _pass_on_all_but(
        self, request: web.Request, body: bytes, what: AllBut
    ) -> tuple[int, dict[str, str], bytes]:
        kept, is_bad = [], []
        for group in json.loads(body):
            told = [what.is_bad(dict(zip(group["components"], row, strict=True))) for row in group["dataArray"]]
            rows = [row for row, bad in zip(group["dataArray"], told, strict=True) if not bad]
            is_bad += told
            if rows:
                kept.append({**group, "dataArray@iot.count": len(rows), "dataArray": rows})
        if not kept:
            return 201, {"Content-Type": "application/json"}, json.dumps(["error"] * len(is_bad)).encode()
        status, headers, answer = await self._pass_on(request, json.dumps(kept).encode())
        if status != 201:
            return status, headers, answer
        links = iter(json.loads(answer))
        return status, headers, json.dumps(["error" if bad else next(links) for bad in is_bad]).encode()

    async def _pass_on_half(self, request: web.Request, body: bytes) -> None:
        sent, kind = self._shown(body), request.headers.get("Content-Type", "application/json")
        head = f"{request.method} {self._path(request)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        with contextlib.suppress(OSError):  # it is away, or hangs up the hard way
            reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
            writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent[: len(sent) // 2])
            # Ended and not reset: with a reset the kernel throws away what the platform has not read yet.
            writer.write_eof()
            await reader.read()  # until it has noticed
            writer.close()

    def _reset(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        if request.transport is not None:
            reset(request.transport)
        return response or web.Response()


def _turned(text: bytes) -> bytes:
    """With all ids in it turned round: 0 for f, 1 for e. Twice is as before."""
    return _IDENTIFIER.sub(lambda found: found[0].translate(_OTHER_WAY_ROUND), text)
