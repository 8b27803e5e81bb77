"""The handshake of gateway and board: EDHOC (RFC 9528), method 3, cipher suite 2. Here what both roles share, and the
board's, which loads no more; `edhoc` has both.

The application profile is in protocol/README.md, 9: credentials are known on both sides and named by their kid,
message_4 is mandatory, no external authorization data of ours, unknown critical ones are refused. This module
moves no bytes and has no clock: the caller hands it what arrived, sends what comes back, and repeats or gives up.

A step may take seconds on a board, so it is a generator that yields while it works:

    answer = yield from responder.take(edhoc.MESSAGE_1, data)

It raises EdhocError when the handshake is over, and MessageError for a message that does not belong here now, which
leaves the handshake as it was: a stranger's frame after message_4 ends nothing. What fails before that does end it
(RFC 9528, 5): then the gateway starts again, with new ephemeral keys.
"""

from laterne_protocol import cbor
from laterne_protocol.edhoc_keys import (
    MAC_2,
    MAC_3,
    POINT_BYTES,
    SUITES,
    KeySchedule,
    byte_identifier,
    equal,
    kdf,
)
from laterne_protocol.edhoc_messages import (
    MAX_MESSAGE_BYTES,
    UNKNOWN_CREDENTIAL,
    EdhocError,
    authentication_at,
    error_message,
    only_byte_string,
    parse_1,
    refused,
)
from laterne_protocol.errors import CborError, MessageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_protocol.edhoc_keys import Party, Primitives, Steps

    FindPeer = Callable[[bytes], "Party | None"]

# What can happen to a handshake, and the first byte of a frame that carries it (protocol/README.md, 9.3).
START, MESSAGE_1, MESSAGE_2, MESSAGE_3, MESSAGE_4, ERROR = 0, 1, 2, 3, 4, 5
# Not of EDHOC, in frames of the same kind: the gateway shows its credential, the board says that it knows it.
INTRODUCTION, INTRODUCED = 6, 7

# States.
NEW = "new"
AWAITS_1 = "awaits message_1"
AWAITS_2 = "awaits message_2"
AWAITS_3 = "awaits message_3"
AWAITS_4 = "awaits message_4"
WORKING = "is at work"
DONE = "is done"
FAILED = "has failed"

# (state, what happened) -> state once its step has been made. While the step runs the state is WORKING; if the step
# fails it is FAILED for good. A pair that is not here is refused and changes nothing, except the message just
# answered: byte for byte the same, it gets byte for byte the same answer.
NEXT = {
    # the Initiator: the gateway
    (NEW, START): AWAITS_2,
    (AWAITS_2, MESSAGE_2): AWAITS_4,
    (AWAITS_4, MESSAGE_4): DONE,
    # the Responder: the board
    (AWAITS_1, MESSAGE_1): AWAITS_3,
    (AWAITS_3, MESSAGE_3): DONE,
}


