"""The MQTT route (design 6): the boards' signed bytes, unchanged, to a broker.

The broker's PUBACK decides, nothing else: a lane moves when its oldest message under way has been acknowledged, so it
never passes one that has not. What was under way when a connection ended is sent again on the next, from there on;
subscribers remove what they have seen by (board, sequence).

What order means. There are two streams. Live: what arrives while we are connected, in the order of arrival. Backlog:
what an outage left behind, oldest first, not faster than the settings say, and marked historical. Within a stream a
board's sequences ascend, but for a report that the broker has refused while it took what was behind it. Across them a
live report may come before older ones of its board: whoever keeps the newest value passes over what is historical,
whoever keeps the record sorts by (board, sequence). Gaps go before both.

Two gateways with one id throw each other out at the broker. A broker may say so (reason 0x8E), but mosquitto 2.0.11
just closes; so each process writes an instance into its retained status and reads it: another one's is a twin's.
"""

import asyncio
import json
import logging
import secrets
import ssl
import time
from collections.abc import Coroutine

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from laterne_gateway import VERSION
from laterne_gateway.backoff import Backoff
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Lane
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.config import GatewaySettings, MqttSettings
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.orders import Orders
from laterne_gateway.route_settings import MQTT_NAME
from laterne_gateway.routes.connection import (
    ACCEPTED_BELOW,
    SESSION_TAKEN_OVER,
    Connection,
    cause_in_words,
    cause_of,
    reason_of,
)
from laterne_gateway.routes.delivery import PUBACK_WITHIN_S, Delivery
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.releases import ReleaseTopics
from laterne_gateway.routes.route import SENT
from laterne_gateway.routes.stream import user_property
from laterne_gateway.routes.tls import certificate_words, pause_s, tls_context
from laterne_gateway.updates import Updates
from laterne_gateway.writer import AGAIN_S, StoreError

log = logging.getLogger("laterne")

NAME = MQTT_NAME
BASE_S, CAP_S = 1.0, 300.0  # 500 gateways after an outage: about 1.7 connections a second (facts/gateway.md, 8)
STABLE_S = 60.0
TWIN_FLOOR_S = 20.0  # two gateways with one name would throw each other out as fast as they can
GAPS_AT_ONCE = 64
MAX_STATUS_BYTES = 256  # ours has about 110; more on our status topic is not ours
GOODBYE_WITHIN_S = 3.0  # the stopping gateway waits this long for a broker to take its last message


