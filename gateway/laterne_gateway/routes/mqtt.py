"""The MQTT route (design 6): the boards' signed bytes, unchanged, to a broker.

The broker's PUBACK decides, nothing else: a lane moves when its oldest message under way has been acknowledged, so it
never passes one that has not. What was under way when a connection ended is sent again on the next, from there on;
subscribers remove what they have seen by (board, sequence).

What order means. There are two streams. Live: what arrives while we are connected, in the order of arrival. Backlog:
what an outage left behind, oldest first, not faster than the settings say, and marked historical. Within a stream a
board's sequences ascend. Across them a live report may come before older ones of its board: whoever keeps the newest
value passes over what is historical, whoever keeps the record sorts by (board, sequence). Gaps go before both.

Two gateways with one id throw each other out at the broker. A broker may say so (reason 0x8E), but mosquitto 2.0.11
just closes; so each process writes an instance into its retained status and reads it: another one's is a twin's.
"""

import asyncio
import json
import logging
import secrets
import ssl
from collections import deque
from collections.abc import Coroutine

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from laterne_gateway import VERSION
from laterne_gateway.backoff import Backoff
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Lane, Row
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.config import GatewaySettings, MqttSettings
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.orders import Orders
from laterne_gateway.routes.connection import (
    ACCEPTED_BELOW,
    SESSION_TAKEN_OVER,
    Connection,
    UserProperties,
    cause_of,
    reason_of,
    tls_context,
)
from laterne_gateway.routes.pace import Pace
from laterne_gateway.writer import AGAIN_S, StoreError

log = logging.getLogger("laterne")

NAME = "mqtt"
BASE_S, CAP_S = 1.0, 300.0  # 500 gateways after an outage: about 1.7 connections a second (facts/gateway.md, 8)
STABLE_S = 60.0
TWIN_FLOOR_S = 20.0  # two gateways with one name would throw each other out as fast as they can
PUBACK_WITHIN_S = 60.0  # a broker that takes longer for the oldest message is taken for gone
LATE_AFTER_MS = 120_000  # a report closes every minute: one that is two minutes old waited somewhere
GAPS_AT_ONCE = 64
MAX_STATUS_BYTES = 256  # ours has about 110; more on our status topic is not ours
GOODBYE_WITHIN_S = 3.0  # the stopping gateway waits this long for a broker to take its last message


