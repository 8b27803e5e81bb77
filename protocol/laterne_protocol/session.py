"""What a session carries: records, each sealed for one direction and opened once (protocol/README.md, 10).

A record is one byte that names the session, a counter of three bytes, the sealed message, a tag of eight. The frame's
header and the record's own four bytes are authenticated with it. Keys come from a finished handshake and live in RAM
only: a restart ends every session, so no counter is ever stored and none is ever used twice. The clock is passed in.
"""

from laterne_protocol import cbor
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_protocol.edhoc import Handshake
    from laterne_protocol.edhoc_keys import Primitives

    Exporter = Callable[[int, bytes, int], bytes]

TAG_BYTES = 8  # AES-CCM-16-64-128 (COSE algorithm 10)
COUNTER_BYTES = 3  # enough for MAX_RECORDS; always three: one form, and nothing to remember for reading it
HEAD_BYTES = 1 + COUNTER_BYTES
OVERHEAD_BYTES = HEAD_BYTES + TAG_BYTES

# A session ends at the first of these; both ends count for themselves.
MAX_RECORDS = 1 << 20  # in one direction
MAX_AGE_MS = 24 * 3600 * 1000
MAX_FAILED_TAGS = 16  # a guessed tag of 64 bits is then found once in 2^60 sessions
# The next handshake begins after seven eighths: on a bus of 32 boards it may wait for its turn.
_DUE_RECORDS = MAX_RECORDS // 8 * 7
_DUE_AGE_MS = MAX_AGE_MS // 8 * 7

WINDOW = 32

# RFC 9528, 10.1: exporter labels from 32768 on are for private use. One label and context, one purpose.
_LINK_KEYS = 32768
_DOMAIN = "laterne/link/1"
_KEY_BYTES, _NONCE_BYTES = 16, 13

# Who sends, in the context of the exporter.
GATEWAY, BOARD = 0, 1


class RecordError(WireError):
    """A record that is damaged, forged or repeated: drop it, the session goes on."""


class SessionError(WireError):
    """A frame that no session of ours could have made, or a session at its end: shake hands again."""


class ReplayWindow:
    """Which counters have been seen, without keeping them all.

    Records may be lost and may arrive in another order than they were sent, but not arbitrarily late: a counter is
    new if it is higher than all seen so far, or among the WINDOW highest and not yet seen. What lies further back is
    taken for seen, because nobody remembers. So no counter is ever new twice, and a sender whose records overtake one
    another by less than WINDOW loses none.

    Kept are the lowest counter above all seen (`above`) and one bit for each of the WINDOW counters below it: bit i
    is the counter above - 1 - i. To ask and to take are two calls, because only a record whose tag is right may move
    the window: otherwise a forged counter of 2^20 would shut out all true ones.
    """

    def __init__(self) -> None:
        self.above = 0
        self._seen = 0

    def is_new(self, counter: int) -> bool:
        """Whether this counter (0 or more) can be taken."""
        behind = self.above - 1 - counter
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def take(self, counter: int) -> None:
        """This counter has been seen. Only for one that is new."""
        ahead = counter - self.above + 1
        if ahead > 0:
            # A shift by more than the window leaves nothing: it is not made, a board would build a huge number.
            self._seen = (self._seen << ahead if ahead < WINDOW else 0) & ((1 << WINDOW) - 1) | 1
            self.above = counter + 1
        else:
            self._seen |= 1 << -ahead


class LinkKey:
    """Key (16 bytes) and common IV (13 bytes) of one direction."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self.key = key
        self._iv = int.from_bytes(iv, "big")

    def nonce(self, counter: int) -> bytes:
        """As in OSCORE (RFC 8613, 5.2), the sender's id left out: each direction has its own key and IV."""
        return (self._iv ^ counter).to_bytes(_NONCE_BYTES, "big")


def link_key(exporter: "Exporter", address: int, sender: int) -> LinkKey:
    """The key of what GATEWAY or BOARD sends, on the line where the board has this bus address."""
    context = cbor.encode(_DOMAIN) + cbor.encode(address) + cbor.encode(sender)
    made = exporter(_LINK_KEYS, context, _KEY_BYTES + _NONCE_BYTES)
    return LinkKey(made[:_KEY_BYTES], made[_KEY_BYTES:])


