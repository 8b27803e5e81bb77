"""A connection to an MQTT 5 broker: aiomqtt, with three things told that it keeps to itself, and a quicker way out.

1. A PUBACK may carry a refusal (MQTT 5, 3.4.2.1); aiomqtt takes each PUBACK for success. Here a refused message is
   never confirmed: `refused` says why instead.
2. The broker may allow fewer messages in flight than we would send (Receive Maximum, 3.2.2.3.3), and shorter ones.
3. Why a connection ended: another client may have come with our name (reason 0x8E).

Whoever is cancelled while an answer comes is cancelled (_wait_for). A connection that is cut while a message is on its
way, or while nobody waits for it, puts no traceback into the log: the route says that the broker is gone.

What is published goes past aiomqtt and paho, in bulk (stream.py). They connect, subscribe, keep alive, hear and leave.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from laterne_gateway.config import MqttSettings
from laterne_gateway.routes.stream import (
    FIRST_IDENTIFIER,
    LAST_IDENTIFIER,
    MAX_PACKET_BYTES,
    Stream,
    publish_packet,
    string,
)

KEEP_ALIVE_S = 30  # a dead broker is noticed within 45 s, and carrier NAT keeps the path for longer than this
SESSION_EXPIRY_S = 3600  # the broker keeps our session over a short outage; nothing of ours depends on it
CALL_WITHIN_S = 20.0  # CONNACK, DISCONNECT: a cellular link's worst round trips
SESSION_TAKEN_OVER = 0x8E
ACCEPTED_BELOW = 0x80  # MQTT 5, 2.4
NO_SUBSCRIBERS = 0x10  # a success, of a message that goes nowhere (MQTT 5, 3.4.2.1)
PACKET_TOO_LARGE = 0x95

Refused = Callable[[int], bool]  # told the reason code; whether that is the end of it, else the connection ends

log = logging.getLogger("laterne")
logging.getLogger("mqtt").setLevel(logging.CRITICAL)  # what it would say of a lost connection the route says


class Connection(aiomqtt.Client):
    """Use as `async with`. refused: the broker's reason for a message it did not take, else None."""

    def __init__(
        self,
        settings: MqttSettings,
        identifier: str,
        will: aiomqtt.Will | None,
        context: ssl.SSLContext | None,
        session_expiry_s: int = SESSION_EXPIRY_S,
    ) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's has no types
        properties.SessionExpiryInterval = session_expiry_s
        properties.MaximumPacketSize = MAX_PACKET_BYTES
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
        self.max_packet_bytes: int | None = None  # the broker takes no longer one (MQTT 5, 3.2.2.3.6)
        self.refused: int | None = None
        self.nobody_listens = False  # to the topic of the last message that was acknowledged
        self._stream: Stream | None = None
        self._under_way: dict[int, tuple[Callable[[], object], Refused | None]] = {}
        self._last_identifier = LAST_IDENTIFIER
        self._packets: list[bytes] = []  # of this turn of the loop

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # What ended in the turn in which it began is forgotten by aiomqtt, and whoever waits would wait for ever.
        if not self._client.is_connected():
            assert self._stream is not None
            self._end(aiomqtt.MqttError(self._stream.wrong or "the broker hung up as soon as it had let us in"))
        return self

    async def deliver(self, topic: str, body: str | bytes, properties: bytes = b"", *, retain: bool = False) -> None:
        """Publishes at QoS 1 and returns when the broker has acknowledged it, however long that takes.

        Whoever waits is cancelled when the connection ends.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        data = body.encode() if isinstance(body, str) else body
        self.send(string(topic), data, properties, partial(_settle, done), retain=retain)
        await done

    async def ended(self) -> None:
        """Raises MqttError when the connection has ended; for whoever subscribes to nothing."""
        async for message in self.messages:
            log.debug("a message that nobody asked for: %s", message.topic.value[:64])

    def send(
        self,
        topic: bytes,
        body: bytes,
        properties: bytes,
        acknowledged: Callable[[], object],
        *,
        retain: bool = False,
        refused: Refused | None = None,
    ) -> None:
        """Publishes at QoS 1, together with all else of this turn of the event loop. topic: as stream.string() has it.

        acknowledged: called when the broker has taken it, never if it refuses it or the connection ends. refused: asked
        when it refuses it. At most `window` of all may be under way: the caller counts.
        """
        identifier = self._last_identifier
        while True:
            identifier = identifier + 1 if identifier < LAST_IDENTIFIER else FIRST_IDENTIFIER
            if identifier not in self._under_way:
                break
        self._last_identifier = identifier
        self._under_way[identifier] = acknowledged, refused
        if not self._packets:
            self._loop.call_soon(self._send_all)
        self._packets.append(publish_packet(identifier, topic, properties, body, retain=retain))

    def _send_all(self) -> None:
        packets, self._packets = self._packets, []
        stream = self._stream
        if stream is None or self._disconnected.done():
            return  # whoever waits is told of that
        try:
            stream.write(b"".join(packets))
        except OSError as why:
            self._end(why)
            return
        if stream.is_full:
            self._loop.add_writer(stream.fileno(), self._write, self._client)

    def _take_acknowledgement(self, identifier: int, reason: int) -> bool:
        found = self._under_way.pop(identifier, None)
        if found is None:
            return False
        acknowledged, refused = found
        if reason < ACCEPTED_BELOW:
            self.nobody_listens = reason == NO_SUBSCRIBERS
            if self.refused is None:
                acknowledged()
        elif refused is None or not refused(reason):
            self.refused = reason
            self._end(aiomqtt.MqttError(f"a message was refused: {words_of(reason)}"))
        return True

    def _end(self, why: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(why)

    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # In connect()'s thread, before paho has sent anything: from here on it has our stream for its socket.
        stream = self._stream = Stream(sock, self._take_acknowledgement)
        client._sock = stream
        super()._on_socket_open(client, userdata, stream)
        self._loop.call_soon_threadsafe(self._hear, client, stream)

    def _hear(self, client: PahoClient, stream: Stream) -> None:
        if stream.fileno() >= 0:
            self._loop.add_reader(stream.fileno(), self._read, client, stream)  # in the place of aiomqtt's

    def _read(self, client: PahoClient, stream: Stream) -> None:
        try:
            stream.read()
            if stream.wrong:
                self._end(aiomqtt.MqttError(stream.wrong))
            while stream.has_more and client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS:
                pass
        except Exception as why:  # as aiomqtt: whatever cannot be read ends the connection, and the route says why
            self._end(why)

    def _on_socket_close(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())
        super()._on_socket_close(client, userdata, sock)

    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        if self._stream is None or not self._stream.is_full:
            super()._on_socket_unregister_write(client, userdata, sock)

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
        longest = getattr(properties, "MaximumPacketSize", None)
        self.max_packet_bytes = longest if isinstance(longest, int) else None
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
        if not self._connected.done():  # aiomqtt would wait for a CONNACK that cannot come any more
            self._connected.set_exception(aiomqtt.MqttError("the broker hung up before it let us in"))
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # seen: who waits for it is told all the same

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # From connect()'s thread or from the loop. When it is the loop's turn the socket may have been closed.
        def register() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), self._write, client)

        self._loop.call_soon_threadsafe(register)

    def _write(self, client: PahoClient) -> None:
        stream = self._stream
        try:
            if stream is not None:
                stream.flush()
            client.loop_write()
        except OSError as why:
            self._end(why)
            return
        if stream is not None and stream.fileno() >= 0 and not stream.is_full and not client.want_write():
            self._loop.remove_writer(stream.fileno())


def _settle(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


def words_of(reason: int) -> str:
    """Of a PUBACK (MQTT 5, 3.4.2.1)."""
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=reason))
    except (KeyError, AssertionError, ValueError):  # not one of a PUBACK's
        return "Packet too large" if reason == PACKET_TOO_LARGE else f"reason 0x{reason:02x}"


def read_password(settings: MqttSettings) -> str | None:
    """The password in its file, without the line's end. Raises OSError."""
    if settings.password_file is None:
        return None
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:  # which holds what it could not read
        raise OSError(f"{settings.password_file} holds no UTF-8 text: is it the password's file?") from None


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
    system = why.__context__  # of which aiomqtt keeps the text only, when it could not connect
    return system if isinstance(system, OSError) and system.strerror and isinstance(why, aiomqtt.MqttError) else why


def cause_in_words(why: BaseException) -> str:
    """What an error came from in the first place, without its number; the file that it is about comes first."""
    first = cause_of(why)
    if isinstance(first, aiomqtt.MqttCodeError) and isinstance(first.rc, ReasonCode):
        return str(first.rc)
    if isinstance(first, OSError) and not isinstance(first, ssl.SSLError) and first.strerror:
        return f"{first.filename}: {first.strerror}" if first.filename else first.strerror
    return str(first)
