"""Handshakes and records as targets: keys and random numbers are those of RFC 9529's trace, so that inputs matter.

A stranger on the line, and a peer that holds its keys and writes what it likes: both ends of the trace are attacked by
both. With everything fixed there is exactly one message that each end may take as the peer's, the one of the trace.
"""

import functools
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from tests.fuzz.corpus import edhoc_vectors
from tests.protocol.edhoc_primitives import run

from laterne_gateway.primitives import PRIMITIVES, agree, decompress
from laterne_protocol import cbor, edhoc, edhoc_messages
from laterne_protocol.edhoc_keys import MAC_2, MAC_3, SUITES, KeySchedule, Party, Primitives, byte_identifier
from laterne_protocol.edhoc_messages import EdhocError
from laterne_protocol.frame import RECORD, VERSION
from laterne_protocol.session import WINDOW, LinkKey, RecordError, Session, SessionError

Result = TypeVar("Result")
MAC_HERE = b"MAC-HERE"  # in a plaintext of the fuzzer: where the MAC belongs that is right for what follows it


class Trace:
    """One end of the trace: its party, its keys, its messages."""

    def __init__(self, role: str) -> None:
        self.said: dict[str, Any] = edhoc_vectors()["trace"][role]
        kid, ccs, public, self.private, self.connection, self.ephemeral, ephemeral_public = (
            bytes.fromhex(self.said[name])
            for name in ("kid", "ccs", "public", "private", "connection", "ephemeral_private", "ephemeral_public")
        )
        self.party = Party(kid, ccs, public)
        self.primitives = Primitives(
            lambda: at_once((self.ephemeral, ephemeral_public)),
            PRIMITIVES.decompress,
            PRIMITIVES.agree,
            PRIMITIVES.hkdf_extract,
            PRIMITIVES.hkdf_expand,
            PRIMITIVES.ccm_seal,
            PRIMITIVES.ccm_open,
        )

    def agree(self, public: bytes) -> Generator[None, None, bytes]:
        return agree(self.private, public)


def at_once(result: Result) -> Generator[None, None, Result]:
    return result
    yield


GATEWAY, BOARD = Trace("initiator"), Trace("responder")
KNOWN = {one.party.kid: one.party for one in (GATEWAY, BOARD)}.get
M1, M2, M3, M4 = (bytes.fromhex(edhoc_vectors()["trace"][f"message_{number}"]) for number in (1, 2, 3, 4))


def gateway(state: str) -> edhoc.Initiator:
    """The gateway's end, awaiting message_2 or message_4."""
    suites = tuple(edhoc_vectors()["trace"]["suites_i"])
    end = edhoc.Initiator(GATEWAY.primitives, GATEWAY.party, GATEWAY.agree, KNOWN, GATEWAY.connection, suites)
    assert run(end.take(edhoc.START)) == M1
    if state == edhoc.AWAITS_4:
        assert run(end.take(edhoc.MESSAGE_2, M2)) == M3
    return end


def board(state: str) -> edhoc.Responder:
    """The board's end, awaiting message_1 or message_3."""
    end = edhoc.Responder(BOARD.primitives, BOARD.party, BOARD.agree, KNOWN, BOARD.connection)
    if state == edhoc.AWAITS_3:
        assert run(end.take(edhoc.MESSAGE_1, M1)) == M2
    return end


@functools.cache
def schedule(of: str) -> KeySchedule:
    """The keys of the trace after message_2 ("plaintext_2": as the board has them) or before message_3 or message_4."""
    keys = KeySchedule(PRIMITIVES, SUITES[2], M1)
    content = edhoc_messages.only_byte_string(M2)
    point_y = run(decompress(content[:32]))
    keys.begin(content[:32], run(agree(GATEWAY.ephemeral, point_y)))
    plaintext_2 = keys.cipher_2(content[32:])
    keys.authenticate_responder(run(agree(GATEWAY.ephemeral, BOARD.party.public_key)))
    if of == "plaintext_2":
        return keys
    keys.advance(plaintext_2, BOARD.party.ccs)
    keys.authenticate_initiator(run(agree(GATEWAY.private, point_y)))
    if of == "plaintext_3":
        return keys
    keys.advance(keys.open_3(edhoc_messages.only_byte_string(M3)), GATEWAY.party.ccs)
    return keys


def taken(end: edhoc.Handshake, step: int, message: bytes) -> bool:
    """Whether the end takes the message; if not, it has ended as it must."""
    state = end.state
    try:
        run(end.take(step, message))
    except EdhocError:
        assert end.state == edhoc.FAILED
        assert end.peer is None
        assert end.answer == b""
        raise
    assert end.state == edhoc.NEXT[state, step]
    return True


