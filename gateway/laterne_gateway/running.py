"""The parts that come and go with the configuration while the process runs: lines, routes, metrics.

Each is a task with a name. When its settings change it is ended and begun anew, and all others go on: a line that
stays keeps its port and its sessions, a route that stays its connection. A route that begins anew goes on where its
lanes stand; what was under way is sent again, as after any end of a connection.
"""

import asyncio
import logging
import os
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass

from laterne_gateway.buffer import Buffer
from laterne_gateway.bus import Bus
from laterne_gateway.changes import Changes, state_of_files
from laterne_gateway.clock import Clock
from laterne_gateway.config import Config, LineSettings
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.orders import Orders
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.route_settings import MQTT_NAME, CivitasSettings
from laterne_gateway.routes.mqtt import MqttRoute
from laterne_gateway.routes.route import Route
from laterne_gateway.serial_line import SerialLine
from laterne_gateway.sessions import Sessions
from laterne_gateway.updates import Updates

log = logging.getLogger("laterne")

ENDS_WITHIN_S = 5.0  # a part's last words: to the broker 3 s (routes/mqtt)
METRICS = "metrics"


@dataclass(frozen=True)
class Shared:
    """What lines and routes are made of, and what stays as long as the process."""

    buffer: Buffer
    roster: RosterKeeper
    sessions: Sessions
    inbox: Inbox
    orders: Orders
    updates: Updates
    dates: Dates
    clock: Clock
    health: Health


class Running:
    """config: what is in force. parts: where the tasks run."""

    def __init__(self, config: Config, shared: Shared, parts: asyncio.TaskGroup) -> None:
        self.config = config
        self._shared = shared
        self._parts = parts
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._buses: dict[str, Bus] = {}
        self._files: dict[str, object] = {}  # by route, as they were when it began

    def begin(self) -> None:
        """All that the configuration names."""
        self._begin_lines([line.name for line in self.config.lines])
        self._begin_routes(self.config.route_names)
        self._begin_metrics()

    async def lines_tried(self) -> None:
        """Returns when each line's port has been opened, or is known to be away."""
        for bus in list(self._buses.values()):
            await bus.tried.wait()

    def in_words(self) -> str:
        """A line for `systemctl status`."""
        buffer, lines = self._shared.buffer, self._buses.values()
        waiting = [f"{buffer.waiting(route)} for {route}" for route in buffer.lanes]
        said = f"{sum(bus.is_open for bus in lines)} of {len(lines)} lines open; reports wait: {', '.join(waiting)}"
        return said + (f"; {buffer.away}" if buffer.away else "")

    def bus_at(self, port: str) -> Bus | None:
        """The bus of the line with this name, or with this port, under whichever of its paths."""
        for line in self.config.lines:
            if line.name in self._buses and (
                line.name == port or os.path.realpath(line.path) == os.path.realpath(port)
            ):
                return self._buses[line.name]
        return None

    def wake(self) -> None:
        """Roster or credential have changed: boards that were turned away are asked again at once."""
        for bus in self._buses.values():
            bus.wake()

    async def take(self, changes: Changes) -> None:
        """Makes them true. All that ends has ended before anything begins: a port may go from one line to another."""
        self.config = changes.in_force
        if changes.log:
            logging.getLogger("laterne").setLevel(self.config.log_level.upper())
        if changes.buffer:
            self._shared.buffer.use(self.config.buffer)
        await self._end([_line(name) for name in changes.lines_end])
        for name in changes.lines_end:
            self._buses.pop(name, None)
            if name not in changes.lines_begin:
                # It is expected to come round no more: the watchdog would take the process for hung.
                self._shared.health.forget(_line(name))
        self._begin_lines(changes.lines_begin)
        anew = [*changes.routes_anew, *self._with_other_files(changes.routes_anew)]
        await self._end([_route(name) for name in anew])
        self._begin_routes(anew)
        if changes.metrics:
            await self._end([METRICS])
            self._shared.health.forget(METRICS)
            self._begin_metrics()

    async def end_lines(self) -> None:
        """Nothing is asked any more."""
        await self._end([_line(name) for name in self._buses])

    async def end(self) -> None:
        await self._end(list(self._tasks))

    def _begin_lines(self, names: Iterable[str]) -> None:
        settings = {line.name: line for line in self.config.lines}
        for name in names:
            self._buses[name] = self._bus(settings[name])
            self._start(_line(name), self._buses[name].run())

    def _with_other_files(self, but: Collection[str]) -> list[str]:
        """Routes with the same settings whose secret or certificate is another one than when they began."""
        found = [name for name, state in self._states().items() if name not in but and self._files[name] != state]
        for name in found:
            log.info("route %s: its files have changed", name)
        return found

    def _states(self) -> dict[str, object]:
        settings = {MQTT_NAME: self.config.mqtt} | {route.name: route for route in self.config.routes}
        return {name: state_of_files(one) for name, one in settings.items()}

    def _begin_routes(self, names: Collection[str]) -> None:
        self._files |= {name: state for name, state in self._states().items() if name in names}
        for route in self._routes(names):
            self._start(_route(route.name), route.run())

    def _begin_metrics(self) -> None:
        if self.config.metrics_port is None:
            return
        from laterne_gateway.metrics import MetricsServer  # only for whom it is: it costs memory

        shared, gateway = self._shared, self.config.gateway.id
        server = MetricsServer(self.config.metrics_port, gateway, shared.buffer, shared.health, shared.clock)
        self._start(METRICS, server.run())

    def _bus(self, line: LineSettings) -> Bus:
        it = self._shared
        port = SerialLine(line, it.health)
        return Bus(port, line.boards, it.roster, it.sessions, it.inbox, it.orders, it.updates, it.clock, it.health)

    def _routes(self, names: Collection[str]) -> list[Route]:
        """What only some of them need is loaded only for those."""
        it, gateway = self._shared, self.config.gateway
        made: list[Route] = []
        if MQTT_NAME in names:
            made.append(
                MqttRoute(gateway, self.config.mqtt, it.buffer, it.orders, it.updates, it.clock, it.health, it.dates)
            )
        for settings in self.config.routes:
            if settings.name not in names:
                continue
            from laterne_gateway.routes.source import Source

            source = Source(gateway, settings, it.buffer, it.roster, it.clock, it.health, it.dates)
            if isinstance(settings, CivitasSettings):
                from laterne_gateway.routes.civitas import CivitasRoute

                made.append(CivitasRoute(settings, source))
            else:
                from laterne_gateway.routes.sensorthings import SensorThingsRoute

                made.append(SensorThingsRoute(settings, source))
        return made

    def _start(self, name: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[name] = self._parts.create_task(work)

    async def _end(self, names: Collection[str]) -> None:
        ending = [name for name in names if name in self._tasks]
        await end([self._tasks[name] for name in ending])
        for name in ending:  # not before: whoever is stopped here is ended once more with all others
            del self._tasks[name]


def _line(name: str) -> str:
    """As the health calls it."""
    return f"line {name}"


def _route(name: str) -> str:
    return f"route {name}"


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels them and waits until they have ended."""
    pending: set[asyncio.Task[None]] = set(tasks)
    while pending:
        # Again: Python 3.11's wait_for, and so aiomqtt, loses a cancellation that meets the answer it waits for.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ENDS_WITHIN_S)
