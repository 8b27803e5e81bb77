"""The agent: the one place that puts the gateway together and the one that decides what is fatal.

All parts run in one TaskGroup. When one fails the agent ends, and the service manager starts it again: what was
acknowledged is on disk, what was not is still on the boards. A full disk, a missing port, an absent broker or a bad
roster are no failures: they are said, and the parts go on.
"""

import asyncio
import logging
import signal
from collections.abc import Coroutine

from laterne_gateway import identity
from laterne_gateway.buffer import Buffer
from laterne_gateway.bus import Bus
from laterne_gateway.clock import Clock, SystemClock
from laterne_gateway.config import Config, GatewaySettings
from laterne_gateway.database import FILE_NAME, DirectoryLock
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.orders import Orders
from laterne_gateway.releases import Releases
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.route_settings import CivitasSettings
from laterne_gateway.routes.mqtt import MqttRoute
from laterne_gateway.routes.route import Route
from laterne_gateway.serial_line import SerialLine
from laterne_gateway.service import READY, STOPPING, ServiceManager, keep_alive
from laterne_gateway.sessions import Sessions
from laterne_gateway.status import StatusServer
from laterne_gateway.trusts import TrustKeeper, read_bounded
from laterne_gateway.updates import Updates
from laterne_protocol.roster import MAX_ROSTER_BYTES
from laterne_protocol.trust import MAX_TRUST_BYTES

log = logging.getLogger("laterne")

ENDS_WITHIN_S = 5.0  # a part's last words: to the broker 3 s (routes/mqtt)


async def run(config: Config, clock: Clock | None = None) -> None:
    """Until SIGTERM or SIGINT; then it returns, all that was received committed and the broker told.

    Raises DatabaseError or RosterError before anything has started, and whatever a part failed with.
    """
    clock = clock or SystemClock()
    stop = _on_signals(signal.SIGTERM, signal.SIGINT)
    manager = ServiceManager.found()
    if not (config.gateway.directory / FILE_NAME).exists():  # else the last good ones in it may do
        read_bounded(config.gateway.trust, MAX_TRUST_BYTES)
        read_bounded(config.gateway.roster, MAX_ROSTER_BYTES)
    lock = DirectoryLock(config.gateway.directory)
    lock.take()
    try:
        health = Health()
        buffer = Buffer(config.gateway.directory, config.route_names, config.buffer, health)
        try:
            starting = asyncio.create_task(manager.ask_for_time("waiting for the buffer"))
            try:
                opened = await _first_of(buffer.opened(), stop.wait())
            finally:
                starting.cancel()
            if opened:
                await _run(config, buffer, health, clock, stop, manager)
        finally:
            await buffer.close()
    finally:
        lock.release()