# What a stranger or a peer sends; the first byte of an input says which --------------------------------------------


def to_the_board(data: bytes) -> None:
    """Messages for a board: message_1 and message_3 of a stranger, PLAINTEXT_3 of a gateway, an error."""
    what, data = data[:1], data[1:]
    if what == b"\x00":
        if taken(board(edhoc.AWAITS_1), edhoc.MESSAGE_1, data):
            suite, g_x, connection = edhoc_messages.parse_1(data, (2,))
            known = cbor.encode(3) + data[1 : data.index(g_x) - 2] + cbor.encode(g_x) + connection
            assert (suite, len(g_x)) == (2, 32)
            assert data.startswith(known)
            assert is_harmless(data[len(known) :])
    elif what == b"\x01":
        if taken(board(edhoc.AWAITS_3), edhoc.MESSAGE_3, data):
            assert data == M3
    elif what == b"\x02":
        if taken(board(edhoc.AWAITS_3), edhoc.MESSAGE_3, sealed_3(data)):
            plaintext, expected = with_mac(data, schedule("plaintext_3"), MAC_3, GATEWAY.party)
            assert plaintext == expected
            assert is_harmless(data.partition(MAC_HERE)[2])
    else:
        edhoc_messages.error_of(data)


def to_the_gateway(data: bytes) -> None:
    """Messages for a gateway: message_2 and message_4 of a stranger, PLAINTEXT_2 and EAD_4 of a board, an error."""
    what, data = data[:1], data[1:]
    if what == b"\x00":
        if taken(gateway(edhoc.AWAITS_2), edhoc.MESSAGE_2, data):
            assert data == M2
    elif what == b"\x01":
        if taken(gateway(edhoc.AWAITS_4), edhoc.MESSAGE_4, data):
            assert data == M4
    elif what == b"\x02":
        if taken(gateway(edhoc.AWAITS_2), edhoc.MESSAGE_2, sealed_2(data)):
            plaintext, expected = with_mac(data, schedule("plaintext_2"), MAC_2, BOARD.party, data[:1])
            assert plaintext == expected
            assert is_harmless(data.partition(MAC_HERE)[2])
    elif what == b"\x03":
        if taken(gateway(edhoc.AWAITS_4), edhoc.MESSAGE_4, cbor.encode(schedule("plaintext_4").seal_4(data))):
            assert is_harmless(data)
    else:
        edhoc_messages.error_of(data)


def sealed_2(data: bytes) -> bytes:
    """message_2 of a board that holds its keys and writes this plaintext."""
    keys = schedule("plaintext_2")
    # context_2 begins with the connection that the plaintext names.
    plaintext, _ = with_mac(data, keys, MAC_2, BOARD.party, data[:1])
    return cbor.encode(edhoc_messages.only_byte_string(M2)[:32] + keys.cipher_2(plaintext))


def sealed_3(data: bytes) -> bytes:
    """message_3 of a gateway that holds its keys and writes this plaintext."""
    keys = schedule("plaintext_3")
    return cbor.encode(keys.seal_3(with_mac(data, keys, MAC_3, GATEWAY.party)[0]))


def is_harmless(ead: bytes) -> bool:
    """RFC 9528, 3.8: labels, each with one byte string or none; a negative label is critical, and we know none."""
    kinds, at = "", 0
    while at < len(ead):
        item, at = cbor.decode_first(ead, at)
        kinds += "l" if type(item) is int and item >= 0 else "v" if isinstance(item, bytes) else "?"
    return re.fullmatch("(lv?)*", kinds) is not None


def with_mac(data: bytes, keys: KeySchedule, label: int, who: Party, head: bytes = b"") -> tuple[bytes, bytes]:
    """The plaintext with the right MAC in its place, and the one form in which it may be taken."""
    ead = data.partition(MAC_HERE)[2]
    mac = keys.mac(label, head, who, ead)
    return data.replace(MAC_HERE, mac, 1), head + byte_identifier(who.kid) + cbor.encode(mac) + ead


def seeds_for_the_board() -> list[bytes]:
    invalid = [bytes.fromhex(one["hex"]) for one in edhoc_vectors()["invalid"] if one["what"] == "message_1"]
    plaintext = byte_identifier(GATEWAY.party.kid) + cbor.encode(MAC_HERE)
    plain_1 = b"\x03\x02" + M1[4:]
    return [
        *(b"\x00" + message for message in (M1, plain_1, plain_1 + b"\x00\x41\x00", plain_1 + b"\x20", *invalid)),
        b"\x01" + M3,
        *(
            b"\x02" + one
            for one in (plaintext, plaintext + b"\x00\x42\x00\x00", plaintext + b"\x05", b"\x58" + plaintext)
        ),
        *seeds_of_errors(b"\x03"),
    ]