class MqttRoute:
    name, kind, level = NAME, "mqtt", SENT

    def __init__(
        self,
        gateway: GatewaySettings,
        settings: MqttSettings,
        buffer: Buffer,
        orders: Orders,
        updates: Updates,
        clock: Clock,
        health: Health,
        dates: Dates,
    ) -> None:
        self._dates = dates
        self._settings = settings
        self._orders = orders
        self._buffer = buffer
        self._clock = clock
        self._health = health
        self._prefix = f"laterne/v1/{gateway.tenant}/{gateway.id}"
        self._status = f"{self._prefix}/status"
        self._ordered = f"{self._prefix}/order/"
        self._identifier = f"laterne-{gateway.tenant}-{gateway.id}"
        self._subject = f"route {NAME}"
        self._releases = ReleaseTopics(gateway.tenant, self._prefix, updates, health)
        self._broker = f"{settings.host}:{settings.port}"
        self._instance = secrets.token_hex(8)
        self._connected_s: float | None = None
        self._was_connected = False
        self._twin_seen = False
        self._heard_itself = False

    async def run(self) -> None:
        """Delivers for ever; when cancelled it says goodbye to the broker first."""
        backoff = Backoff(BASE_S, CAP_S, stable_s=STABLE_S)
        while True:
            began_s = self._clock.monotonic_s()
            self._connected_s = None
            why: BaseException = aiomqtt.MqttError("the connection has ended")
            try:
                await self._connection()
            except* (aiomqtt.MqttError, OSError, ssl.SSLError, UnicodeError) as group:  # UnicodeError: a host's name
                why = first_of(group)
            lasted_s = 0.0 if self._connected_s is None else self._clock.monotonic_s() - self._connected_s
            self._health.note(self._subject, "connected", False)
            wait_s = pause_s(why, backoff.failed(lasted_s), self._clock.utc_ms())
            if reason_of(why) == SESSION_TAKEN_OVER:
                self._note_twin()
            if self._twin_seen:
                self._twin_seen = False
                wait_s = max(wait_s, TWIN_FLOOR_S)
            self._health.count(self._subject, "connections failed" if self._connected_s is None else "connections lost")
            self._health.alarm(
                self._subject,
                "broker",
                f"no broker at {self._broker}: {self._in_words(why)}; reports are kept and it is tried again",
            )
            log.debug("%s: lasted %.1f s, next in %.1f s", self._subject, self._clock.monotonic_s() - began_s, wait_s)
            await asyncio.sleep(wait_s)

    def _in_words(self, why: BaseException) -> str:
        certificate = certificate_words(why, time.time_ns() // 1_000_000)
        if certificate is not None:
            return certificate
        said, first = cause_in_words(why), cause_of(why)
        # TLS 1.3 lets us finish before the broker has looked for our certificate: it then just hangs up.
        is_hung_up = not isinstance(first, OSError) or isinstance(first, ssl.SSLError | ConnectionResetError)
        if self._connected_s is None and is_hung_up and self._settings.tls and self._settings.certificate_file is None:
            return f"{said} (if it wants a certificate of this gateway, set certificate_file and key_file)"
        return said

    async def _connection(self) -> None:
        will = aiomqtt.Will(self._status, self._told("offline", "connection lost"), qos=1, retain=True)
        context = await asyncio.get_running_loop().run_in_executor(None, tls_context, self._settings)
        async with Connection(self._settings, self._identifier, will, context) as client:
            self._connected_s = self._clock.monotonic_s()
            try:
                topics = [(self._status, 1), (self._ordered + "+", 1)]
                self._orders.connected()
                self._releases.connected()
                if self._was_connected:  # what is kept there now is our own will, or else a twin's word
                    self._check(await client.subscribe(topics))
                await _in_time(client.deliver(self._status, self._told("online", ""), retain=True))
                if not self._was_connected:  # what was kept there may have been a former process's
                    self._check(await client.subscribe(topics))
                self._was_connected = True
                self._health.note(self._subject, "connected", True)
                self._health.count(self._subject, "connections")
                self._health.clear(self._subject, "broker")
                waiting = self._buffer.waiting(NAME)
                log.info("%s: connected to %s, %d reports waiting", self._subject, self._broker, waiting)
                slots = asyncio.Semaphore(client.window)
                *backlog, live = self._buffer.part(NAME)
                await until_one_fails(
                    self._listen(client),
                    self._tell_gaps(client, slots),
                    self._delivery(client, live, client.window, slots, None).run(),
                    self._deliver_backlog(client, backlog, slots),
                    self._hand_back(client),
                    self._releases.fetch(client),
                    self._releases.tell(client),
                )
            except asyncio.CancelledError:
                await self._goodbye(client)
                raise

    async def _goodbye(self, client: Connection) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await client.deliver(self._status, self._told("offline", "stopped"), retain=True)
        except (aiomqtt.MqttError, TimeoutError) as why:
            log.info("%s: the broker did not hear the goodbye: %s", self._subject, why)

    async def _listen(self, client: Connection) -> None:
        async for message in client.messages:
            topic, payload = message.topic.value, message.payload
            if not isinstance(payload, bytes):
                continue
            if topic.startswith(self._ordered):
                self._orders.take(topic.removeprefix(self._ordered), payload)
            elif topic.startswith(self._releases.prefix):
                self._releases.take(topic, payload)
            elif topic == self._status:
                instance = _instance_in(payload)
                if instance == self._instance:
                    self._heard_itself = True
                # What comes before our own word is history: the last will of the process before us, which the broker
                # has kept for our session.
                elif instance is not None and self._heard_itself:
                    self._note_twin()

    def _check(self, answer: tuple[int, ...] | list[ReasonCode]) -> None:
        codes = [one if isinstance(one, int) else one.value for one in answer]
        if any(code >= ACCEPTED_BELOW for code in codes):
            self._health.alarm(
                self._subject,
                "subscriptions",
                f"the broker does not let us hear {self._status} and {self._ordered}+: correct its rules",
            )
        else:
            self._health.clear(self._subject, "subscriptions")

    async def _hand_back(self, client: Connection) -> None:
        while True:
            board, body, noted = await self._orders.receipt()
            # Retained: PUBACK then means that the operator's command will find it, also when it is away just now.
            said = user_property("noted", "true" if noted else "false")
            await _in_time(client.deliver(f"{self._prefix}/{board}/receipt", body, said, retain=True))
            self._orders.published(board, body, noted)

    def _note_twin(self) -> None:
        self._twin_seen = True
        self._health.count(self._subject, "twin at the broker")
        self._health.alarm(
            self._subject,
            "twin",
            f"another gateway comes to the broker as {self._identifier}: give each gateway an id of its own",
        )

    def _told(self, state: str, reason: str) -> str:
        said = {"state": state, "version": VERSION, "instance": self._instance}
        return json.dumps({**said, "reason": reason} if reason else said)

    async def _deliver_backlog(self, client: Connection, lanes: list[Lane], slots: asyncio.Semaphore) -> None:
        pace = Pace(self._settings.backlog_a_second, self._clock)
        for lane in lanes:
            # Half of the window at most: what is live never waits behind a whole one.
            await self._delivery(client, lane, max(1, client.window // 2), slots, pace).run()
        if lanes:
            log.info("%s: what an outage had left behind is delivered", self._subject)

    def _delivery(
        self, client: Connection, lane: Lane, window: int, slots: asyncio.Semaphore, pace: Pace | None
    ) -> Delivery:
        return Delivery(
            self._subject,
            self._prefix,
            lane,
            client,
            window,
            slots,
            pace,
            self._buffer,
            self._clock,
            self._health,
            self._dates,
        )

    async def _tell_gaps(self, client: Connection, slots: asyncio.Semaphore) -> None:
        while True:
            gaps = await self._buffer.gaps(NAME, GAPS_AT_ONCE)
            for gap in gaps:
                said = {"from": gap.first, "to": gap.last, "reason": gap.reason}
                if gap.noticed_ms is not None:
                    said["noticed"] = rfc3339(gap.noticed_ms)
                topic = f"{self._prefix}/{gap.board}/gap"
                async with slots:
                    await _in_time(client.deliver(topic, json.dumps(said)))
                self._health.count(self._subject, "gaps told")
            try:
                await self._buffer.told(NAME, gaps[-1].id)
            except StoreError as why:
                log.debug("%s: gaps are told again: %s", self._subject, why)
                await asyncio.sleep(AGAIN_S)


def _instance_in(payload: bytes) -> str | None:
    """Whose status this is; None for what no gateway of ours wrote."""
    if len(payload) > MAX_STATUS_BYTES:
        return None
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    instance = found.get("instance") if isinstance(found, dict) else None
    return instance if isinstance(instance, str) else None


async def _in_time(delivery: Coroutine[None, None, None]) -> None:
    try:
        async with asyncio.timeout(PUBACK_WITHIN_S):
            await delivery
    except TimeoutError:
        raise aiomqtt.MqttError(f"no acknowledgement within {PUBACK_WITHIN_S:.0f} s") from None


async def until_one_fails(*works: Coroutine[None, None, None]) -> None:
    """Runs them until one fails, and raises what that one raised.

    Not a TaskGroup: until Python 3.13 one that is ending with an error swallows a cancellation (cpython, issue 116720).
    A gateway that was told to stop in the moment in which its broker hung up went on for ever.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    why: BaseException = group
    while isinstance(why, BaseExceptionGroup):
        why = why.exceptions[0]
    return why
