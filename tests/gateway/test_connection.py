"""What a connection writes and reads itself instead of leaving it to paho: the same bytes, wherever they are cut."""

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterator

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from laterne_gateway.buffered import Row
from laterne_gateway.config import MqttSettings
from laterne_gateway.routes.connection import Connection, cause_of
from laterne_gateway.routes.delivery import properties_of
from laterne_gateway.routes.stream import Stream, publish_packet, string, user_property

SUBACK = b"\x90\x04\x00\x01\x00\x01"
PUBLISHED = string("laterne/v1/city/gw/order/LE-1") + b"\x00" + b"@\x02" * 84 + b"@"  # what looks like a PUBACK inside
PUBLISH = bytes((0x30, len(PUBLISHED) & 0x7F | 0x80, len(PUBLISHED) >> 7)) + PUBLISHED
PINGRESP = b"\xd0\x00"


@pytest.mark.parametrize(
    "pairs",
    [
        [("received", "2026-11-22T04:05:06.789Z"), ("historical", "false")],
        [("historical", "true")],
        [("post", "Straße 7")],
        [("n", "v" * 300)],
    ],
)
@pytest.mark.parametrize("retain", [False, True])
def test_a_publish_has_the_bytes_that_paho_would_write(pairs: list[tuple[str, str]], retain: bool) -> None:
    theirs = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's has no types
    theirs.UserProperty = pairs
    properties = theirs.pack()  # type: ignore[no-untyped-call]  # paho's has no types
    body = b"body" * 100
    rest = b"\x00\x05a/\xc3\xa4b" + b"\x12\x34" + properties + body
    length = bytes((len(rest) & 0x7F | 0x80, len(rest) >> 7))
    ours = b"".join(user_property(name, value) for name, value in pairs)
    made = publish_packet(0x1234, string("a/äb"), ours, body, retain=retain)
    assert made == (b"\x33" if retain else b"\x32") + length + rest


def test_a_report_says_when_it_was_received_and_whether_it_is_late() -> None:
    row = Row(1, "LE-1", 1, 1_795_320_306_789, None, b"")
    assert properties_of(row, True) == user_property("received", "2026-11-22T04:05:06.789Z") + user_property(
        "historical", "true"
    )
    assert properties_of(Row(1, "LE-1", 1, None, None, b""), False) == user_property("historical", "false")


class Ends:
    """A stream, the broker's end of it, and what was acknowledged."""

    def __init__(self, ours: set[int]) -> None:
        self.broker, mine = socket.socketpair()
        mine.setblocking(False)
        self.broker.setblocking(False)
        self.acknowledged: list[tuple[int, int]] = []
        self._ours = ours
        self.stream = Stream(mine, self._take)

    def _take(self, identifier: int, reason: int) -> bool:
        if identifier in self._ours:
            self.acknowledged.append((identifier, reason))
        return identifier in self._ours

    def paho_has(self) -> bytes:
        data = bytearray()
        while self.stream.has_more:
            data += self.stream.recv(7)
        return bytes(data)

    def close(self) -> None:
        self.stream.close()
        self.broker.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends({256, 300, 301, 65535})
    yield made
    made.close()


def puback(identifier: int, rest: bytes = b"") -> bytes:
    return b"\x40" + bytes((2 + len(rest),)) + identifier.to_bytes(2, "big") + rest


SAYING_WHY = b"\x01\x2d\x87\xa0\x01\x1f\x00\x9d" + b"r" * 157
LONG = bytes((0x40, len(SAYING_WHY) & 0x7F | 0x80, len(SAYING_WHY) >> 7)) + SAYING_WHY  # its length has two bytes


@pytest.mark.parametrize("seed", range(30))
def test_our_acknowledgements_are_taken_out_and_paho_has_the_rest_wherever_the_bytes_are_cut(
    ends: Ends, seed: int
) -> None:
    chance = random.Random(seed)
    said = [SUBACK, puback(256), puback(300, b"\x10"), PUBLISH, puback(2), puback(301, b"\x87\x00"), PINGRESP, LONG]
    said += [puback(65535), PINGRESP]
    whole, at = b"".join(said), 0
    heard = b""
    while at < len(whole):
        size = chance.choice((1, 1, 2, 3, 50, 400))
        ends.broker.send(whole[at : at + size])
        at += size
        ends.stream.read()
        heard += ends.paho_has()
    assert ends.acknowledged == [(256, 0), (300, 0x10), (301, 0x87), (65535, 0)]
    assert heard == SUBACK + PUBLISH + puback(2) + PINGRESP + LONG + PINGRESP