def seeds_for_the_gateway() -> list[bytes]:
    invalid = [bytes.fromhex(one["hex"]) for one in edhoc_vectors()["invalid"] if one["what"] == "PLAINTEXT_2"]
    plaintext = BOARD.connection + byte_identifier(BOARD.party.kid) + cbor.encode(MAC_HERE)
    return [
        b"\x00" + M2,
        b"\x01" + M4,
        *(b"\x02" + one for one in (plaintext, plaintext + b"\x00", plaintext + b"\x18\x63\x43abc", *invalid)),
        *(b"\x03" + ead for ead in (b"", b"\x00\x41\x00", b"\x05\x05\x41a", b"\x20")),
        *seeds_of_errors(b"\x04"),
    ]


def seeds_of_errors(what: bytes) -> list[bytes]:
    cases: list[tuple[int, object]] = [(1, "refused"), (2, (2,)), (2, (2, 3)), (3, True)]
    return [what + edhoc_messages.error_message(code, about) for code, about in cases]


# Records -----------------------------------------------------------------------------------------------------------

HEADER = bytes((VERSION << 4 | RECORD, 7, 0))
DOWN, UP = LinkKey(bytes(range(16)), bytes(range(13))), LinkKey(bytes(range(16, 32)), bytes(range(13, 26)))
RECORDS = 64


def session(sending: LinkKey, receiving: LinkKey) -> Session:
    return Session(PRIMITIVES, sending, receiving, b"\x01", b"\x01", 0)


@functools.cache
def records() -> list[bytes]:
    """What the gateway has sent: 64 records, of 0 to 63 bytes."""
    sender = session(DOWN, UP)
    return [sender.seal(HEADER, bytes((number,)) * number, 0) for number in range(RECORDS)]


def sent(data: bytes) -> Iterator[tuple[int | None, bytes, bytes]]:
    """What arrives, as the input says it: (number of the true record or None, frame header, record).

    0x00..0x3f: that record. 0x40..0x7f, place, mask: that record with one byte changed, in its header too.
    0x80..: so many bytes of the fuzzer's own, the header first.
    """
    at = 0
    while at < len(data):
        what, at = data[at], at + 1
        number = what & 0x3F
        if what < 0x40:
            yield number, HEADER, records()[number]
        elif what < 0x80:
            whole = bytearray(HEADER + records()[number])
            place, mask = data[at : at + 1], data[at + 1 : at + 2]
            at += 2
            if mask and mask != b"\x00":
                whole[place[0] % len(whole)] ^= mask[0]
                yield None, bytes(whole[:3]), bytes(whole[3:])
        else:
            size = what & 0x7F
            own, at = data[at : at + size], at + size
            truth = own[3:] in records() and own[:3] == HEADER
            yield records().index(own[3:]) if truth else None, own[:3], own[3:]


def records_in_any_order(data: bytes) -> None:
    """A session against records lost, repeated, late, changed and forged: judged as one that remembers everything."""
    receiver = session(UP, DOWN)
    opened: set[int] = set()
    for number, header, record in sent(data):
        over = receiver.failed_tags >= 16
        expected = number is not None and number not in opened and number > max(opened, default=-1) - WINDOW
        try:
            message = receiver.open(header, record, 0)
        except (RecordError, SessionError):
            assert over or not expected, f"record {number} is refused"
            continue
        assert number is not None, f"{header.hex()} {record.hex()} is forged"
        assert expected, f"record {number} is taken, after {sorted(opened)}"
        assert not over
        assert message == bytes((number,)) * number
        opened.add(number)


def seeds_of_records() -> list[bytes]:
    return [
        bytes(range(40)),
        bytes(range(39, -1, -1)),
        bytes([5, 5, 0, 33, 1, 2, 34, 33, 63, 31, 30]),
        bytes([0x45, 10, 1, 5, 0x45, 0, 1, 6, 0x46, 4, 0x80]) + bytes(range(7, 12)),
        bytes([0x80 + len(HEADER + records()[9])]) + HEADER + records()[9] + b"\x09",
        bytes([0x80 + 15]) + HEADER + b"\x01\x00\x00\x03" + bytes(8) + b"\x03",
        bytes([0x40, 6, 1] * 17),
    ]


Target = Callable[[bytes], None]
TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "edhoc-board": (to_the_board, seeds_for_the_board),
    "edhoc-gateway": (to_the_gateway, seeds_for_the_gateway),
    "record": (records_in_any_order, seeds_of_records),
}
