"""The route to CIVITAS/CORE v2: observations in its envelope, as JSON over MQTT (facts/urban_platform.md, 1).

The platform finds a Thing by properties.reference, and makes it if need be; it finds a Datastream by reference and name
and never makes one. References and names are those of routes/sta_entities.py, so a sensorthings route to the same
platform, with the same prefix, provides them; else its operator does.

The level is "sent": the broker has it. What the platform's flow does with a message nobody says. What may happen to a
message:

1. PUBACK: the broker has it, and so the lane may pass it. One may say that nobody listens, and then most brokers keep
   nothing: that is counted and an alarm, and no reason to wait, because some hand on what no subscriber of theirs gets.
2. No PUBACK: the connection ended, or was silent for too long, or this process was killed. Whether the broker has it
   nobody knows, so it is sent again: board, sequence, digest and position in `parameters` tell what has come twice.
3. A PUBACK that refuses it for what it is (ABOUT_CONTENT). It goes again in halves until the one observation is alone.
   If that is refused, and it is told that it is the observation (blame.py), it is a dead letter, and the others go on;
   else it is held: the first of those that are goes again every HELD_S, all of them when something was taken.
4. A PUBACK that refuses it for anything else: our rights, the topic, a quota, no reason at all. That would hit every
   other message as well. The connection ends, an alarm says why, and it is tried again with backoff.
5. The broker takes no packet that holds any observation (LEAST_BYTES), and says so in its CONNACK or by refusing one
   that is alone and no longer. That is its setting and nothing that an observation could be blamed for, so it is as 4:
   all of them wait. A broker that is another one at the next connection, or has been corrected, gets them.
"""

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import aiomqtt

from laterne_gateway.backoff import Backoff
from laterne_gateway.buffered import Lane
from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.route_settings import CIVITAS, MAX_MAX_BYTES, MIN_MAX_BYTES, CivitasSettings
from laterne_gateway.routes.beside import Beside
from laterne_gateway.routes.blame import Blame
from laterne_gateway.routes.civitas_envelope import TAIL, head_of, part_of
from laterne_gateway.routes.connection import PACKET_TOO_LARGE, Connection, cause_in_words, words_of
from laterne_gateway.routes.delivery import PUBACK_WITHIN_S
from laterne_gateway.routes.feed import LEFT_BEHIND, MAX_AHEAD, Feed, UnderWay
from laterne_gateway.routes.mqtt import BASE_S, CAP_S, STABLE_S, first_of, until_one_fails
from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.route import SENT
from laterne_gateway.routes.source import Source
from laterne_gateway.routes.stream import string
from laterne_gateway.routes.tls import certificate_words, pause_s, tls_context

log = logging.getLogger("laterne")

PUBLISH_BYTES = 8  # beside topic and payload: 5 of header, the packet identifier, no properties
LEAST_BYTES = MIN_MAX_BYTES  # an observation alone and its board have about 600 with names as they are
HELD_S = 5.0  # what is refused while nothing is taken goes again so often; by then the others under way were answered
LOOK_EVERY_S = 5.0  # for messages whose PUBACK does not come
# MQTT 5, 3.4.2.1: implementation specific error ("valid, but the receiver is not willing to accept it") and payload
# format invalid. Packet too large is none of a PUBACK's, and what mosquitto says by one all the same.
ABOUT_CONTENT = {0x83, PACKET_TOO_LARGE, 0x99}

MAX_REFUSED = 2 * MAX_AHEAD  # as many as are under way at a time, live and backlog: 3 MiB

Key = tuple[str, int, int, str, int]  # an observation: board, channel and its identity


class Refusal(NamedTuple):
    """limit: how many it may go with, 0: it is given up. at: which message was the last when it was first refused."""

    limit: int
    why: str
    at: int


