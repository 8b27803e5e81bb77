"""Both ends of a handshake on CPython, and an end that breaks the rules, for test_edhoc*.py."""

from collections.abc import Callable

import pytest
from tests.protocol.edhoc_ends import Someone
from tests.protocol.edhoc_primitives import (
    PRIMITIVES,
    agree,
    decompress,
    new_key,
    run,
)

from laterne_protocol import cbor, edhoc, edhoc_messages
from laterne_protocol.edhoc_keys import (
    MAC_2,
    MAC_3,
    SUITES,
    KeySchedule,
    Party,
    Primitives,
)
from laterne_protocol.edhoc_messages import EdhocError

GATEWAY, BOARD, STRANGER = Someone("gateway-1"), Someone("LE-0007"), Someone("LE-0008")
C_I, C_R = b"\x01", b"\x20"


def roster(*members: Someone) -> Callable[[bytes], Party | None]:
    return {member.party.kid: member.party for member in members}.get


EVERYBODY = roster(GATEWAY, BOARD, STRANGER)


def gateway(find: Callable[[bytes], Party | None] = EVERYBODY, suites: tuple[int, ...] = (2,)) -> edhoc.Initiator:
    own = GATEWAY
    return edhoc.Initiator(PRIMITIVES, own.party, lambda public: agree(own.private, public), find, C_I, suites)


def board(
    find: Callable[[bytes], Party | None] = EVERYBODY,
    suites: tuple[int, ...] = (2,),
    own: Someone = BOARD,
    primitives: Primitives = PRIMITIVES,
) -> edhoc.Responder:
    return edhoc.Responder(primitives, own.party, lambda public: agree(own.private, public), find, C_R, suites)


def handshake(one: edhoc.Initiator, other: edhoc.Responder) -> list[bytes]:
    """The four messages of a whole handshake."""
    messages = [run(one.take(edhoc.START))]
    messages.append(run(other.take(edhoc.MESSAGE_1, messages[0])))
    messages.append(run(one.take(edhoc.MESSAGE_2, messages[1])))
    messages.append(run(other.take(edhoc.MESSAGE_3, messages[2])))
    assert run(one.take(edhoc.MESSAGE_4, messages[3])) == b""
    return messages


def brought_to(state: str) -> edhoc.Handshake:
    """A handshake in one of its states."""
    one, other = gateway(), board()
    if state == edhoc.NEW:
        return one
    if state == edhoc.AWAITS_1:
        return other
    message_1 = run(one.take(edhoc.START))
    if state == edhoc.AWAITS_2:
        return one
    message_2 = run(other.take(edhoc.MESSAGE_1, message_1))
    if state == edhoc.AWAITS_3:
        return other
    if state == edhoc.FAILED:
        with pytest.raises(EdhocError):
            run(one.take(edhoc.MESSAGE_2, b"\x00"))
        return one
    run(one.take(edhoc.MESSAGE_2, message_2))
    assert state == edhoc.AWAITS_4
    return one


def error_of_step(end: edhoc.Handshake, step: int, message: bytes) -> tuple[int, object]:
    """The EDHOC error with which an end answers a message that ends its handshake."""
    with pytest.raises(EdhocError) as why:
        run(end.take(step, message))
    assert end.state == edhoc.FAILED
    assert end.answer == b""
    return edhoc_messages.error_of(why.value.answer)


class Loose:
    """A peer that holds its key and makes right MACs, but writes its plaintexts as the test likes."""

    def __init__(self, own: Someone) -> None:
        self.own = own
        self.private, self.public = new_key()

    def message_2(self, message_1: bytes, write: Callable[[bytes], bytes], ead: bytes = b"") -> bytes:
        """message_2 to a message_1 of suite 2. write(MAC_2): its plaintext without EAD."""
        g_x = run(decompress(message_1[4:36]))
        self.keys = keys = KeySchedule(PRIMITIVES, SUITES[2], message_1)
        keys.begin(self.public[:32], run(agree(self.private, g_x)))
        keys.authenticate_responder(run(agree(self.own.private, g_x)))
        plaintext = write(keys.mac(MAC_2, C_R, self.own.party, ead)) + ead
        message = cbor.encode(self.public[:32] + keys.cipher_2(plaintext))
        keys.advance(plaintext, self.own.party.ccs)
        return message

    def message_4(self, message_3: bytes, ead: bytes) -> bytes:
        keys = self.keys
        content = cbor.decode(message_3)
        assert isinstance(content, bytes)
        plaintext = keys.open_3(content)
        keys.authenticate_initiator(run(agree(self.private, GATEWAY.party.public_key)))
        keys.advance(plaintext, GATEWAY.party.ccs)
        return cbor.encode(keys.seal_4(ead))

    def message_1(self, ead: bytes) -> bytes:
        message = b"\x03\x02" + cbor.encode(self.public[:32]) + C_I + ead
        self.keys = KeySchedule(PRIMITIVES, SUITES[2], message)
        return message

    def message_3(self, message_2: bytes, write: Callable[[bytes], bytes], ead: bytes = b"") -> bytes:
        keys, content = self.keys, cbor.decode(message_2)
        assert isinstance(content, bytes)
        g_y = run(decompress(content[:32]))
        keys.begin(content[:32], run(agree(self.private, g_y)))
        plaintext = keys.cipher_2(content[32:])
        keys.authenticate_responder(run(agree(self.private, BOARD.party.public_key)))
        keys.advance(plaintext, BOARD.party.ccs)
        keys.authenticate_initiator(run(agree(self.own.private, g_y)))
        return cbor.encode(keys.seal_3(write(keys.mac(MAC_3, b"", self.own.party, ead)) + ead))
