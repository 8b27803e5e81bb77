"""A TCP proxy in front of an MQTT broker that knows where packets begin, and does to each what a rule says.

It reads fixed headers only (MQTT 5, 2.1): what kind of packet, how long. So "after CONNECT", "before the third PUBACK"
or "in the middle of a PUBLISH" are points that a test can choose, with a real client at one end and a real broker at
the other.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UP, DOWN = "up", "down"  # towards the broker, towards the gateway
MAX_HEADER_BYTES = 5
READ_BYTES = 65536
SLOW_BYTES = 16  # what passes at a time when a connection is slow


class Do(Enum):
    """What happens to a packet, and to its connection."""

    PASS = "pass"
    SWALLOW = "swallow"  # it never arrives; the connection stays
    CUT = "cut"  # the connection is reset before it
    CUT_AFTER = "cut after"  # it arrives, then the connection is reset
    CUT_INSIDE = "cut inside"  # a part of it arrives, then the connection is reset
    STALL = "stall"  # from here on nothing passes on this connection, and nobody is told
    SLOW = "slow"  # from here on everything passes in small pieces, with pauses


@dataclass(frozen=True)
class Answer:
    """The packet goes no further; its sender is told this in the other's name."""

    data: bytes


@dataclass(frozen=True)
class Instead:
    """This arrives in the packet's place."""

    data: bytes


@dataclass(frozen=True)
class Packet:
    """kind: of MQTT. number: how many of this kind went this way before, over all connections. connection: from 0."""

    way: str
    kind: int
    number: int
    connection: int
    data: bytes


class Proxy:
    """`async with Proxy(broker_port) as proxy`: clients connect to proxy.port.

    rule: asked for each packet. refusing: new connections are reset at once. pause_s: between the pieces of a slow one.
    """

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self.rule: Callable[[Packet], Do | Answer | Instead] = lambda packet: Do.PASS
        self.refusing = False
        self.pause_s = 0.05
        self.port = 0
        self.connections = 0
        self.counts: Counter[Do] = Counter()
        self._seen: Counter[tuple[str, int]] = Counter()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *why: object) -> None:
        assert self._server is not None
        self._server.close()
        self.refusing = True  # whoever has been accepted and not been served yet
        await asyncio.sleep(0)
        await self.cut_all()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """What a gateway's configuration says."""
        return f"mqtt://127.0.0.1:{self.port}"

    def lead_to(self, broker_port: int) -> None:
        """New connections go to this one."""
        self._broker_port = broker_port

    async def cut_all(self) -> None:
        """Every connection is reset."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if not self.refusing:
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            return  # cut_all(); asyncio's server would report a cancelled task as a fault
        finally:
            reset(writer.transport)
            self._open.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        connecting = asyncio.create_task(asyncio.open_connection("127.0.0.1", self._broker_port))
        try:
            # Shielded: a connection that is made while we are cancelled would be nobody's.
            broker_reader, broker_writer = await asyncio.shield(connecting)
        except OSError:
            return  # the broker is away: so is this connection
        except asyncio.CancelledError:
            reset((await connecting)[1].transport)
            raise
        ways = [
            asyncio.create_task(self._way(UP, number, reader, broker_writer, writer)),
            asyncio.create_task(self._way(DOWN, number, broker_reader, writer, broker_writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reset(broker_writer.transport)  # first: what is awaited below may be cancelled again
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _way(
        self,
        way: str,
        connection: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        """Returns when the connection is to be reset."""
        pending, slow = bytearray(), False
        while True:
            try:
                data = await reader.read(READ_BYTES)
            except OSError:
                return
            if not data:
                return
            pending += data
            while (packet := self._take(way, connection, pending)) is not None:
                done = self.rule(packet)
                if isinstance(done, Answer):
                    if not await self._send(back, done.data, False):
                        return
                    continue
                if isinstance(done, Instead):
                    if not await self._send(writer, done.data, slow):
                        return
                    continue
                self.counts[done] += 1
                if done is Do.CUT:
                    return
                if done is Do.STALL:
                    await asyncio.Event().wait()  # until the connection is cut, or the test is over
                if done is Do.SWALLOW:
                    continue
                slow = slow or done is Do.SLOW
                whole = packet.data[: len(packet.data) // 2] if done is Do.CUT_INSIDE else packet.data
                if not await self._send(writer, whole, slow) or done in (Do.CUT_AFTER, Do.CUT_INSIDE):
                    return

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, slow: bool) -> bool:
        try:
            for start in range(0, len(data), SLOW_BYTES if slow else len(data)):
                writer.write(data[start : start + SLOW_BYTES] if slow else data)
                await writer.drain()
                if slow:
                    await asyncio.sleep(self.pause_s)
        except OSError:
            return False
        return True

    def _take(self, way: str, connection: int, pending: bytearray) -> Packet | None:
        length = _packet_bytes(pending)
        if length is None or len(pending) < length:
            return None
        data = bytes(pending[:length])
        del pending[:length]
        kind = data[0] >> 4
        number = self._seen[way, kind]
        self._seen[way, kind] += 1
        return Packet(way, kind, number, connection, data)


def _packet_bytes(data: bytearray) -> int | None:
    """The whole length of the packet that begins here (MQTT 5, 1.5.5); None while its header is not complete."""
    length = 0
    for index in range(1, MAX_HEADER_BYTES):
        if index >= len(data):
            return None
        length |= (data[index] & 0x7F) << (7 * (index - 1))
        if data[index] < 0x80:
            return index + 1 + length
    raise ValueError(f"no MQTT packet: {bytes(data[:MAX_HEADER_BYTES]).hex()}")


def packet_identifier(packet: Packet) -> int:
    """Of a PUBLISH with QoS 1, or of a PUBACK (MQTT 5, 2.2.1)."""
    data = packet.data
    _, at = _variable_integer(data, 1)
    if packet.kind == PUBLISH:
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    return int.from_bytes(data[at : at + 2], "big")


def refusal(packet: Packet, reason: int) -> bytes:
    """The PUBACK that refuses this PUBLISH, or that PUBACK with this reason instead of its own (MQTT 5, 3.4)."""
    return b"\x40\x03" + packet_identifier(packet).to_bytes(2, "big") + bytes((reason,))


def reset(transport: asyncio.WriteTransport) -> None:
    """Closes without a goodbye: what is in the buffers is lost, as when a path dies."""
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def topic_and_payload(packet: Packet) -> tuple[str, bytes]:
    """Of a PUBLISH with QoS 1 (MQTT 5, 3.3)."""
    data = packet.data
    _, at = _variable_integer(data, 1)
    topic_bytes = int.from_bytes(data[at : at + 2], "big")
    topic = data[at + 2 : at + 2 + topic_bytes].decode()
    properties_bytes, at = _variable_integer(data, at + 2 + topic_bytes + 2)
    return topic, data[at + properties_bytes :]


def _variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """The integer that begins there and where the next thing begins (MQTT 5, 1.5.5)."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