class Session:
    """Keys between one gateway and one board, for at most MAX_AGE_MS.

    connection: the first byte of the records that come in. peer_connection: of those that go out.
    failed_tags: records so far that named this session and were not sealed for it.
    """

    def __init__(
        self,
        primitives: "Primitives",
        sending: LinkKey,
        receiving: LinkKey,
        connection: bytes,
        peer_connection: bytes,
        now_ms: int,
    ) -> None:
        """now_ms: milliseconds on any clock that never runs backwards; the same clock in every call."""
        self.connection = connection
        self.peer_connection = peer_connection
        self.failed_tags = 0
        self._primitives = primitives
        self._sending = sending
        self._receiving = receiving
        self._began_ms = now_ms
        self._sent = 0
        self._window = ReplayWindow()

    def is_due(self, now_ms: int) -> bool:
        """Whether it is time to shake hands again, while this session still works."""
        used = max(self._sent, self._window.above)
        return used >= _DUE_RECORDS or now_ms - self._began_ms >= _DUE_AGE_MS or self._is_over(now_ms)

    def seal(self, header: bytes, message: bytes, now_ms: int) -> bytes:
        """The record of a message, OVERHEAD_BYTES longer. header: that of the frame it goes into.

        Raises SessionError: the session has come to its end.
        """
        self._check(now_ms)
        counter = self._sent
        if counter >= MAX_RECORDS:
            raise SessionError("the session has sent its %d records" % MAX_RECORDS)
        self._sent += 1  # before the key is used: whatever happens next, this nonce is gone
        head = self.peer_connection + counter.to_bytes(COUNTER_BYTES, "big")
        nonce = self._sending.nonce(counter)
        return head + self._primitives.ccm_seal(self._sending.key, nonce, message, header + head, TAG_BYTES)

    def open(self, header: bytes, record: bytes, now_ms: int) -> bytes:
        """The message in a record. header: that of the frame it came in.

        Raises RecordError: drop it, the session goes on. SessionError: this record is of another session, or this
        session has come to its end. Neither says who sent it: a stranger on the line can cause both, so whoever
        shakes hands again because of it does that at a bounded rate.
        """
        self._check(now_ms)
        if len(record) < OVERHEAD_BYTES:
            raise RecordError("%d bytes, a record has at least %d" % (len(record), OVERHEAD_BYTES))
        if record[:1] != self.connection:
            raise SessionError("a record of session %s, this is %s" % (record[:1].hex(), self.connection.hex()))
        head = record[:HEAD_BYTES]
        counter = int.from_bytes(head[1:], "big")
        if counter >= MAX_RECORDS:
            raise RecordError("counter %d, a session ends at %d" % (counter, MAX_RECORDS))
        if not self._window.is_new(counter):
            raise RecordError("record %d came before, or long after its time" % counter)
        key = self._receiving
        try:
            message = self._primitives.ccm_open(
                key.key, key.nonce(counter), record[HEAD_BYTES:], header + head, TAG_BYTES
            )
        except ValueError as why:
            self.failed_tags += 1
            raise RecordError("record %d: %s" % (counter, why))
        self._window.take(counter)
        return message

    def _check(self, now_ms: int) -> None:
        if self._is_over(now_ms):
            raise SessionError(
                "the session is over: %d minutes old, %d records with a wrong tag"
                % ((now_ms - self._began_ms) // 60000, self.failed_tags)
            )

    def _is_over(self, now_ms: int) -> bool:
        return now_ms - self._began_ms >= MAX_AGE_MS or self.failed_tags >= MAX_FAILED_TAGS


def session_of(handshake: "Handshake", sender: int, address: int, now_ms: int) -> Session:
    """The session that a finished handshake opens: one and no second, which would use the same nonces again.

    Afterwards the handshake has no keys left and can only repeat its last answer.
    sender: who we are, GATEWAY or BOARD. address: the board's bus address, as both ends know it.
    Raises EdhocError: the handshake is not done, or its session has been opened before.
    """
    sending = link_key(handshake.exporter, address, sender)
    receiving = link_key(handshake.exporter, address, BOARD if sender == GATEWAY else GATEWAY)
    handshake.forget_keys()
    return Session(handshake.primitives, sending, receiving, handshake.connection, handshake.peer_connection, now_ms)