class CivitasRoute:
    kind, level = CIVITAS, SENT

    def __init__(self, settings: CivitasSettings, source: Source) -> None:
        self.name = settings.name
        self._settings = settings
        self._source = source
        self._subject = source.subject
        self._prefix = source.prefix
        self._clock = source.clock
        self._health = source.health
        self._identifier = f"laterne-{source.gateway.tenant}-{source.gateway.id}-{settings.name}"
        self._broker = f"{settings.mqtt.host}:{settings.mqtt.port}"
        self._max_bytes = settings.max_bytes  # less where a broker has said that it takes less
        # Kept over connections, because a broker may hang up after a refusal; the newest MAX_REFUSED, because what was
        # refused may since have been dropped from the buffer. One that is forgotten is only refused once more.
        self._refused: dict[Key, Refusal] = {}
        self.blame = Blame(source.subject, source.clock, source.health)
        self._is_full = False  # no more dead letters are kept
        self._wrong = ""  # with the broker, in words, when it is not the connection

    async def run(self) -> None:
        backoff = Backoff(BASE_S, CAP_S, stable_s=STABLE_S)
        while True:
            await self._source.state_passed_over()  # also while there is no broker
            began_s = self._clock.monotonic_s()
            why: BaseException = aiomqtt.MqttError("the connection has ended")
            try:
                await self._connection()
            except* (aiomqtt.MqttError, OSError, ssl.SSLError, UnicodeError) as group:  # UnicodeError: a host's name
                why = first_of(group)
            self._health.note(self._subject, "connected", False)
            self._health.count(self._subject, "connections ended")
            said = self._wrong or certificate_words(why, time.time_ns() // 1_000_000) or cause_in_words(why)
            whose = "the broker" if self._wrong else "no broker"  # it is there
            self._health.alarm(
                self._subject, "broker", f"{whose} at {self._broker}: {said}; reports are kept and it is tried again"
            )
            lasted_s = self._clock.monotonic_s() - began_s
            await asyncio.sleep(pause_s(why, backoff.failed(lasted_s), self._clock.utc_ms()))

    async def _connection(self) -> None:
        self._wrong = ""
        context = await asyncio.get_running_loop().run_in_executor(None, tls_context, self._settings.mqtt)
        async with Connection(self._settings.mqtt, self._identifier, None, context) as client:
            topic = string(self._settings.topic)
            longest = longest_payload(client, topic)
            if longest < LEAST_BYTES:
                raise self._is_too_short(f"it takes packets of {client.max_packet_bytes} bytes at most")
            self._max_bytes = min(self._max_bytes, longest)
            self._health.note(self._subject, "connected", True)
            self._health.clear(self._subject, "broker")
            log.info("%s: connected to %s", self._subject, self._broker)
            sending = _Sending(self, client, topic)
            *backlog, live = self._source.buffer.part(self.name, LEFT_BEHIND)
            beside = Beside(self._source, sending.post_beside)
            await until_one_fails(
                client.ended(),
                self._feed(live, sending, None).run(),
                self._deliver_backlog(backlog, sending),
                beside.tell_gaps(),
                beside.send_dead_letters(),
                sending.watch(),
                sending.send_refused(),
                sending.send_held(),
            )

    async def _deliver_backlog(self, lanes: list[Lane], sending: "_Sending") -> None:
        pace = Pace(self._settings.mqtt.backlog_a_second, self._clock)
        for lane in lanes:
            await self._feed(lane, sending, pace).run()

    def _feed(self, lane: Lane, sending: "_Sending", pace: Pace | None) -> Feed:
        return Feed(self._source, lane, sending.post, pace)

    def envelopes(self, observations: list[Observation]) -> Iterator[tuple[bytes, list[Observation]]]:
        """Messages of at most max_bytes with the observations of one board, and which are in each."""
        if not observations:
            return
        board = observations[0].board
        head = head_of(self._prefix, board, self._source.roster.entry(board))
        parts: list[bytes] = []
        within: list[Observation] = []
        size, limit = len(head) + len(TAIL), len(observations)
        for one in observations:
            part = part_of(self._prefix, one)
            limit = min(limit, self._limit(one, limit))
            if parts and (size + len(part) + 1 > self._max_bytes or len(parts) >= limit):
                yield head + b",".join(parts) + TAIL, within
                parts, within, size = [], [], len(head) + len(TAIL)
                limit = self._limit(one, len(observations))
            parts.append(part)
            within.append(one)
            size += len(part) + 1
        yield head + b",".join(parts) + TAIL, within

    def note_taken(
        self, under_way: UnderWay, observations: list[Observation], number: int, *, nobody_listens: bool
    ) -> None:
        """The broker has acknowledged these, in the message with this number."""
        self.blame.take(number)
        self._health.count(self._subject, "observations delivered", len(observations))
        if nobody_listens:
            self._health.count(self._subject, "observations that nobody heard", len(observations))
            self._health.alarm(
                self._subject,
                "listeners",
                f"the broker says that nobody listens to {self._settings.topic}: unless it hands them on otherwise, "
                "what it acknowledges now is lost; have the platform subscribe, with a session that is kept",
            )
        else:
            self._health.clear(self._subject, "listeners")
        for one in observations:
            if self._refused.pop(_key(one), None) is not None:
                self._is_full = False  # it may be over: the others that are held go again, too
            under_way.settle()

    def note_refused(self, message: "_Message", size: int, reason: int) -> bool:
        """The broker has refused these for what they are, in a message of so many bytes. False: for something else."""
        if reason not in ABOUT_CONTENT:
            return False
        observations, why = message.observations, f"refused: {words_of(reason)}"
        self._health.count(self._subject, f"messages refused: {words_of(reason)}")
        if reason == PACKET_TOO_LARGE and len(observations) == 1 and size <= LEAST_BYTES:
            self._is_too_short(f"it refuses a message of {size} bytes as too large")
            return False
        if reason == PACKET_TOO_LARGE:
            self._max_bytes = max(LEAST_BYTES, min(self._max_bytes, size // 2))
        for one in observations:
            former = self._refused.pop(_key(one), None)
            at, limit = self.blame.begun if former is None else former.at, len(observations) // 2
            if not limit and message.letter is None and not self.blame.is_told(at):
                limit = 1
                self.blame.hold(one.board, why)
            self._refused[_key(one)] = Refusal(limit, why, at)
        while len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]  # the one that was refused longest ago
        return True

    def _is_too_short(self, said: str) -> aiomqtt.MqttError:
        self._wrong = f"{said}, less than observations need: have it take {LEAST_BYTES + 200} at least"
        return aiomqtt.MqttError(self._wrong)

    def pause_if_refused(self) -> None:
        """Raises MqttError: what is refused is taken for the broker's doing."""
        if self.blame.is_platform:
            self._wrong = "it refuses what several boards say and takes nothing"
            raise aiomqtt.MqttError(self._wrong)

    def is_given_up(self, one: Observation) -> bool:
        return self._limit(one, 1) == 0

    def is_told(self, one: Observation) -> bool:
        """Whether something was taken since it was refused, and there is room: refused again it is a dead letter."""
        found = self._refused.get(_key(one))
        return found is None or (self.blame.is_told(found.at) and not self._is_full)

    def _limit(self, one: Observation, otherwise: int) -> int:
        found = self._refused.get(_key(one))
        return otherwise if found is None else found.limit

    async def bury(self, one: Observation, under_way: UnderWay, letter: DeadLetter | None) -> bool:
        """It becomes a dead letter. False: there are too many."""
        why = self._refused[_key(one)].why
        found = letter or DeadLetter(one.board, one.sequence, one.place, why, one.to_json())
        found = DeadLetter(found.board, found.sequence, found.place, why, found.body, id=found.id)
        self._is_full = not await self._source.bury(found)
        if self._is_full:  # it goes again: somebody may have corrected the platform when there is room
            self._refused[_key(one)] = Refusal(1, why, self.blame.begun)
            return False
        self._refused.pop(_key(one), None)
        under_way.refused = True
        under_way.settle()
        return True


def longest_payload(client: Connection, topic: bytes) -> int:
    """What the broker takes at most in a PUBLISH to this topic (MQTT 5, 3.3)."""
    if client.max_packet_bytes is None:
        return MAX_MAX_BYTES
    return client.max_packet_bytes - len(topic) - PUBLISH_BYTES


def _key(one: Observation) -> Key:
    return one.board, one.channel, *one.identity


class _Message(NamedTuple):
    """observations: of one board. letter: the dead letter that they were, if it was one by itself."""

    observations: list[Observation]
    under_way: UnderWay
    is_late: bool
    letter: DeadLetter | None


class _Sending:
    """What is under way on one connection."""

    def __init__(self, route: CivitasRoute, client: Connection, topic: bytes) -> None:
        self._route = route
        self._topic = topic
        self._client = client
        self._longest = longest_payload(client, topic)
        self._slots = asyncio.Semaphore(client.window)
        # Half of the window at most: what is live never waits behind a whole one.
        self._late_slots = asyncio.Semaphore(max(1, client.window // 2))
        self._under_way: deque[list[float]] = deque()  # [when it was sent], [] once it is acknowledged
        self._refused: asyncio.Queue[_Message] = asyncio.Queue()  # at most what was under way
        self._held: list[_Message] = []  # as many; each of one observation

    async def post(self, observations: list[Observation], under_way: UnderWay, feed: Feed) -> None:
        await self._send(_Message(observations, under_way, feed.lane.upto is not None, None))

    async def post_beside(
        self, observations: list[Observation], under_way: UnderWay, letter: DeadLetter | None
    ) -> None:
        by_board: dict[str, list[Observation]] = {}
        for one in observations:
            by_board.setdefault(one.board, []).append(one)
        for of_board in by_board.values():
            await self._send(_Message(of_board, under_way, letter is not None, letter))

    async def _send(self, message: _Message) -> None:
        to_send: list[Observation] = []
        for one in message.observations:
            if not self._route.is_given_up(one):
                to_send.append(one)
            elif not await self._route.bury(one, message.under_way, message.letter):
                self._held.append(message._replace(observations=[one]))
        if to_send:
            await self._publish(message, to_send)

    async def _publish(self, message: _Message, to_send: list[Observation]) -> None:
        for payload, within in self._route.envelopes(to_send):
            if message.is_late:
                await self._late_slots.acquire()
            await self._slots.acquire()
            at = [asyncio.get_running_loop().time()]
            self._under_way.append(at)
            sent = message._replace(observations=within)
            number = self._route.blame.begin()
            if len(payload) > self._longest:  # one alone: the broker would hang up
                self._not_taken(at, sent, len(payload), PACKET_TOO_LARGE)
                continue
            taken, refused = partial(self._taken, at, sent, number), partial(self._not_taken, at, sent, len(payload))
            self._client.send(self._topic, payload, b"", taken, refused=refused)

    def _answered(self, at: list[float], message: _Message) -> None:
        at.clear()
        while self._under_way and not self._under_way[0]:
            self._under_way.popleft()
        self._slots.release()
        if message.is_late:
            self._late_slots.release()

    def _taken(self, at: list[float], message: _Message, number: int) -> None:
        self._answered(at, message)
        nobody = self._client.nobody_listens
        self._route.note_taken(message.under_way, message.observations, number, nobody_listens=nobody)

    def _not_taken(self, at: list[float], message: _Message, size: int, reason: int) -> bool:
        if not self._route.note_refused(message, size, reason):
            return False
        self._answered(at, message)
        if len(message.observations) > 1 or self._route.is_given_up(message.observations[0]):
            self._refused.put_nowait(message)
        else:
            self._held.append(message)
        return True

    async def send_refused(self) -> None:
        """For ever: what was refused goes again in halves; what is given up is a dead letter."""
        while True:
            await self._send(await self._refused.get())

    async def send_held(self) -> None:
        """For ever: what is held goes again. Raises MqttError: it is taken for the broker's doing.

        Not before all that went on this connection has been answered, and something of it was refused: a broker that
        has been corrected may be slow, and what was refused on former connections does not speak against it.
        """
        while True:
            await asyncio.sleep(HELD_S)
            if self._held and not self._under_way:
                self._route.pause_if_refused()
            held, self._held = self._held, []
            for number, message in enumerate(held):
                if not number or self._route.is_told(message.observations[0]):
                    await self._send(message)
                else:
                    self._held.append(message)

    async def watch(self) -> None:
        """Raises MqttError when the oldest message has waited too long for its PUBACK."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            oldest = self._under_way[0] if self._under_way else []
            if oldest and asyncio.get_running_loop().time() - oldest[0] > PUBACK_WITHIN_S:
                raise aiomqtt.MqttError(f"no acknowledgement within {PUBACK_WITHIN_S:.0f} s")
