"""A connection to an MQTT 5 broker: aiomqtt, with three things told that it keeps to itself, and a quicker publish().

1. A PUBACK may carry a refusal (MQTT 5, 3.4.2.1); aiomqtt takes each PUBACK for success. Here a refused message is
   never confirmed: `refused` says why instead.
2. The broker may allow fewer messages in flight than we would send (Receive Maximum, 3.2.2.3.3).
3. Why a connection ended: another client may have come with our name (reason 0x8E).

Whoever is cancelled while an answer comes is cancelled (_wait_for). A connection that is cut while a message is on its
way, or while nobody waits for it, puts no traceback into the log: the route says that the broker is gone.

A report costs a gateway 0.3 ms in all, so deliver() leaves out what aiomqtt and paho do for messages of every kind.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import Awaitable
from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from laterne_gateway.config import MqttSettings

KEEP_ALIVE_S = 30  # a dead broker is noticed within 45 s, and carrier NAT keeps the path for longer than this
SESSION_EXPIRY_S = 3600  # the broker keeps our session over a short outage; nothing of ours depends on it
CALL_WITHIN_S = 20.0  # CONNACK, DISCONNECT: a cellular link's worst round trips
SESSION_TAKEN_OVER = 0x8E
ACCEPTED_BELOW = 0x80  # MQTT 5, 2.4

_USER_PROPERTY = b"\x26"  # MQTT 5, 2.2.2.2

logging.getLogger("mqtt").setLevel(logging.CRITICAL)  # what it would say of a lost connection the route says


class UserProperties:
    """The properties of a PUBLISH that has user properties only: paho asks for nothing but their bytes.

    At most 127 bytes of them. paho's own Properties takes 50 us to fill and pack.
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        strings = (text.encode() for pair in pairs for text in pair)
        packed = [len(text).to_bytes(2, "big") + text for text in strings]
        self._bytes = b"".join(
            _USER_PROPERTY + name + value for name, value in zip(packed[::2], packed[1::2], strict=True)
        )
        if len(self._bytes) > 127:  # their length is written in one byte here (MQTT 5, 1.5.5)
            raise ValueError(f"{len(self._bytes)} bytes of user properties, at most 127 fit")

    def pack(self) -> bytes:
        return bytes((len(self._bytes),)) + self._bytes


class Connection(aiomqtt.Client):
    """Use as `async with`. refused: the broker's reason for a message it did not take, else None."""

    def __init__(
        self, settings: MqttSettings, identifier: str, will: aiomqtt.Will, context: ssl.SSLContext | None
    ) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        super().__init__(
            settings.host,
            settings.port,
            username=settings.username,
            password=read_password(settings),
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            will=will,
            timeout=CALL_WITHIN_S,
            keepalive=KEEP_ALIVE_S,
            clean_start=False,
            max_inflight_messages=settings.in_flight,
            properties=properties,
            tls_context=context,
        )
        self.pending_calls_threshold = settings.in_flight + 1
        self.window = settings.in_flight
        self.refused: ReasonCode | None = None
        self._under_way: dict[int, asyncio.Future[None]] = {}

    async def deliver(self, topic: str, body: bytes, properties: UserProperties) -> None:
        """Publishes at QoS 1 and returns when the broker has acknowledged it, however long that takes.

        Raises MqttError when it cannot be sent. As with publish(), whoever waits is cancelled when the connection ends.
        """
        info = self._client.publish(topic, body, 1, False, properties)  # type: ignore[arg-type]
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "a message could not be sent")
        # The PUBACK is read by this loop, so not before this coroutine waits.
        acknowledged = self._under_way[info.mid] = asyncio.get_running_loop().create_future()
        try:
            await acknowledged
        finally:
            del self._under_way[info.mid]

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        allowed = getattr(properties, "ReceiveMaximum", None)
        if isinstance(allowed, int) and allowed > 0:
            self.window = min(self.window, allowed)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    async def _wait_for(self, fut: Awaitable[Any], timeout: float | None) -> Any:  # noqa: ASYNC109 - aiomqtt's
        # As aiomqtt's, without wait_for(): until Python 3.12 that swallows a cancellation which comes together with
        # the answer (cpython, issue 86296), and a gateway that was told to stop went on for ever.
        limit_s = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if limit_s == math.inf else limit_s):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("no answer from the broker in time") from None

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # seen: who waits for it is told all the same

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # From connect()'s thread or from the loop. When it is the loop's turn the socket may have been closed.
        def register() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), self._write, client)

        self._loop.call_soon_threadsafe(register)

    def _write(self, client: PahoClient) -> None:
        try:
            client.loop_write()
        except OSError as why:
            if not self._disconnected.done():
                self._disconnected.set_exception(why)

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.value >= ACCEPTED_BELOW:
            self.refused = reason_code
            if not self._disconnected.done():
                self._disconnected.set_exception(aiomqtt.MqttCodeError(reason_code, "a message was refused"))
            return
        acknowledged = self._under_way.get(mid)
        if acknowledged is None:
            super()._on_publish(client, userdata, mid, reason_code, properties)
        elif not acknowledged.done():
            acknowledged.set_result(None)


def read_password(settings: MqttSettings) -> str | None:
    """The password in its file, without the line's end. Raises OSError."""
    if settings.password_file is None:
        return None
    return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or later, the broker's name and certificate checked; None without TLS. Raises OSError, ssl.SSLError."""
    if not settings.tls:
        return None
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file is not None and settings.key_file is not None:
        # A key with a passphrase must fail, not ask on a terminal that nobody watches.
        context.load_cert_chain(str(settings.certificate_file), str(settings.key_file), password=lambda: b"")
    return context


def reason_of(why: BaseException) -> int | None:
    """The broker's reason code behind an error, if it gave one."""
    first = cause_of(why)
    return (
        int(first.rc.value) if isinstance(first, aiomqtt.MqttCodeError) and isinstance(first.rc, ReasonCode) else None
    )


def cause_of(why: BaseException) -> BaseException:
    """What an error came from in the first place: aiomqtt wraps."""
    while why.__cause__ is not None:
        why = why.__cause__
    return why
