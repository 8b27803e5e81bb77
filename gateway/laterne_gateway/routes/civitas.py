"""The route to CIVITAS/CORE v2: observations in its envelope, as JSON over MQTT (facts/urban_platform.md, 1).

The platform finds a Thing by properties.reference, and makes it if need be; it finds a Datastream by reference and name
and never makes one. References and names are those of routes/sta_entities.py, so a sensorthings route to the same
platform, with the same prefix, provides them; else its operator does.

The level is "sent": the broker has it. What the platform's flow does with a message nobody says. What was not
acknowledged when a connection ended, or when this process was killed, is sent again: board, sequence, digest and
position in `parameters` tell what has come twice.
"""

import asyncio
import json
import logging
import ssl
from collections import deque
from collections.abc import Iterator
from functools import partial

import aiomqtt

from laterne_gateway.backoff import Backoff
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Lane
from laterne_gateway.clock import Clock
from laterne_gateway.config import GatewaySettings
from laterne_gateway.dates import Dates
from laterne_gateway.dead_letters import DeadLetter, DeadLetters
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.route_settings import CIVITAS, CivitasSettings
from laterne_gateway.routes.beside import Beside
from laterne_gateway.routes.connection import Connection, cause_of, tls_context
from laterne_gateway.routes.delivery import PUBACK_WITHIN_S
from laterne_gateway.routes.feed import Feed, UnderWay
from laterne_gateway.routes.mqtt import BASE_S, CAP_S, STABLE_S, first_of, until_one_fails
from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.route import SENT
from laterne_gateway.routes.sta_names import datastream_name, datastream_reference, location_of, row_of, thing_reference
from laterne_gateway.routes.stream import string

log = logging.getLogger("laterne")

LOOK_EVERY_S = 5.0  # for messages whose PUBACK does not come