class Handshake:
    """What both roles share; make an Initiator or a Responder.

    state: one of the states above. answer: what the last step gave to send, to be repeated when nothing comes back.
    connection: the name, one byte, under which the peer shall address us; peer_connection: ours for the peer.
    peer: the Party on the other side, None until it has proved that it holds its key.
    """

    def __init__(
        self,
        state: str,
        primitives: "Primitives",
        own: "Party",
        agree: "Callable[[bytes], Steps]",
        find_peer: "FindPeer",
        connection: bytes,
        suites: "tuple[int, ...]",
    ) -> None:
        """own: who we are. agree(public key): steps to the shared x-coordinate with our own static key.

        find_peer(kid): the party with this kid that may talk to us, or None; the caller answers for it: signed
        roster, not revoked. connection: one of connections(), another one than in the handshakes before.
        suites: numbers of cipher suites, the most preferred first.
        """
        self.state = state
        self.answer = b""
        self.connection = connection
        self.peer_connection = b""
        self.peer: "Party | None" = None
        self.primitives = primitives
        self._own = own
        self._agree = agree
        self._find_peer = find_peer
        self._suites = suites
        self._answered = None  # type: tuple[int, bytes] | None  # the step that made `answer`, and its message
        self._private_key = b""  # of our ephemeral key pair
        self._keys: "KeySchedule | None" = None
        self._candidate: "Party | None" = None
        self._exporter_secret = b""

    def take(self, step: int, message: bytes = b"") -> "Steps":
        """One step: START, or a message that arrived. Yields while it works; returns the bytes to send, or none.

        A repeated message is answered with the same bytes as before, at no cost.
        Raises EdhocError: the handshake is over. MessageError: the message does not belong here, nothing changed.
        Errors of our own hardware, such as a broken source of random numbers, pass through and end it too.
        """
        if self.state not in (WORKING, FAILED) and self._answered == (step, message):
            return self.answer
        following = NEXT.get((self.state, step))
        if following is None:
            raise MessageError("a handshake that %s has no use for step %d" % (self.state, step))
        if len(message) > MAX_MESSAGE_BYTES:
            raise MessageError("%d bytes, an EDHOC message has at most %d" % (len(message), MAX_MESSAGE_BYTES))
        self.state = WORKING
        try:
            answer = yield from self._work(step, message)
        except CborError as why:
            self._end(FAILED)
            raise refused(str(why))
        except BaseException:  # also GeneratorExit: half a step cannot be continued
            self._end(FAILED)
            raise
        self._answered = (step, message)
        self.answer = answer
        if following == DONE:
            self._finish()
        self.state = following
        return answer

    def exporter(self, label: int, context: bytes, size: int) -> bytes:
        """RFC 9528, 4.2.1: `size` bytes of keys for one purpose, which (label, context) names.

        Only once the handshake is done: then the peer has proved who it is. Raises EdhocError before that, and after
        forget_keys().
        """
        if not self._exporter_secret:
            raise EdhocError("no keys, or none any more, from a handshake that %s" % self.state)
        return kdf(self.primitives, self._exporter_secret, label, context, size)

    def forget_keys(self) -> None:
        """All keys have been taken. What is left can still repeat its last answer."""
        self._exporter_secret = b""

    def _work(self, step: int, message: bytes) -> "Steps":
        raise NotImplementedError

    def _schedule(self) -> KeySchedule:
        assert self._keys is not None
        return self._keys

    def _finish(self) -> None:
        self._exporter_secret = self._schedule().exporter_secret()
        self.peer = self._candidate
        self._end(DONE)

    def _end(self, state: str) -> None:
        # No memory can be wiped on either interpreter; what is not referred to is at least used again.
        self.state = state
        self._private_key = b""
        self._keys = None
        self._candidate = None
        if state == FAILED:
            self.answer = b""

    def _point(self, x: bytes) -> "Steps":
        """The ephemeral key of the peer. x < p and a point of the curve: RFC 9528, 9.2; P-256 has no small orders."""
        try:
            return (yield from self.primitives.decompress(x))
        except ValueError as why:
            raise refused("ephemeral key: %s" % why)

    def _shared(self, private_key: bytes, public_key: bytes) -> "Steps":
        try:
            return (yield from self.primitives.agree(private_key, public_key))
        except ValueError as why:
            raise refused("key agreement: %s" % why)

    def _named(self, kid: bytes) -> "Party":
        peer = self._find_peer(kid)
        if peer is None:
            raise EdhocError("nobody we talk to has kid %s" % kid.hex(), error_message(UNKNOWN_CREDENTIAL, True))
        # Against selfies (RFC 9528, 9.2): our own key is never a peer's, whatever the roster says.
        if peer.public_key == self._own.public_key:
            raise refused("our own credential came back")
        return peer


class Responder(Handshake):
    """The board's side: message_1, then message_3."""

    def __init__(
        self,
        primitives: "Primitives",
        own: "Party",
        agree: "Callable[[bytes], Steps]",
        find_peer: "FindPeer",
        connection: bytes,
        suites: "tuple[int, ...]" = (2,),
    ) -> None:
        """As Handshake."""
        Handshake.__init__(self, AWAITS_1, primitives, own, agree, find_peer, connection, suites)

    def _work(self, step: int, message: bytes) -> "Steps":
        if step == MESSAGE_1:
            return (yield from self._message_1(message))
        return (yield from self._message_3(message))

    def _message_1(self, message: bytes) -> "Steps":
        # All that is cheap comes first: whoever can write to the line can make us do the rest.
        suite, g_x, self.peer_connection = parse_1(message, self._suites)
        point = yield from self._point(g_x)
        self._private_key, public_key = yield from self.primitives.make_key()
        g_y = public_key[:POINT_BYTES]
        keys = self._keys = KeySchedule(self.primitives, SUITES[suite], message)
        keys.begin(g_y, (yield from self._shared(self._private_key, point)))
        keys.authenticate_responder((yield from self._agree(point)))

        own = self._own
        connection = byte_identifier(self.connection)
        mac = keys.mac(MAC_2, connection, own, b"")
        plaintext = connection + byte_identifier(own.kid) + cbor.encode(mac)
        message_2 = cbor.encode(g_y + keys.cipher_2(plaintext))
        keys.advance(plaintext, own.ccs)
        return message_2

    def _message_3(self, message: bytes) -> "Steps":
        keys = self._schedule()
        ciphertext = only_byte_string(message)
        try:
            plaintext = keys.open_3(ciphertext)
        except ValueError as why:
            raise refused("message_3: %s" % why)
        kid, mac, ead = authentication_at(plaintext, 0)
        peer = self._named(kid)
        keys.authenticate_initiator((yield from self._shared(self._private_key, peer.public_key)))
        if not equal(mac, keys.mac(MAC_3, b"", peer, ead)):
            raise refused("message_3 is not by the holder of key %s" % kid.hex())
        self._candidate = peer
        keys.advance(plaintext, peer.ccs)
        return cbor.encode(keys.seal_4(b""))
