"""Metrics for Prometheus, on loopback: what `status` says, by its conventions (prometheus.io/docs/practices/naming).

    laterne_events_total{kind="line|board|route|...", name="quay", event="frames damaged"}     every counter of Health
    laterne_alarms{kind, name}              alarms that stand
    laterne_board_..., laterne_line_open, laterne_route_..., laterne_roster_...     last values, see VALUES
    laterne_reports_waiting{route}          reports that the route has not delivered
    laterne_commits_total, laterne_commit_seconds        groups of reports that are on the disk, and how long each took
    laterne_buffer_events_total{event="reports dropped"}     what the buffer has counted on the disk, over all starts
    laterne_buffer_bytes, _set_aside, _gaps_untold, _dead_letters, _passed_over     what is in it
    laterne_disk_written_bytes_total        what wears the card (wear.py); since the process began
    laterne_buffer_away                     1 while there is no database
    laterne_clock_credible                  1 while this machine knows the time
    process_...                             memory, processor, descriptors, as all Prometheus clients have them

One request, one answer, and the connection is closed: nobody holds it open. Whoever may use loopback may read this;
there is no secret in it. Labels come from the configuration, the roster and our own code, never from a peer.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping

from laterne_gateway import VERSION, wear
from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock
from laterne_gateway.durations import BOUNDS_S, Durations
from laterne_gateway.exposition import COUNTER, GAUGE, HISTOGRAM, TYPE, Family, of_this_process, text_of
from laterne_gateway.health import Health
from laterne_gateway.writer import StoreError

log = logging.getLogger("laterne")

ADDRESS = "127.0.0.1"
MAX_REQUEST_BYTES = 8192  # aiohttp's and nginx's bound for a request's head
WITHIN_S = 5.0
MAX_CONNECTIONS = 8  # at a time; one scraper needs one. Descriptors are for lines, routes and the disk
DISK_WITHIN_S = 1.0  # then the answer goes without what only the disk knows
SUBJECT = "metrics"

# Last values of Health (kind of subject, what) -> (metric, its help, factor to the unit in its name).
VALUES: dict[tuple[str, str], tuple[str, str, float]] = {
    ("board", "heard_utc_ms"): ("laterne_board_heard_timestamp_seconds", "When it last answered, UTC.", 0.001),
    ("board", "sequence"): ("laterne_board_sequence", "Its last report that is on the disk.", 1),
    ("board", "waiting on the board"): ("laterne_board_reports_waiting", "Reports that it still has.", 1),
    ("board", "boot"): ("laterne_board_boots", "How often it has started.", 1),
    ("line", "open"): ("laterne_line_open", "Whether the port is open.", 1),
    ("route", "connected"): ("laterne_route_connected", "Whether the platform answers.", 1),
    ("roster", "version"): ("laterne_roster_version", "The roster that is in force.", 1),
    ("roster", "boards"): ("laterne_roster_boards", "Boards that may be served.", 1),
    ("trust", "version"): ("laterne_trust_version", "The trust that is in force.", 1),
    ("gateway", "loop lag s"): ("laterne_loop_lag_seconds", "How late the event loop was when last looked at.", 1),
}
# What the buffer counts on the disk is an event but for these, which can go down again.
STANDING = {
    "bytes": ("laterne_buffer_bytes", "What the tables take."),
    "set aside": ("laterne_buffer_set_aside", "Refused reports that are kept."),
    "gaps to tell": ("laterne_buffer_gaps_untold", "Losses that some route has not told yet."),
    "dead letters": ("laterne_buffer_dead_letters", "What platforms have refused for good."),
    "reports passed over": (
        "laterne_buffer_passed_over",
        "Reports refused beyond what is kept, not seen by anybody yet.",
    ),
}


class Figures:
    """Read anew for each answer: nothing is counted twice, in two places."""

    def __init__(self, gateway: str, buffer: Buffer, health: Health, clock: Clock) -> None:
        self._gateway = gateway
        self._buffer = buffer
        self._health = health
        self._clock = clock
        self.tallies: dict[str, int] = {}  # what only the disk knows, as it was when last asked

    def families(self) -> Iterator[Family]:
        info = Family("laterne_gateway_info", GAUGE, "Which gateway, which release.")
        info.add({"gateway": self._gateway, "version": VERSION}, 1)
        yield info
        yield from self._of_the_health()
        waiting = Family("laterne_reports_waiting", GAUGE, "Reports not delivered yet.")
        for route in self._buffer.lanes:
            waiting.add({"route": route}, self._buffer.waiting(route))
        yield waiting
        commits = self._buffer.commits
        yield Family("laterne_commits_total", COUNTER, "Groups of reports synced to the disk.", commits)
        yield _histogram("laterne_commit_seconds", "How long each of them took.", self._buffer.commits_s)
        yield from _of_the_buffer(self.tallies)
        away = 1 if self._buffer.away else 0
        yield Family("laterne_buffer_away", GAUGE, "Whether the database cannot be used now.", away)
        credible = 0 if self._clock.utc_ms() is None else 1
        yield Family("laterne_clock_credible", GAUGE, "Whether this machine knows the time.", credible)
        written = wear.written_bytes()
        if written is not None:
            yield Family("laterne_disk_written_bytes_total", COUNTER, "Written to the disk since the start.", written)
        yield from of_this_process()

    def _of_the_health(self) -> Iterator[Family]:
        events = Family("laterne_events_total", COUNTER, "What was counted, refusals with their reasons.")
        alarms = Family("laterne_alarms", GAUGE, "Alarms that a person should look at.")
        values = {name: Family(name, GAUGE, told) for name, told, _ in VALUES.values()}
        for subject, about in self._health.snapshot().items():
            kind, name = _kind_and_name(subject)
            whose = {"kind": kind, "name": name}
            counts, standing, noted = about["counts"], about["alarms"], about["values"]
            assert isinstance(counts, dict)
            assert isinstance(standing, list)
            assert isinstance(noted, dict)
            for event, count in counts.items():
                events.add({**whose, "event": event}, count)
            alarms.add(whose, len(standing))
            for what, value in noted.items():
                known = VALUES.get((kind, what))
                if known is not None and isinstance(value, int | float):
                    values[known[0]].add({"name": name}, value * known[2])
        yield events
        yield alarms
        yield from values.values()


def _histogram(name: str, told: str, durations: Durations) -> Family:
    made = Family(name, HISTOGRAM, told)
    for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], durations.counts, strict=True):
        made.add({"le": bound}, count, "_bucket")
    made.add({}, durations.total_s, "_sum")
    made.add({}, durations.counts[-1], "_count")
    return made


def _of_the_buffer(tallies: Mapping[str, int]) -> Iterator[Family]:
    counted = Family("laterne_buffer_events_total", COUNTER, "What the buffer has counted on disk.")
    for name, value in tallies.items():
        if name in STANDING:
            metric, told = STANDING[name]
            yield Family(metric, GAUGE, told, value)
        else:
            counted.add({"event": name}, value)
    yield counted


def _kind_and_name(subject: str) -> tuple[str, str]:
    """ "line quay" is the line quay; "LE-0007" is a board; "buffer" is itself."""
    kind, _, name = subject.partition(" ")
    if name:
        return kind, name
    return (subject, "") if subject in _PARTS else ("board", subject)


_PARTS = (
    "buffer",
    "configuration",
    "gateway",
    "metrics",
    "orders",
    "ports",
    "releases",
    "roster",
    "status",
    "trust",
)


class MetricsServer:
    """port: on loopback."""

    def __init__(self, port: int, gateway: str, buffer: Buffer, health: Health, clock: Clock) -> None:
        self._port = port
        self._health = health
        self._buffer = buffer
        self._connections = 0
        self._figures = Figures(gateway, buffer, health, clock)

    async def run(self) -> None:
        """Answers for ever. A port that somebody else has is an alarm, and no reason to stop serving boards."""
        try:
            server = await asyncio.start_server(
                self._serve, ADDRESS, self._port, limit=MAX_REQUEST_BYTES, backlog=MAX_CONNECTIONS
            )
        except OSError as why:
            self._health.alarm(
                SUBJECT, "port", f"{ADDRESS}:{self._port}: {why.strerror}: choose another [metrics] port"
            )
            return
        self._health.clear(SUBJECT, "port")
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            self._health.count(SUBJECT, "refused: too many connections")
            writer.transport.abort()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
                await self._ask_the_disk()
                writer.write(self._answer(head.split(b" ", 2)[:2]))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
            log.debug("metrics: a request was dropped: %s", why)
            writer.transport.abort()  # close() would wait for whoever does not read
        finally:
            self._connections -= 1
            writer.close()

    async def _ask_the_disk(self) -> None:
        self._figures.tallies = {}  # rather none than old ones
        with contextlib.suppress(TimeoutError, StoreError):  # laterne_buffer_away says why they are not there
            async with asyncio.timeout(DISK_WITHIN_S):
                self._figures.tallies = await self._buffer.tallies()

    def _answer(self, asked: list[bytes]) -> bytes:
        if asked == [b"GET", b"/metrics"]:
            return _http("200 OK", text_of(self._figures.families()), TYPE)
        if asked[0] != b"GET":
            return _http("405 Method Not Allowed", b"", TYPE)
        return _http("404 Not Found", b"/metrics\n", TYPE)


def _http(status: str, body: bytes, kind: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
