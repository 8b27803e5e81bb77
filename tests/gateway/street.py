"""A street in one process: boards on PTYs, a whole gateway of real parts, a proxy in front of a real broker.

For sweeps: a case takes some 50 ms in a fast loop (laterne_emulator.fast_time). What was given to the platform is
recorded by one subscriber for all cases; each case's boards have names of their own.
"""

import asyncio
import contextlib
import dataclasses
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiomqtt
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import Parts
from tests.gateway.subscriber import said_with
from tests.gateway.wired import WiredLine
from tests.servers import Mosquitto

from laterne_emulator import coordinator
from laterne_emulator.coordinator import Delivered
from laterne_emulator.proxy import Proxy
from laterne_gateway.clock import credible
from laterne_gateway.config import MqttSettings
from laterne_gateway.routes.mqtt import MqttRoute

IN_FLIGHT = 20


class LoopClock:
    """The gateway's clock in a fast loop: that loop's time, and the day that begins with it."""

    def __init__(self, utc_at_start_ms: int = 1_770_000_000_000) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._utc_ms = utc_at_start_ms

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc_ms(self) -> int | None:
        return credible(self._utc_ms + int((self._loop.time() - self._began_s) * 1000))


class Platform:
    """The subscriber: everything that was delivered, in order, by board. Used as `async with`."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = aiomqtt.Client(
            "127.0.0.1",
            broker.port,
            protocol=aiomqtt.ProtocolVersion.V5,
            identifier="platform",
            timeout=600,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self.delivered: dict[str, list[Delivered]] = defaultdict(list)
        self._distinct: dict[str, set[bytes]] = defaultdict(set)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Platform":
        await self._client.__aenter__()
        await self._client.subscribe("laterne/v1/+/+/+/report", qos=1)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *why: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    async def _listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            board = message.topic.value.split("/")[4]
            self.delivered[board].append(Delivered(board, message.payload, _is_historical(message)))
            self._distinct[board].add(message.payload)
            self._news.set()

    def has_all(self, boards: Sequence[FakeBoard]) -> bool:
        """Whether as many different reports are there as these boards have closed; which ones is the coordinator's."""
        return all(len(self._distinct[board.name]) >= len(board.taken) for board in boards)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Waits until something is so; looked at whenever something is delivered."""
        while not happened():
            self._news.clear()
            await self._news.wait()

    def compared(self, boards: Sequence[FakeBoard], *, lanes: bool = False) -> coordinator.Outcome:
        """What both ends say of these boards. lanes: as the coordinator wants to know."""
        return coordinator.compare(
            {board.name: board.taken for board in boards},
            (one for board in boards for one in self.delivered[board.name]),
            lanes=lanes,
            begins={board.name: board.credential_digest for board in boards},
        )


def _is_historical(message: aiomqtt.Message) -> bool:
    return {"true": True, "false": False}[said_with(message)["historical"]]


Made = TypeVar("Made", bound=FakeBoard)


def quick(board: Made) -> Made:
    """Without the bounds that protect a board from strangers: cases begin more handshakes than a board allows."""
    board.due_ms = 50
    board.sessions.bucket.refill_s = 0.01
    board.sessions.replace_after_s = 0.0
    return board


class Street:
    """parts: of the gateway. proxy: between its route and the broker."""

    def __init__(self, parts: Parts, proxy: Proxy, boards: Sequence[FakeBoard], lines: list[WiredLine]) -> None:
        self.parts = parts
        self.proxy = proxy
        self.boards = boards
        self.lines = lines

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The gateway asks boards and delivers meanwhile; what it has taken is committed at the end."""
        settings = MqttSettings("127.0.0.1", self.proxy.port, False, None, None, None, None, None, IN_FLIGHT)
        # A tenant for each case: the will of an earlier one's gateway must not pass for a twin's.
        found = dataclasses.replace(self.parts.settings, tenant=self.parts.directory.name)
        parts = self.parts
        known = (parts.buffer, parts.orders, parts.updates, parts.clock, parts.health, parts.dates)
        route = MqttRoute(found, settings, *known)
        async with self.parts.asking(*self.lines):
            delivering = asyncio.create_task(route.run())
            storing = asyncio.create_task(self.parts.buffer.run())
            try:
                yield
                for task in (delivering, storing):
                    if task.done():
                        task.result()  # a part has failed: the case must see it
            finally:
                delivering.cancel()
                storing.cancel()
                await asyncio.gather(delivering, storing, return_exceptions=True)


@contextlib.asynccontextmanager
async def street(
    directory: Path, broker: Mosquitto, boards: Sequence[FakeBoard], seed: int = 1, *, buses: bool = True
) -> AsyncIterator[Street]:
    """All boards on one bus, or each on a line of its own. The gateway is put together and not yet running."""
    directory.mkdir()
    groups = [boards] if buses else [[board] for board in boards]
    lines = [WiredLine(directory / f"line-{n}", group, seed + n) for n, group in enumerate(groups)]
    parts = Parts(directory, boards, clock=LoopClock())
    await parts.open()
    try:
        async with Proxy(broker.port) as proxy:
            yield Street(parts, proxy, boards, lines)
    finally:
        for line in lines:
            await line.close()
        await parts.buffer.close()