async def _run(
    config: Config, buffer: Buffer, health: Health, clock: Clock, stop: asyncio.Event, manager: ServiceManager
) -> None:
    gateway = config.gateway
    trusts = TrustKeeper(gateway.trust, buffer, health)
    roster = RosterKeeper(gateway.id, trusts, gateway.roster, buffer, health)
    await roster.load()
    own = await identity.load_and_keep(gateway, trusts.all, buffer, health)
    sessions = Sessions(own, roster, trusts, clock, health)
    dates = Dates()
    inbox = Inbox(roster, buffer, clock, health, dates)
    orders = Orders(roster, lambda: trusts.all, clock, health)
    updates = Updates(Releases(gateway.directory, lambda: trusts.newest, health), inbox, roster, clock, health)
    buses = [
        Bus(SerialLine(line, health), line.boards, roster, sessions, inbox, orders, updates, clock, health)
        for line in config.lines
    ]
    routes: list[Route] = [
        MqttRoute(gateway, config.mqtt, buffer, orders, updates, clock, health, dates),
        *_further_routes(config, buffer, roster, clock, health, dates),
    ]
    status = StatusServer(config, buffer, roster, trusts, health, clock)
    log.info(
        "gateway %s: %d lines, %d boards in the roster, %d reports waiting",
        gateway.id,
        len(buses),
        roster.boards,
        _waiting(buffer),
    )
    async with asyncio.TaskGroup() as parts:
        asking = [parts.create_task(bus.run()) for bus in buses]
        delivering = [parts.create_task(route.run()) for route in routes]
        others = [
            parts.create_task(buffer.run()),
            parts.create_task(status.run()),
            parts.create_task(_reload(gateway, roster, sessions, buses, buffer, health)),
        ]
        if config.metrics_port is not None:
            from laterne_gateway.metrics import MetricsServer  # only for whom it is: it costs memory

            server = MetricsServer(config.metrics_port, gateway.id, buffer, health, clock)
            others.append(parts.create_task(server.run()))
        others.append(parts.create_task(keep_alive(manager, health, lambda: buffer.turned_s, lambda: in_words(buffer))))
        manager.tell(READY, f"STATUS={in_words(buffer)}")
        await stop.wait()
        manager.tell(STOPPING)
        log.info("gateway %s: stopping", gateway.id)
        # The order matters: ask nothing more, commit what was received, then tell the broker.
        await _end(asking)
        await inbox.settle()
        await _end([*delivering, *others])
    log.info("gateway %s: stopped, %d reports waiting", gateway.id, _waiting(buffer))


def in_words(buffer: Buffer) -> str:
    """A line for `systemctl status`."""
    waiting = [f"{buffer.waiting(route)} for {route}" for route in buffer.lanes]
    return f"reports wait: {', '.join(waiting)}" + (f"; {buffer.away}" if buffer.away else "")


def _waiting(buffer: Buffer) -> int:
    """Reports that some route has not delivered, about."""
    return max(map(buffer.waiting, buffer.lanes))


def _further_routes(
    config: Config, buffer: Buffer, roster: RosterKeeper, clock: Clock, health: Health, dates: Dates
) -> list[Route]:
    """Those of the [[route]] tables. What only they need is loaded only for them: aiohttp takes 10 MiB."""
    made: list[Route] = []
    for settings in config.routes:
        if isinstance(settings, CivitasSettings):
            from laterne_gateway.routes.civitas import CivitasRoute

            made.append(CivitasRoute(config.gateway, settings, buffer, roster, clock, health, dates))
        else:
            from laterne_gateway.routes.sensorthings import SensorThingsRoute

            made.append(SensorThingsRoute(config.gateway, settings, buffer, roster, clock, health, dates))
    return made


async def _reload(
    settings: GatewaySettings,
    roster: RosterKeeper,
    sessions: Sessions,
    buses: list[Bus],
    buffer: Buffer,
    health: Health,
) -> None:
    hang_up = _on_signals(signal.SIGHUP)
    while True:
        await hang_up.wait()
        hang_up.clear()
        problem = await roster.reload()
        try:
            sessions.identity = await identity.load_and_keep(settings, sessions.trusts.all, buffer, health)
        except identity.IdentityError as why:
            # Boards decide by the trust that they hold: the one in use may serve them for long yet.
            health.alarm("gateway", identity.SUBJECT, f"{why}; the one in use stays")
        # Also when the roster is refused: trust and credential may be new.
        for bus in buses:
            bus.wake()
        log.info("gateway %s: files read again%s", settings.id, "" if problem is None else f": {problem}")


async def _first_of(wanted: Coroutine[None, None, None], other: Coroutine[None, None, bool]) -> bool:
    """Waits for either. Whether it was the first."""
    first, second = asyncio.create_task(wanted), asyncio.create_task(other)
    await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    came = first.done()
    for task in (first, second):
        task.cancel()
    return came


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    pending: set[asyncio.Task[None]] = set(tasks)
    while pending:
        # Again: Python 3.11's wait_for, and so aiomqtt, loses a cancellation that meets the answer it waits for.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ENDS_WITHIN_S)


def _on_signals(*numbers: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