class CivitasRoute:
    kind, level = CIVITAS, SENT

    def __init__(
        self,
        gateway: GatewaySettings,
        settings: CivitasSettings,
        buffer: Buffer,
        roster: RosterKeeper,
        clock: Clock,
        health: Health,
        dates: Dates,
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._buffer = buffer
        self._roster = roster
        self._clock = clock
        self._health = health
        self._dates = dates
        self._subject = f"route {settings.name}"
        self._prefix = f"{gateway.tenant}/" if settings.prefix is None else settings.prefix
        self._identifier = f"laterne-{gateway.tenant}-{gateway.id}-{settings.name}"
        self._broker = f"{settings.mqtt.host}:{settings.mqtt.port}"
        self._dead = DeadLetters(settings.name, buffer, clock)

    async def run(self) -> None:
        backoff = Backoff(BASE_S, CAP_S, stable_s=STABLE_S)
        while True:
            began_s = self._clock.monotonic_s()
            why: BaseException = aiomqtt.MqttError("the connection has ended")
            try:
                await self._connection()
            except* (aiomqtt.MqttError, OSError, ssl.SSLError) as group:
                why = first_of(group)
            self._health.note(self._subject, "connected", False)
            self._health.count(self._subject, "connections ended")
            self._health.alarm(
                self._subject,
                "broker",
                f"no broker at {self._broker}: {cause_of(why)}; reports are kept and it is tried again",
            )
            await asyncio.sleep(backoff.failed(self._clock.monotonic_s() - began_s))

    async def _connection(self) -> None:
        context = await asyncio.get_running_loop().run_in_executor(None, tls_context, self._settings.mqtt)
        async with Connection(self._settings.mqtt, self._identifier, None, context) as client:
            self._health.note(self._subject, "connected", True)
            self._health.clear(self._subject, "broker")
            log.info("%s: connected to %s", self._subject, self._broker)
            sending = _Sending(self, client, string(self._settings.topic))
            *backlog, live = self._buffer.part(self.name)
            beside = Beside(
                self.name, sending.post_beside, self._buffer, self._dates, self._dead, self._clock, self._health
            )
            await until_one_fails(
                self._feed(live, sending, None).run(),
                self._deliver_backlog(backlog, sending),
                beside.tell_gaps(),
                beside.send_dead_letters(),
                sending.watch(),
            )

    async def _deliver_backlog(self, lanes: list[Lane], sending: "_Sending") -> None:
        pace = Pace(self._settings.mqtt.backlog_a_second, self._clock)
        for lane in lanes:
            await self._feed(lane, sending, pace).run()

    def _feed(self, lane: Lane, sending: "_Sending", pace: Pace | None) -> Feed:
        return Feed(
            self._subject, lane, sending.post, pace, self._buffer, self._dates, self._dead, self._clock, self._health
        )

    def envelopes(self, observations: list[Observation]) -> Iterator[tuple[bytes, int]]:
        """Messages of at most max_bytes with the observations of one board, and how many are in each."""
        board = observations[0].board
        entry = self._roster.entry(board)
        post = None if entry is None else entry.post
        place = board if post is None else post.name
        thing = {
            "name": board if post is None else f"{post.name} {board}",
            "description": f"board {board}" if post is None else f"board {board} on lamp post {post.name}",
            "properties": {"reference": thing_reference(self._prefix, board), "board": board},
            "Locations": [
                {
                    "name": place,
                    "description": f"where board {board} hangs",
                    "encodingType": "application/geo+json",
                    "location": location_of(board, post),
                }
            ],
        }
        head = b'{"things":[' + _json(thing) + b'],"observations":['
        parts: list[bytes] = []
        size = len(head) + 2
        for one in observations:
            part = _json(self._observation(one))
            if parts and size + len(part) + 1 > self._settings.max_bytes:
                yield head + b",".join(parts) + b"]}", len(parts)
                parts, size = [], len(head) + 2
            parts.append(part)
            size += len(part) + 1
        yield head + b",".join(parts) + b"]}", len(parts)

    def _observation(self, one: Observation) -> dict[str, object]:
        at, result_at, value, quality, parameters = row_of(one)
        told = {
            "reference": datastream_reference(self._prefix, one.board, one.channel),
            "name": datastream_name(one.board, one.channel),
            **parameters,
        }
        return {
            "phenomenonTime": at,
            "resultTime": result_at,
            "result": value,
            "resultQuality": quality,
            "parameters": told,
        }

    def note_taken(self, under_way: UnderWay, count: int) -> None:
        """The broker has acknowledged so many observations of it."""
        self._health.count(self._subject, "observations delivered", count)
        for _ in range(count):
            under_way.settle()


class _Sending:
    """What is under way on one connection."""

    def __init__(self, route: CivitasRoute, client: Connection, topic: bytes) -> None:
        self._route = route
        self._topic = topic
        self._client = client
        self._slots = asyncio.Semaphore(client.window)
        # Half of the window at most: what is live never waits behind a whole one.
        self._late_slots = asyncio.Semaphore(max(1, client.window // 2))
        self._under_way: deque[list[float]] = deque()  # [when it was sent], [] once it is acknowledged

    async def post(self, observations: list[Observation], under_way: UnderWay, feed: Feed) -> None:
        await self._send(observations, under_way, is_late=feed.lane.upto is not None)

    async def post_beside(
        self, observations: list[Observation], under_way: UnderWay, letter: DeadLetter | None
    ) -> None:
        by_board: dict[str, list[Observation]] = {}
        for one in observations:
            by_board.setdefault(one.board, []).append(one)
        for of_board in by_board.values():
            await self._send(of_board, under_way, is_late=letter is not None)

    async def _send(self, observations: list[Observation], under_way: UnderWay, *, is_late: bool) -> None:
        if not observations:
            return
        for payload, count in self._route.envelopes(observations):
            if is_late:
                await self._late_slots.acquire()
            await self._slots.acquire()
            at = [asyncio.get_running_loop().time()]
            self._under_way.append(at)
            self._client.send(self._topic, payload, b"", partial(self._taken, at, under_way, count, is_late))

    def _taken(self, at: list[float], under_way: UnderWay, count: int, is_late: bool) -> None:
        at.clear()
        while self._under_way and not self._under_way[0]:
            self._under_way.popleft()
        self._slots.release()
        if is_late:
            self._late_slots.release()
        self._route.note_taken(under_way, count)

    async def watch(self) -> None:
        """Raises MqttError when the oldest message has waited too long for its PUBACK."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            oldest = self._under_way[0] if self._under_way else []
            if oldest and asyncio.get_running_loop().time() - oldest[0] > PUBACK_WITHIN_S:
                raise aiomqtt.MqttError(f"no acknowledgement within {PUBACK_WITHIN_S:.0f} s")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
