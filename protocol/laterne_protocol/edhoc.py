"""The handshake of gateway and board: EDHOC (RFC 9528), method 3, cipher suite 2, both roles.

A board needs half of it, `edhoc_responder`: the order of messages, what both roles share, and its own role. Here are
the gateway's role, and the names of the rest.
"""

from laterne_protocol import cbor
from laterne_protocol.edhoc_keys import (
    MAC_2,
    MAC_3,
    METHOD,
    POINT_BYTES,
    SUITES,
    KeySchedule,
    byte_identifier,
    equal,
)
from laterne_protocol.edhoc_messages import (
    authentication_at,
    check_ead,
    connection_at,
    encode_suites,
    only_byte_string,
    refused,
)
from laterne_protocol.edhoc_responder import (
    AWAITS_1,
    AWAITS_2,
    AWAITS_3,
    AWAITS_4,
    DONE,
    ERROR,
    FAILED,
    INTRODUCED,
    INTRODUCTION,
    MESSAGE_1,
    MESSAGE_2,
    MESSAGE_3,
    MESSAGE_4,
    NEW,
    NEXT,
    START,
    WORKING,
    Handshake,
    Responder,
)

__all__ = (
    "AWAITS_1",
    "AWAITS_2",
    "AWAITS_3",
    "AWAITS_4",
    "DONE",
    "ERROR",
    "FAILED",
    "INTRODUCED",
    "INTRODUCTION",
    "MESSAGE_1",
    "MESSAGE_2",
    "MESSAGE_3",
    "MESSAGE_4",
    "NEW",
    "NEXT",
    "START",
    "WORKING",
    "Handshake",
    "Initiator",
    "Responder",
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_protocol.edhoc_keys import Party, Primitives, Steps
    from laterne_protocol.edhoc_responder import FindPeer


class Initiator(Handshake):
    """The gateway's side: take(START), then message_2, then message_4."""

    def __init__(
        self,
        primitives: "Primitives",
        own: "Party",
        agree: "Callable[[bytes], Steps]",
        find_peer: "FindPeer",
        connection: bytes,
        suites: "tuple[int, ...]" = (2,),
    ) -> None:
        """suites: as SUITES_I, the last is the one selected: it must be one of ours. The rest as in Handshake."""
        Handshake.__init__(self, NEW, primitives, own, agree, find_peer, connection, suites)

    def _work(self, step: int, message: bytes) -> "Steps":
        if step == START:
            return (yield from self._start())
        if step == MESSAGE_2:
            return (yield from self._message_2(message))
        return self._message_4(message)

    def _start(self) -> "Steps":
        self._private_key, public_key = yield from self.primitives.make_key()
        message_1 = (
            cbor.encode(METHOD)
            + encode_suites(self._suites)
            + cbor.encode(public_key[:POINT_BYTES])
            + byte_identifier(self.connection)
        )
        self._keys = KeySchedule(self.primitives, SUITES[self._suites[-1]], message_1)
        return message_1

    def _message_2(self, message: bytes) -> "Steps":
        keys = self._schedule()
        content = only_byte_string(message)
        if len(content) <= POINT_BYTES:
            raise refused("message_2 ends before its ciphertext")
        g_y = content[:POINT_BYTES]
        point = yield from self._point(g_y)
        keys.begin(g_y, (yield from self._shared(self._private_key, point)))

        plaintext = keys.cipher_2(content[POINT_BYTES:])
        connection, at = connection_at(plaintext, 0)
        kid, mac, ead = authentication_at(plaintext, at)
        peer = self._named(kid)
        keys.authenticate_responder((yield from self._shared(self._private_key, peer.public_key)))
        if not equal(mac, keys.mac(MAC_2, byte_identifier(connection), peer, ead)):
            raise refused("message_2 is not by the holder of key %s" % kid.hex())
        self.peer_connection = connection
        self._candidate = peer
        keys.advance(plaintext, peer.ccs)

        keys.authenticate_initiator((yield from self._agree(point)))
        own = self._own
        plaintext = byte_identifier(own.kid) + cbor.encode(keys.mac(MAC_3, b"", own, b""))
        message_3 = cbor.encode(keys.seal_3(plaintext))
        keys.advance(plaintext, own.ccs)
        self._private_key = b""
        return message_3

    def _message_4(self, message: bytes) -> bytes:
        ciphertext = only_byte_string(message)
        try:
            plaintext = self._schedule().open_4(ciphertext)
        except ValueError as why:
            raise refused("message_4: %s" % why)
        check_ead(plaintext, 0)
        return b""
