"""The agent: the one place that puts the gateway together and the one that decides what is fatal.

All parts run in one TaskGroup. When one fails the agent ends, and the service manager starts it again: what was
acknowledged is on disk, what was not is still on the boards. A full disk, a missing port, an absent broker, a bad
roster or a bad configuration are no failures: they are said, and the parts go on.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass

from laterne_gateway import identity
from laterne_gateway.buffer import Buffer
from laterne_gateway.changes import compare
from laterne_gateway.clock import Clock, SystemClock
from laterne_gateway.config import Config, ConfigError
from laterne_gateway.database import FILE_NAME, DirectoryLock
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.last_good import Configuration
from laterne_gateway.orders import Orders
from laterne_gateway.port_requests import PortServer
from laterne_gateway.releases import Releases
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.running import Running, Shared, end
from laterne_gateway.service import READY, STOPPING, ServiceManager, keep_alive
from laterne_gateway.sessions import Sessions
from laterne_gateway.starts import Starts
from laterne_gateway.status import StatusServer
from laterne_gateway.trusts import TrustKeeper, read_bounded
from laterne_gateway.updates import Updates
from laterne_protocol.roster import MAX_ROSTER_BYTES
from laterne_protocol.trust import MAX_TRUST_BYTES

log = logging.getLogger("laterne")

CONFIGURATION = "configuration"


@dataclass(frozen=True)
class Host:
    """The machine around us: what it tells us (stop, hang_up), and what it is told."""

    stop: asyncio.Event
    hang_up: asyncio.Event
    manager: ServiceManager
    starts: Starts

    @classmethod
    def found(cls) -> "Host":
        # From now on: while a buffer is repaired a signal would else end the process.
        stop, hang_up = _on_signals(signal.SIGTERM, signal.SIGINT), _on_signals(signal.SIGHUP)
        return cls(stop, hang_up, ServiceManager.found(), Starts.found())


async def run(configuration: Configuration, clock: Clock | None = None) -> None:
    """Until SIGTERM or SIGINT; then it returns, all that was received committed and the broker told.

    Raises ConfigError, DatabaseError or RosterError before anything has started, and whatever a part failed with.
    """
    clock = clock or SystemClock()
    host = Host.found()
    if not await _rested(host):
        host.starts.ended_well()
        return
    config = configuration.start()
    log.setLevel(config.log_level.upper())
    if not (config.gateway.directory / FILE_NAME).exists():  # else the last good ones in it may do
        read_bounded(config.gateway.trust, MAX_TRUST_BYTES, "laterne trust export")
        read_bounded(config.gateway.roster, MAX_ROSTER_BYTES)
    lock = DirectoryLock(config.gateway.directory)
    lock.take()
    try:
        health = Health()
        buffer = Buffer(config.gateway.directory, config.route_names, config.buffer, health)
        try:
            async with _asking_for_time(
                host.manager, lambda: f"waiting for the buffer: {buffer.away or 'it is opened'}"
            ):
                opened = await _first_of(buffer.opened(), host.stop)
            if opened:
                await _run(configuration, config, buffer, health, clock, host)
        finally:
            await buffer.close()
        host.starts.ended_well()
    finally:
        lock.release()


async def _run(
    configuration: Configuration, config: Config, buffer: Buffer, health: Health, clock: Clock, host: Host
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
    status = StatusServer(config, buffer, roster, trusts, health, clock)
    log.info(
        "gateway %s: %s, %d boards in the roster, %d reports waiting",
        gateway.id,
        "1 line" if len(config.lines) == 1 else f"{len(config.lines)} lines",
        roster.boards,
        _waiting(buffer),
    )
    async with asyncio.TaskGroup() as parts:
        shared = Shared(buffer, roster, sessions, inbox, orders, updates, dates, clock, health)
        running = Running(config, shared, parts)
        running.begin()
        ports = PortServer(gateway.directory, running, health)
        work = (buffer.run(), status.run(), ports.run(), host.starts.settle())
        others = [parts.create_task(one) for one in work]
        if not await _first_of(running.lines_tried(), host.stop):
            log.info("gateway %s: told to stop before it was ready", gateway.id)
        alive = keep_alive(host.manager, health, lambda: buffer.turned_s, running.in_words)
        if configuration.problems:
            _refuse(configuration.problems, health)
        configuration.keep()
        reloading = parts.create_task(_reload(configuration, running, roster, sessions, buffer, health, host.hang_up))
        others.append(parts.create_task(alive))
        host.manager.tell(READY, f"STATUS={running.in_words()}")
        await host.stop.wait()
        host.manager.tell(STOPPING)
        log.info("gateway %s: stopping", gateway.id)
        # The order matters: change and ask nothing more, commit what was received, then tell the broker.
        await end([reloading])
        await running.end_lines()
        await inbox.settle()
        await running.end()
        await end(others)
    log.info("gateway %s: stopped, %d reports waiting", gateway.id, _waiting(buffer))


def _waiting(buffer: Buffer) -> int:
    """Reports that some route has not delivered, about."""
    return max(map(buffer.waiting, buffer.lanes))


async def _reload(
    configuration: Configuration,
    running: Running,
    roster: RosterKeeper,
    sessions: Sessions,
    buffer: Buffer,
    health: Health,
    hang_up: asyncio.Event,
) -> None:
    """At each SIGHUP: the configuration, and the files that it names. What is bad is said, what is in force stays."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        await _take_configuration(configuration, running, health)
        settings = running.config.gateway
        problem = await roster.reload()
        try:
            sessions.identity = await identity.load_and_keep(settings, sessions.trusts.all, buffer, health)
        except identity.IdentityError as why:
            # Boards decide by the trust that they hold: the one in use may serve them for long yet.
            health.alarm("gateway", identity.SUBJECT, f"{why}; the one in use stays")
        # Also when the roster is refused: trust and credential may be new.
        running.wake()
        log.info("gateway %s: files read again%s", settings.id, "" if problem is None else f": {problem}")


