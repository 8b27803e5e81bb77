"""Faults that a gateway lives with, all at once on real lines and files: each is counted where Prometheus reads it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, limit_pages, until
from tests.gateway.test_dates import HOUR_MS, Jumping
from tests.gateway.test_inbox import take_all
from tests.gateway.test_metrics import Samples, labelled, scraped
from tests.gateway.test_orders import flipped
from tests.servers import free_port

from laterne_gateway import bus
from laterne_gateway.config import MqttSettings
from laterne_gateway.metrics import MetricsServer
from laterne_gateway.routes.mqtt import MqttRoute
from laterne_protocol import frame
from laterne_protocol.frame import Frame

Sample = tuple[str, tuple[tuple[str, str], ...]]


def event(kind: str, name: str, what: str) -> Sample:
    return "laterne_events_total", labelled(kind=kind, name=name, event=what)


# design.md, 8. What is not here leaves no trace in the gateway that it could count: a power cut in a flash operation is
# the board's, and who kills the gateway finds its start.
COUNTED = {
    "bytes that are lost or flipped": event("line", "noisy", "frames damaged"),
    "an answer in vain": event("line", "noisy", "questions repeated"),
    "bytes that come twice or late": event("line", "twice", "frames unasked"),
    "a board that babbles": event("line", "babbling", "slowed down"),
    "a dead board": event("board", "dead", "fell silent"),
    "a board that had no power": event("board", "restarted", "restarts"),
    "an adapter that is unplugged": event("line", "unplugged", "lost"),
    "a broker that is away": event("route", "mqtt", "connections failed"),
    "a full disk": event("board", "stored", "reports not stored"),
    "a full disk, to be looked at": ("laterne_alarms", labelled(kind="buffer", name="")),
    "a clock that jumps": event("board", "stored", "clock set"),
    "hostile frames": event("board", "forged", "records refused: wrong tag"),
    "a hostile object": event("board", "liar", "refused: signature"),
    "a hostile roster": event("roster", "", "refused"),
    "a hostile order": event("board", "stored", "orders refused"),
    "a hostile release": event("releases", "", "refused when read"),
    "a cloned board": event("board", "cloned", "refused: same number, another report"),
    "a revoked board": event("line", "revoked", "refused: revoked board"),
    "a board of nobody's": event("line", "stranger", "refused: unknown board"),
}
# These are there from the start, or may be on a busy machine.
AT_ONCE = {
    "a broker that is away",
    "a board of nobody's",
    "a dead board",
    "an answer in vain",
    "bytes that come twice or late",
}
FULL = {"a full disk", "a full disk, to be looked at"}
SERVED = ("noisy", "twice", "babbling", "dead", "restarted", "unplugged", "stored", "forged", "revoked")


def forge(one: Frame) -> list[Frame]:
    if one.kind != frame.RECORD:
        return [one]
    return [Frame(one.kind, one.destination, one.source, one.payload[:4] + os.urandom(len(one.payload) - 4))]


async def test_each_fault_is_counted_where_prometheus_reads_it(
    tmp_path: Path, line_of: Callable[..., FakeLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "POLL_WITHIN_S", 0.1)
    boards = {name: FakeBoard(name) for name in (*SERVED, "liar", "cloned", "stranger")}
    lines = {name: line_of(board, name=name) for name, board in boards.items() if name != "cloned"}
    clock = Jumping()
    clock.off_ms = None  # 1970
    gateway = Parts(tmp_path, [board for name, board in boards.items() if name != "stranger"], clock=clock)
    await gateway.open()
    port, known = free_port(), (gateway.buffer, gateway.orders, gateway.updates, clock, gateway.health, gateway.dates)
    broker = MqttSettings("127.0.0.1", free_port(), False, None, None, None, None, None, 20)
    others = [
        asyncio.create_task(MetricsServer(port, "gw-1", gateway.buffer, gateway.health, clock).run()),
        asyncio.create_task(MqttRoute(gateway.settings, broker, *known).run()),
    ]
    try:
        async with gateway.asking(*lines.values()):
            for name in SERVED:
                boards[name].close_reports(1)
                await boards[name].forgets(1)
            found = await scraped(port)
            assert found["laterne_clock_credible", ()] == 0
            assert counted(found) <= AT_ONCE, "the others come below"
            clock.off_ms = 0
            await until(lambda: boards["stored"].time is not None)
            boards["stored"].close_reports(1)
            await boards["stored"].forgets(2)  # so the answer with its clock has arrived
            clock.off_ms = 3 * HOUR_MS
            damage_lines_and_boards(lines, boards)
            await bring_hostile_files(gateway, boards)
            await until_counted(port, {*COUNTED} - FULL)
            await limit_pages(gateway.buffer, 0)
            boards["stored"].close_reports(200)  # more than the pages have room for
            await until_counted(port, {*COUNTED})
    finally:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await gateway.buffer.close()


def damage_lines_and_boards(lines: dict[str, FakeLine], boards: dict[str, FakeBoard]) -> None:
    lines["noisy"].damage = 0.5
    lines["twice"].to_gateway = lambda one: [one, one]
    lines["babbling"].babble()
    lines["unplugged"].unplug()
    lines["forged"].to_gateway = forge
    boards["dead"].silent = True
    boards["restarted"].restart()
    boards["liar"].close_reports(1)
    boards["liar"].backlog[1] = flipped(boards["liar"].taken[1])


async def bring_hostile_files(gateway: Parts, boards: dict[str, FakeBoard]) -> None:
    cloned, stolen = boards["cloned"], boards["revoked"]
    copy = cloned.clone()
    cloned.close_reports(1)
    copy.close_reports(1, readings=5)
    await take_all(gateway, cloned)
    gateway.inbox.take(cloned.entry(), copy.taken[1])
    gateway.orders.take("stored", b"noise")
    file = gateway.releases._file(bytes(16))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"noise")
    assert await gateway.releases.release(bytes(16)) is None
    entries = [board.entry() for name, board in boards.items() if name not in ("revoked", "stranger")]
    revoked = [(stolen.name, stolen.key.kid, "stolen")]
    gateway.roster_file.write_bytes(gateway.authority.roster_file(entries, 2, revoked=revoked))
    assert await gateway.roster.reload() is None
    gateway.roster_file.write_bytes(b"noise")
    assert await gateway.roster.reload() is not None


def counted(found: Samples) -> set[str]:
    """The faults that have been counted so far."""
    return {fault for fault, sample in COUNTED.items() if found.get(sample)}


async def until_counted(port: int, wanted: set[str]) -> None:
    missing = wanted
    try:
        async with asyncio.timeout(60):
            while missing:
                missing = wanted - counted(await scraped(port))
    except TimeoutError:
        pytest.fail(f"not counted: {', '.join(sorted(missing))}")