class MqttRoute:
    def __init__(
        self,
        gateway: GatewaySettings,
        settings: MqttSettings,
        buffer: Buffer,
        orders: Orders,
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
            except* (aiomqtt.MqttError, OSError, ssl.SSLError) as group:
                why = _first(group)
            lasted_s = 0.0 if self._connected_s is None else self._clock.monotonic_s() - self._connected_s
            self._health.note(self._subject, "connected", False)
            pause_s = backoff.failed(lasted_s)
            if reason_of(why) == SESSION_TAKEN_OVER:
                self._note_twin()
            if self._twin_seen:
                self._twin_seen = False
                pause_s = max(pause_s, TWIN_FLOOR_S)
            self._health.count(self._subject, "connections failed" if self._connected_s is None else "connections lost")
            self._health.alarm(
                self._subject,
                "broker",
                f"no broker at {self._broker}: {cause_of(why)}{self._hint()}; reports are kept and it is tried again",
            )
            log.debug("%s: lasted %.1f s, next in %.1f s", self._subject, self._clock.monotonic_s() - began_s, pause_s)
            await asyncio.sleep(pause_s)

    def _hint(self) -> str:
        # TLS 1.3 lets us finish before the broker has looked for our certificate: it then just hangs up.
        if self._connected_s is None and self._settings.tls and self._settings.certificate_file is None:
            return " (if it wants a certificate of this gateway, set certificate_file and key_file)"
        return ""

    async def _connection(self) -> None:
        will = aiomqtt.Will(self._status, self._told("offline", "connection lost"), qos=1, retain=True)
        context = await asyncio.get_running_loop().run_in_executor(None, tls_context, self._settings)
        async with Connection(self._settings, self._identifier, will, context) as client:
            self._connected_s = self._clock.monotonic_s()
            try:
                topics = [(self._status, 1), (self._ordered + "+", 1)]
                self._orders.connected()
                if self._was_connected:  # what is kept there now is our own will, or else a twin's word
                    self._check(await client.subscribe(topics))
                await client.publish(self._status, self._told("online", ""), qos=1, retain=True)
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
                await _until_one_fails(
                    self._listen(client),
                    self._tell_gaps(client, slots),
                    self._deliver(client, live, client.window, slots, None),
                    self._deliver_backlog(client, backlog, slots),
                    self._hand_back(client),
                )
            except asyncio.CancelledError:
                await self._goodbye(client)
                raise

    async def _goodbye(self, client: Connection) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await client.publish(self._status, self._told("offline", "stopped"), qos=1, retain=True)
        except (aiomqtt.MqttError, TimeoutError) as why:
            log.info("%s: the broker did not hear the goodbye: %s", self._subject, why)

    async def _listen(self, client: Connection) -> None:
        async for message in client.messages:
            topic, payload = message.topic.value, message.payload
            if not isinstance(payload, bytes):
                continue
            if topic.startswith(self._ordered):
                self._orders.take(topic.removeprefix(self._ordered), payload)
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
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = [("noted", "true" if noted else "false")]
            # Retained: PUBACK then means that the operator's command will find it, also when it is away just now.
            await client.publish(
                f"{self._prefix}/{board}/receipt", body, 1, True, properties=properties, timeout=PUBACK_WITHIN_S
            )
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
            await self._deliver(client, lane, max(1, client.window // 2), slots, pace)
        if lanes:
            log.info("%s: what an outage had left behind is delivered", self._subject)

    async def _deliver(
        self, client: Connection, lane: Lane, window: int, slots: asyncio.Semaphore, pace: Pace | None
    ) -> None:
        """Delivers a lane to its end. slots: of all lanes together. pace: of what is late anyway."""
        under_way: deque[tuple[Row, asyncio.Task[None]]] = deque()
        sent_id = lane.delivered
        try:
            while True:
                last_id = self._buffer.last_id if lane.upto is None else lane.upto
                if len(under_way) < window and last_id > sent_id:
                    rows = await self._buffer.oldest(sent_id, window - len(under_way), last_id)
                    for row in rows:
                        if pace is not None:
                            await pace.next()
                        # A task runs up to its first wait in the order of creation: messages leave in order.
                        sending = self._publish(client, row, slots, lane.upto is not None)
                        under_way.append((row, asyncio.create_task(sending)))
                    sent_id = rows[-1].id if rows else last_id  # none: they have gone otherwise
                if under_way:
                    await self._oldest_is_acknowledged(lane, under_way, window, sent_id)
                elif lane.upto is None:
                    await self._buffer.arrived(sent_id)
                elif sent_id >= lane.upto:
                    self._buffer.delivered(lane, lane.upto)
                    return
        finally:
            for _, task in under_way:
                task.cancel()
            # What went wrong with the first is being raised; the others failed of the same.
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    async def _oldest_is_acknowledged(
        self, lane: Lane, under_way: "deque[tuple[Row, asyncio.Task[None]]]", window: int, sent_id: int
    ) -> None:
        waits: set[asyncio.Task[None]] = {under_way[0][1]}
        more: asyncio.Task[None] | None = None
        if lane.upto is None and len(under_way) < window and not under_way[0][1].done():
            more = asyncio.create_task(self._buffer.arrived(sent_id))
            waits.add(more)
        try:
            done, _ = await asyncio.wait(waits, timeout=PUBACK_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if more is not None:
                more.cancel()
        if not done:
            raise aiomqtt.MqttError(f"no acknowledgement within {PUBACK_WITHIN_S:.0f} s")
        delivered: Row | None = None
        while under_way and under_way[0][1].done():
            row, task = under_way.popleft()
            task.result()  # raises what went wrong
            delivered = row
            self._health.count(self._subject, "reports delivered" if lane.upto is None else "backlog delivered")
        if delivered is not None:
            self._buffer.delivered(lane, delivered.id)

    async def _publish(self, client: Connection, row: Row, slots: asyncio.Semaphore, left_behind: bool) -> None:
        async with slots:
            dated = self._dates.date(row.board, row.body) if row.closed_ms is None else None
            late = left_behind or is_late(row, self._clock.utc_ms(), dated)
            said = [("historical", "true" if late else "false")]
            if dated is not None:
                self._health.count(self._subject, "reports dated afterwards")
                said += [("dated", rfc3339(dated[0])), ("dated_within_ms", str(dated[1]))]
            if row.received_ms is not None:
                said.insert(0, ("received", rfc3339(row.received_ms)))
            await client.deliver(f"{self._prefix}/{row.board}/report", row.body, UserProperties(said))

    async def _tell_gaps(self, client: Connection, slots: asyncio.Semaphore) -> None:
        while True:
            gaps = await self._buffer.gaps(NAME, GAPS_AT_ONCE)
            for gap in gaps:
                said = {"from": gap.first, "to": gap.last, "reason": gap.reason}
                if gap.noticed_ms is not None:
                    said["noticed"] = rfc3339(gap.noticed_ms)
                topic = f"{self._prefix}/{gap.board}/gap"
                async with slots:
                    await client.publish(topic, json.dumps(said), qos=1, timeout=PUBACK_WITHIN_S)
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


def is_late(row: Row, now_ms: int | None, dated: tuple[int, int] | None = None) -> bool:
    """Whether a platform should take the report for history: it waited on the board or here. Unknown is not late.

    dated: when it was closed as we see it (dates.py), if the board did not know.
    """
    closed_ms = row.closed_ms if dated is None else dated[0]
    known = [at for at in (closed_ms, row.received_ms) if at is not None]
    return now_ms is not None and bool(known) and now_ms - min(known) > LATE_AFTER_MS


async def _until_one_fails(*works: Coroutine[None, None, None]) -> None:
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


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    why: BaseException = group
    while isinstance(why, BaseExceptionGroup):
        why = why.exceptions[0]
    return why
