"""The socket under an MQTT connection: what carries reports goes past paho, in bulk; paho has all the rest.

paho takes 45 us for a report and its PUBACK: a lock here and there, three recv() for each PUBACK, a send() for each
PUBLISH. Here all PUBLISHes of a turn of the event loop leave in one send(), and all PUBACKs that are there come in one
recv(). Written are whole packets; so is what paho writes, between ours. Of what is read, PUBACKs for our own packet
identifiers are taken out and everything else is handed to paho, byte for byte, in its order. But for what would cost
memory without a bound, because paho keeps a packet until it is whole, and one at QoS 2 until the broker releases it: a
packet that is longer than we have said, and QoS 2, for which we have never asked, end the connection.

Section numbers are those of MQTT 5.
"""

import socket
import ssl
from collections.abc import Callable

READ_BYTES = 65536
MAX_PACKET_BYTES = 65_536  # part of a release; told to the broker, which drops what is longer (3.1.2.11.4)
MAX_PUBACK_BYTES = 129  # with a length of one byte; a longer one (a broker's long reason) is left to paho
FIRST_IDENTIFIER = 256  # of ours; paho numbers its few SUBSCRIBEs from 1 (2.2.1: the two must not share one)
LAST_IDENTIFIER = 65535

_PUBLISH_AT_LEAST_ONCE = 0x32  # 3.3.1
_RETAIN = 0x01
_PUBACK = 0x40
_KIND_AND_QOS, _PUBLISH_EXACTLY_ONCE = 0xF6, 0x34
_USER_PROPERTY = b"\x26"  # 2.2.2.2
_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def string(text: str) -> bytes:
    """A UTF-8 string with its length before it (1.5.4)."""
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def user_property(name: str, value: str) -> bytes:
    """One of the properties of a PUBLISH (3.3.2.3.7)."""
    return _USER_PROPERTY + string(name) + string(value)


def publish_packet(identifier: int, topic: bytes, properties: bytes, body: bytes, *, retain: bool = False) -> bytes:
    """A PUBLISH at QoS 1 (3.3). topic: as string() gives it. properties: one after the other."""
    head = topic + identifier.to_bytes(2, "big") + _number(len(properties)) + properties
    first = _PUBLISH_AT_LEAST_ONCE | (_RETAIN if retain else 0)
    return b"".join((bytes((first,)), _number(len(head) + len(body)), head, body))


def _number(value: int) -> bytes:
    # 1.5.5: seven bits a byte, the lowest first.
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Stream:
    """In paho's hands it is the socket: recv(), send(), fileno(), close(), setblocking().

    acknowledged: called with the identifier and reason code of a PUBACK; whether it was for one of ours.
    has_more: paho has something to read. is_full: bytes wait until the socket can be written. wrong: what the broker
    has sent that ends this, else "".
    """

    def __init__(self, plain: socket.socket, acknowledged: Callable[[int, int], bool]) -> None:
        self.wrong = ""
        self._socket = plain
        self._acknowledged = acknowledged
        self._unsent = bytearray()
        self._begun = b""  # of a packet whose head, or of a PUBACK that is not all there
        self._passing = 0  # bytes of a packet under way that are paho's
        self._for_paho = bytearray()
        self._end: OSError | None = None  # what the socket has failed with; ConnectionError: it was closed

    @property
    def is_full(self) -> bool:
        return bool(self._unsent)

    @property
    def has_more(self) -> bool:
        return bool(self._for_paho) or self._end is not None

    # Ours

    def write(self, packets: bytes) -> None:
        """Sends whole packets as soon as the socket takes them: now, or with a later flush(). Raises OSError."""
        self._unsent += packets
        self.flush()

    def flush(self) -> None:
        """Sends what waits, as far as the socket takes it. Raises OSError."""
        # The same bytes again in front when it did not take them: TLS has begun to seal those.
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except _WOULD_BLOCK:
                return
            self._unsent[:sent] = b""

    def read(self) -> None:
        """Takes what the socket has. It never raises: how a connection ends is paho's to find out."""
        while self._end is None:
            try:
                data = self._socket.recv(READ_BYTES)
            except _WOULD_BLOCK:
                return
            except OSError as why:
                self._end = why
                return
            if not data:
                self._end = ConnectionError("closed by the broker")
                return
            self._take(data)
            if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                return  # the event loop calls again if there is more

    def _take(self, data: bytes) -> None:
        at, data = 0, self._begun + data
        self._begun = b""
        while at < len(data):
            if self._passing:
                passed = data[at : at + self._passing]
                self._for_paho += passed
                self._passing -= len(passed)
                at += len(passed)
                continue
            length, end = _length_at(data, at + 1)
            if length is None:
                self._begun = data[at:]  # five bytes at most
                return
            if length > MAX_PACKET_BYTES or data[at] & _KIND_AND_QOS == _PUBLISH_EXACTLY_ONCE:
                self.wrong = f"the broker sends what nobody asked for: 0x{data[at]:02x}, {length} bytes"
                self._end = ConnectionError(self.wrong)
                return
            if data[at] != _PUBACK or not 2 <= length <= MAX_PUBACK_BYTES - 2:
                self._passing = end + length - at
                continue
            if end + length > len(data):
                self._begun = data[at:]
                return
            # 3.4.2.1: without a reason code it is 0, success.
            reason = data[end + 2] if length > 2 else 0
            if not self._acknowledged(int.from_bytes(data[end : end + 2], "big"), reason):
                self._for_paho += data[at : end + length]
            at = end + length

    # paho's

    def recv(self, size: int) -> bytes:
        if self._for_paho:
            data = bytes(self._for_paho[:size])
            self._for_paho[:size] = b""
            return data
        if self._end is None:
            raise BlockingIOError
        if isinstance(self._end, ConnectionError) and not self._end.errno:
            return b""
        raise self._end

    def send(self, data: bytes | bytearray) -> int:
        """All of it or nothing, so that no packet of ours comes into the middle of one of paho's."""
        self.flush()
        if self._unsent:
            raise BlockingIOError
        self.write(bytes(data))
        return len(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(flag)

    def close(self) -> None:
        self._socket.close()


def _length_at(data: bytes, at: int) -> tuple[int | None, int]:
    """A packet's remaining length (2.1.4) and where it ends; None: it is not all there.

    A fifth byte that goes on is malformed: it counts as the end, and paho finds the same.
    """
    value = shift = 0
    for index in range(at, min(at + 4, len(data))):
        value |= (data[index] & 0x7F) << shift
        if data[index] < 0x80 or index == at + 3:
            return value, index + 1
        shift += 7
    return None, at
