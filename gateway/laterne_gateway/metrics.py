"""Metrics for Prometheus, on loopback: what `status` says, by the conventions of OpenMetrics (prometheus.io/docs).

    laterne_events_total{kind="line|board|route|...", name="quay", event="frames damaged"}     every counter of Health
    laterne_alarms{kind, name}              alarms that stand
    laterne_reports_waiting{route}          reports that the route has not delivered
    laterne_commits_total                   groups of reports that are on the disk
    laterne_disk_written_bytes_total        what wears the card (wear.py); since the process began
    laterne_buffer_away                     1 while there is no database
    laterne_clock_credible                  1 while this machine knows the time
    process_...                             memory, processor, descriptors, from prometheus_client

One request, one answer, and the connection is closed: nobody holds it open. Whoever may use loopback may read this;
there is no secret in it. Labels come from the configuration, the roster and our own code, never from a peer.
"""

import asyncio
import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from laterne_gateway import VERSION, wear
from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock
from laterne_gateway.health import Health

log = logging.getLogger("laterne")

ADDRESS = "127.0.0.1"
MAX_REQUEST_BYTES = 8192  # aiohttp's and nginx's bound for a request's head
WITHIN_S = 5.0
SUBJECT = "metrics"
TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' exposition format


class Figures(Collector):
    """Read anew for each answer: nothing is counted twice, in two places."""

    def __init__(self, gateway: str, buffer: Buffer, health: Health, clock: Clock) -> None:
        self._gateway = gateway
        self._buffer = buffer
        self._health = health
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("laterne_gateway_info", "Which gateway, which release.", labels=("gateway", "version"))
        info.add_metric((self._gateway, VERSION), 1)
        yield info
        events = CounterMetricFamily("laterne_events", "What was counted, refusals with their reasons.", labels=_LABELS)
        alarms = GaugeMetricFamily("laterne_alarms", "Alarms that a person should look at.", labels=("kind", "name"))
        for subject, about in self._health.snapshot().items():
            kind, name = _kind_and_name(subject)
            counts, standing = about["counts"], about["alarms"]
            assert isinstance(counts, dict)
            assert isinstance(standing, list)
            for event, count in counts.items():
                events.add_metric((kind, name, event), count)
            alarms.add_metric((kind, name), len(standing))
        yield events
        yield alarms
        waiting = GaugeMetricFamily("laterne_reports_waiting", "Reports not delivered yet.", labels=("route",))
        for route in self._buffer.lanes:
            waiting.add_metric((route,), self._buffer.waiting(route))
        yield waiting
        yield CounterMetricFamily("laterne_commits", "Groups of reports synced to the disk.", self._buffer.commits)
        away = 1 if self._buffer.away else 0
        yield GaugeMetricFamily("laterne_buffer_away", "Whether the database cannot be used now.", away)
        credible = 0 if self._clock.utc_ms() is None else 1
        yield GaugeMetricFamily("laterne_clock_credible", "Whether this machine knows the time.", credible)
        written = wear.written_bytes()
        if written is not None:
            yield CounterMetricFamily("laterne_disk_written_bytes", "Written to the disk since the start.", written)


_LABELS = ("kind", "name", "event")


def _kind_and_name(subject: str) -> tuple[str, str]:
    """ "line quay" is the line quay; "LE-0007" is a board; "buffer" is itself."""
    kind, _, name = subject.partition(" ")
    if name:
        return kind, name
    return (subject, "") if subject in _PARTS else ("board", subject)


_PARTS = ("buffer", "credential", "gateway", "metrics", "orders", "releases", "roster", "status", "trust")


class MetricsServer:
    """port: on loopback."""

    def __init__(self, port: int, gateway: str, buffer: Buffer, health: Health, clock: Clock) -> None:
        self._port = port
        self._health = health
        self._registry = CollectorRegistry()
        self._registry.register(Figures(gateway, buffer, health, clock))
        ProcessCollector(registry=self._registry)

    async def run(self) -> None:
        """Answers for ever. A port that somebody else has is an alarm, and no reason to stop serving boards."""
        try:
            server = await asyncio.start_server(self._serve, ADDRESS, self._port, limit=MAX_REQUEST_BYTES)
        except OSError as why:
            self._health.alarm(
                SUBJECT, "port", f"{ADDRESS}:{self._port}: {why.strerror}: choose another [metrics] port"
            )
            return
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b" ", 2)[:2]))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as why:
            log.debug("metrics: a request was dropped: %s", why)
        finally:
            writer.close()

    def _answer(self, asked: list[bytes]) -> bytes:
        if asked == [b"GET", b"/metrics"]:
            return _http("200 OK", generate_latest(self._registry), TYPE)
        if asked[0] != b"GET":
            return _http("405 Method Not Allowed", b"", TYPE)
        return _http("404 Not Found", b"/metrics\n", TYPE)


def _http(status: str, body: bytes, kind: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