AT_QOS_2 = [bytes((first, 5)) + b"\x00\x01a\x00\x07" for first in (0x34, 0x35, 0x3C, 0x3D)]
TOO_LONG = [bytes((first,)) + b"\x81\x80\x04" for first in (0x30, 0x32, 0x33, 0x40, 0x90)]  # 65,537 bytes
WITHOUT_END = [b"\x40\xff\xff\xff\xff\xff\xff"]


@pytest.mark.parametrize("packet", AT_QOS_2 + TOO_LONG + WITHOUT_END, ids=bytes.hex)
@pytest.mark.parametrize("cut", [1, 2, 4, 9])
def test_what_would_cost_memory_without_a_bound_ends_the_connection(ends: Ends, packet: bytes, cut: int) -> None:
    whole = PUBLISH + packet + bytes(100) + puback(256)
    heard = b""
    for at in range(0, len(whole), cut):
        ends.broker.send(whole[at : at + cut])
        ends.stream.read()
        if not ends.stream.wrong:
            heard += ends.paho_has()
    assert "nobody asked for" in ends.stream.wrong
    assert heard == PUBLISH[: len(heard)]
    assert (ends.stream.has_more, ends.acknowledged) == (True, [])
    assert ends.stream.recv(1 << 20) == PUBLISH[len(heard) :], "then its end"
    assert ends.stream.recv(7) == b""


HUGE = b"\x32\xff\xff\xff\x7f"  # and 256 MiB


@pytest.mark.parametrize(("says", "at_once"), [(HUGE, True), (HUGE, False), (b"", True)])
async def test_a_broker_that_sends_256_mib_or_hangs_up_in_the_moment_of_letting_us_in_is_left_and_said_so(
    says: bytes, at_once: bool
) -> None:
    is_in = asyncio.Event()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\x20\x03\x00\x00\x00" + says * at_once)
        if not at_once:
            await is_in.wait()
            writer.write(says)
        with contextlib.suppress(ConnectionError):
            while says and not writer.is_closing():
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = MqttSettings("127.0.0.1", port, False, None, None, None, None, None, 64)

    async def listen() -> None:
        async with asyncio.timeout(60), Connection(settings, "gw", None, None) as client:
            is_in.set()
            await client.ended()

    with pytest.raises(aiomqtt.MqttError) as why:
        await listen()
    assert ("0x32, 268435455 bytes" in str(cause_of(why.value))) == bool(says)
    server.close()


def test_packets_stay_whole_and_in_order_when_the_broker_is_slow(ends: Ends) -> None:
    """Ours and paho's take turns at a socket that is full most of the time."""
    chance = random.Random(1)
    wanted, heard, paho_waits = bytearray(), bytearray(), b""
    for number in range(4000):
        packet = bytes((number % 251,)) * chance.randrange(1, 400)
        if paho_waits or number % 5 == 0:
            paho_waits = paho_waits or packet
            try:
                assert ends.stream.send(paho_waits) == len(paho_waits)
                wanted += paho_waits
                paho_waits = b""
            except BlockingIOError:  # it comes again with the same packet
                assert ends.stream.is_full
        if number % 5:
            ends.stream.write(packet)
            wanted += packet
        if ends.stream.is_full and chance.random() < 0.2:
            heard += ends.broker.recv(50_000)
            ends.stream.flush()
    while len(heard) < len(wanted):
        heard += ends.broker.recv(50_000)
        ends.stream.flush()
    assert heard == wanted


def test_paho_hears_of_the_end_after_all_that_came_before_it(ends: Ends) -> None:
    ends.broker.send(puback(256) + PINGRESP)
    ends.broker.close()
    ends.stream.read()
    ends.stream.read()
    assert ends.acknowledged == [(256, 0)]
    assert ends.stream.recv(2) == PINGRESP
    assert ends.stream.has_more
    assert ends.stream.recv(1) == b""