async def _take_configuration(configuration: Configuration, running: Running, health: Health) -> None:
    try:
        new = configuration.load()
    except ConfigError as why:
        _refuse(why.problems, health)
        return
    health.clear(CONFIGURATION, "refused", "the file is good again")
    changes = compare(running.config, new)
    if changes.restart:
        health.alarm(
            CONFIGURATION,
            "restart",
            f"{', '.join(changes.restart)}: counts after a restart (systemctl restart laterne-gateway)",
        )
    else:
        health.clear(CONFIGURATION, "restart", "nothing waits for a restart any more")
    for sentence in changes.said:
        log.info("%s: %s", CONFIGURATION, sentence)
    await running.take(changes)
    configuration.keep()


def _refuse(problems: list[str], health: Health) -> None:
    health.count(CONFIGURATION, "refused")
    for problem in problems:
        log.warning("%s: %s", CONFIGURATION, problem)
    more = f" (and {len(problems) - 1} more in the log)" if len(problems) > 1 else ""
    health.alarm(CONFIGURATION, "refused", f"{problems[0]}{more}; the one before stays in force")


async def _rested(host: Host) -> bool:
    """After starts that have ended soon (starts.py). False: told to stop meanwhile."""
    pause_s = host.starts.begin()
    if not pause_s:
        return True
    log.warning("the gateway %s", host.starts.in_words(pause_s))
    async with _asking_for_time(host.manager, lambda: host.starts.in_words(pause_s)):
        return await _first_of(asyncio.sleep(pause_s), host.stop)


@contextlib.asynccontextmanager
async def _asking_for_time(manager: ServiceManager, why: Callable[[], str]) -> AsyncIterator[None]:
    asking = asyncio.create_task(manager.ask_for_time(why))
    try:
        yield
    finally:
        asking.cancel()


async def _first_of(wanted: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Waits for either. Whether what is wanted was the first."""
    first, second = asyncio.create_task(wanted), asyncio.create_task(stop.wait())
    await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    came = first.done()
    for task in (first, second):
        task.cancel()
    return came


def _on_signals(*numbers: signal.Signals) -> asyncio.Event:
    event = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, event.set)
    return event
