"""The handshake as a state machine and as a target: what it does in order, and what it refuses."""

import itertools
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laterne_protocol import cbor, edhoc, edhoc_messages
from laterne_protocol.edhoc_keys import (
    MAC_2,
    MAC_3,
    SUITES,
    KeySchedule,
    Party,
    Primitives,
    byte_identifier,
    party,
)
from laterne_protocol.errors import EdhocError, MessageError

from tests.firmware.micropython import BoardError
from tests.protocol.edhoc_ends import End, Here, Someone, initiator, responder, shake_hands, there
from tests.protocol.edhoc_primitives import (
    PRIMITIVES,
    agree,
    ccm_open,
    ccm_seal,
    decompress,
    hkdf_expand,
    hkdf_extract,
    make_key,
    new_key,
    run,
)

GATEWAY, BOARD, STRANGER = Someone("gateway-1"), Someone("LE-0007"), Someone("LE-0008")
C_I, C_R = b"\x01", b"\x20"
OUR_ERRORS = (EdhocError, MessageError)


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


# In order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_after_a_handshake_both_ends_know_each_other_and_have_the_same_keys(suite: int) -> None:
    one, other = gateway(suites=(suite,)), board(suites=(suite,))
    messages = handshake(one, other)
    assert [len(message) for message in messages] == ([37, 53, 28, 9] if suite == 2 else [37, 61, 44, 17])
    assert one.peer is BOARD.party
    assert other.peer is GATEWAY.party
    assert (one.peer_connection, other.peer_connection) == (C_R, C_I)
    assert one.exporter(32768, b"a", 29) == other.exporter(32768, b"a", 29)
    made = {one.exporter(label, context, 29) for label in (32768, 32769) for context in (b"a", b"b")}
    assert len(made) == 4


@pytest.mark.parametrize(("here", "there_is"), [("gateway", "board"), ("board", "gateway")])
def test_a_handshake_joins_cpython_and_micropython_in_either_role(here: str, there_is: str) -> None:
    makers = {"gateway": initiator(GATEWAY, [BOARD.party]), "board": responder(BOARD, [GATEWAY.party])}
    with ExitStack() as stack:
        ends: dict[str, End] = {here: Here(), there_is: stack.enter_context(there())}
        for role, end in ends.items():
            end.ask(makers[role])
        shake_hands(ends["gateway"], ends["board"])
        question = {"do": "export", "label": 32768, "context": "00", "size": 29}
        assert ends["gateway"].ask(question) == ends["board"].ask(question)


def test_on_a_board_the_event_loop_runs_while_a_message_is_worked_on() -> None:
    message = run(gateway().take(edhoc.START))
    with there() as end:
        end.ask(responder(BOARD, [GATEWAY.party]))
        _, state, steps, *_ = end.ask({"do": "take", "step": 1, "message": message.hex()})
        assert state == edhoc.AWAITS_3
        assert steps > 100


def test_every_handshake_has_new_ephemeral_keys() -> None:
    assert len({run(gateway().take(edhoc.START)) for _ in range(10)}) == 10
    message_1 = run(gateway().take(edhoc.START))
    assert len({run(board().take(edhoc.MESSAGE_1, message_1)) for _ in range(10)}) == 10


STATES = (edhoc.NEW, edhoc.AWAITS_1, edhoc.AWAITS_2, edhoc.AWAITS_3, edhoc.AWAITS_4, edhoc.FAILED)


@pytest.mark.parametrize(
    ("state", "step"), [pair for pair in itertools.product(STATES, range(7)) if pair not in edhoc.NEXT]
)
def test_a_message_out_of_order_is_dropped_and_changes_nothing(state: str, step: int) -> None:
    end = brought_to(state)
    with pytest.raises(MessageError):
        run(end.take(step, b"\x58\x20" + bytes(32)))
    assert end.state == state


def test_a_frame_of_a_stranger_ends_no_finished_handshake() -> None:
    one, other = gateway(), board()
    handshake(one, other)
    keys = one.exporter(32768, b"", 29)
    for end, step in itertools.product((one, other), range(7)):
        with pytest.raises(MessageError):
            run(end.take(step, b"\x40"))
    assert one.exporter(32768, b"", 29) == other.exporter(32768, b"", 29) == keys


def test_a_repeated_message_gets_the_same_bytes_again_and_costs_nothing() -> None:
    drawn = []

    def counted() -> Generator[None, None, tuple[bytes, bytes]]:
        drawn.append(1)
        return make_key()

    primitives = Primitives(counted, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)
    one, other = gateway(), board(primitives=primitives)
    message_1 = run(one.take(edhoc.START))
    assert run(one.take(edhoc.START)) == message_1
    message_2 = run(other.take(edhoc.MESSAGE_1, message_1))
    assert run(other.take(edhoc.MESSAGE_1, message_1)) == message_2
    message_3 = run(one.take(edhoc.MESSAGE_2, message_2))
    assert run(one.take(edhoc.MESSAGE_2, message_2)) == message_3
    message_4 = run(other.take(edhoc.MESSAGE_3, message_3))
    assert run(other.take(edhoc.MESSAGE_3, message_3)) == message_4
    for _ in range(2):
        assert run(one.take(edhoc.MESSAGE_4, message_4)) == b""
    assert len(drawn) == 1
    assert one.exporter(1, b"", 16) == other.exporter(1, b"", 16)


def test_another_message_1_never_gets_a_second_message_2_from_one_handshake() -> None:
    other = board()
    first = run(other.take(edhoc.MESSAGE_1, run(gateway().take(edhoc.START))))
    with pytest.raises(MessageError):
        run(other.take(edhoc.MESSAGE_1, run(gateway().take(edhoc.START))))
    assert other.answer == first


def test_while_a_step_is_under_way_no_other_begins() -> None:
    other, message_1 = board(primitives=slow(PRIMITIVES)), run(gateway().take(edhoc.START))
    steps = other.take(edhoc.MESSAGE_1, message_1)
    next(steps)
    assert other.state == edhoc.WORKING
    with pytest.raises(MessageError):
        run(other.take(edhoc.MESSAGE_1, message_1))
    assert run(steps)
    assert other.state == edhoc.AWAITS_3


def test_a_step_left_alone_in_the_middle_ends_the_handshake() -> None:
    other = board(primitives=slow(PRIMITIVES))
    steps = other.take(edhoc.MESSAGE_1, run(gateway().take(edhoc.START)))
    next(steps)
    steps.close()
    assert other.state == edhoc.FAILED


def slow(fast: Primitives) -> Primitives:
    """As on a board: making a key takes more than one step."""

    def steps() -> Generator[None, None, tuple[bytes, bytes]]:
        yield
        return (yield from fast.make_key())

    return Primitives(steps, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)


def test_there_are_no_keys_before_the_peer_has_proved_who_it_is() -> None:
    for state in STATES:
        with pytest.raises(EdhocError):
            brought_to(state).exporter(32768, b"", 29)


def test_neither_end_keeps_what_it_no_longer_needs() -> None:
    made: list[bytes] = []

    def noted() -> Generator[None, None, tuple[bytes, bytes]]:
        private, public = yield from make_key()
        made.append(private)
        return private, public

    primitives = Primitives(noted, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)
    other = board(primitives=primitives)
    handshake(gateway(), other)
    failed = board(primitives=primitives)
    run(failed.take(edhoc.MESSAGE_1, run(gateway().take(edhoc.START))))
    with pytest.raises(EdhocError):
        run(failed.take(edhoc.MESSAGE_3, b"\x48" + bytes(8)))
    assert len(made) == 2
    for end in (other, failed):
        kept = list(vars(end).values())
        assert not any(private in kept for private in made)
        assert not any(isinstance(value, KeySchedule) for value in kept)


def test_a_broken_source_of_random_numbers_is_told_as_such_and_ends_the_handshake() -> None:
    def broken() -> Generator[None, None, tuple[bytes, bytes]]:
        raise OSError("no random numbers")
        yield

    primitives = Primitives(broken, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)
    other = board(primitives=primitives)
    with pytest.raises(OSError, match="no random numbers"):
        run(other.take(edhoc.MESSAGE_1, run(gateway().take(edhoc.START))))
    assert other.state == edhoc.FAILED


# Who -------------------------------------------------------------------------------------------------------------


def error_of_step(end: edhoc.Handshake, step: int, message: bytes) -> tuple[int, object]:
    """The EDHOC error with which an end answers a message that ends its handshake."""
    with pytest.raises(EdhocError) as why:
        run(end.take(step, message))
    assert end.state == edhoc.FAILED
    assert end.answer == b""
    return edhoc_messages.error_of(why.value.answer)


def test_a_board_that_is_not_on_the_roster_is_refused() -> None:
    one, other = gateway(roster(GATEWAY, STRANGER)), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    assert error_of_step(one, edhoc.MESSAGE_2, message_2) == (3, True)


def test_a_gateway_that_the_board_does_not_know_is_refused() -> None:
    one, other = gateway(), board(roster(STRANGER))
    message_2 = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    message_3 = run(one.take(edhoc.MESSAGE_2, message_2))
    assert error_of_step(other, edhoc.MESSAGE_3, message_3) == (3, True)


def test_a_board_that_names_the_key_of_another_is_refused() -> None:
    """It has the credential of STRANGER, which is public, but not the key."""
    liar = Someone("LE-0007")
    liar.party = STRANGER.party
    one, other = gateway(), board(own=liar)
    message_2 = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    assert error_of_step(one, edhoc.MESSAGE_2, message_2) == (1, "refused")


def test_a_gateway_that_names_the_key_of_another_is_refused() -> None:
    liar = edhoc.Initiator(PRIMITIVES, GATEWAY.party, lambda public: agree(new_key()[0], public), EVERYBODY, C_I)
    other = board()
    message_2 = run(other.take(edhoc.MESSAGE_1, run(liar.take(edhoc.START))))
    message_3 = run(liar.take(edhoc.MESSAGE_2, message_2))
    assert error_of_step(other, edhoc.MESSAGE_3, message_3) == (1, "refused")


def test_the_same_key_under_another_name_is_refused() -> None:
    renamed = party("LE-0666", BOARD.party.public_key)
    one, other = gateway(lambda kid: renamed), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    assert error_of_step(one, edhoc.MESSAGE_2, message_2) == (1, "refused")


def test_our_own_credential_is_no_peer_even_if_the_roster_has_it() -> None:
    """Reflection: what a gateway says comes back from another end with its own key."""
    one, mirror = gateway(), board(own=GATEWAY)
    message_2 = run(mirror.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    with pytest.raises(EdhocError, match="our own credential"):
        run(one.take(edhoc.MESSAGE_2, message_2))


OUR_KEY_RENAMED = Party(b"gateway9", GATEWAY.party.ccs, BOARD.party.public_key)


@pytest.mark.parametrize("name", [BOARD.party, party("gateway-9", BOARD.party.public_key), OUR_KEY_RENAMED])
def test_a_gateway_with_the_key_of_the_board_is_refused_under_any_name(name: Party) -> None:
    loose, other = Loose(BOARD), board(lambda kid: name)
    message_2 = run(other.take(edhoc.MESSAGE_1, loose.message_1(b"")))
    message_3 = loose.message_3(message_2, lambda mac: cbor.encode(name.kid) + cbor.encode(mac))
    with pytest.raises(EdhocError, match="our own credential"):
        run(other.take(edhoc.MESSAGE_3, message_3))


def test_a_key_of_the_roster_that_is_beside_the_curve_is_an_error_of_ours() -> None:
    crooked = Party(BOARD.party.kid, BOARD.party.ccs, bytes(63) + b"\x01")
    one, other = gateway(lambda kid: crooked), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
    assert error_of_step(one, edhoc.MESSAGE_2, message_2) == (1, "refused")


# Every byte ------------------------------------------------------------------------------------------------------


def spoilt(message: bytes) -> list[bytes]:
    """The message with each byte changed in several ways, cut anywhere, and with something behind it."""
    changed = []
    for at, mask in itertools.product(range(len(message)), (0x01, 0x20, 0x80, 0xFF)):
        changed.append(message[:at] + bytes((message[at] ^ mask,)) + message[at + 1 :])
    changed += [message[:size] for size in range(len(message))]
    changed += [message + b"\x00", message + b"\x40", message + message, b"\x40" + message, cbor.encode(message)]
    return changed


def test_a_changed_message_1_makes_no_keys() -> None:
    """It is not protected by itself: what a board takes of it, message_2 answers, and the gateway refuses that."""
    one = gateway()
    message_1 = run(one.take(edhoc.START))
    refused = 0
    for changed in spoilt(message_1):
        other = board()
        try:
            message_2 = run(other.take(edhoc.MESSAGE_1, changed))
        except EdhocError:
            refused += 1
            continue
        victim = twin(one)
        with pytest.raises(EdhocError):
            run(victim.take(edhoc.MESSAGE_2, message_2))
    assert refused > len(message_1)  # all that is cut, most of what is no x-coordinate


def twin(one: edhoc.Initiator) -> edhoc.Initiator:
    """A gateway's end in the state of another that awaits message_2."""
    copy = gateway()
    vars(copy).update(vars(one))
    copy._keys = KeySchedule(PRIMITIVES, SUITES[2], one.answer)
    return copy


@pytest.mark.parametrize("step", [edhoc.MESSAGE_2, edhoc.MESSAGE_3, edhoc.MESSAGE_4])
def test_a_changed_message_ends_the_handshake_with_an_error_of_ours(step: int) -> None:
    size = len(handshake(gateway(), board())[step - 1])
    for number in range(len(spoilt(bytes(size)))):
        one, other = gateway(), board()
        message = run(other.take(edhoc.MESSAGE_1, run(one.take(edhoc.START))))
        victim: edhoc.Handshake = one
        if step > edhoc.MESSAGE_2:
            message = run(one.take(edhoc.MESSAGE_2, message))
            victim = other
        if step > edhoc.MESSAGE_3:
            message = run(other.take(edhoc.MESSAGE_3, message))
            victim = one
        with pytest.raises(EdhocError):
            run(victim.take(step, spoilt(message)[number]))
        assert victim.state == edhoc.FAILED
        assert victim.peer is None


def test_changed_bytes_end_the_handshake_on_the_board_too() -> None:
    made = {"make": responder(BOARD, [GATEWAY.party])}
    one = gateway()
    message_1 = run(one.take(edhoc.START))
    wrong = [message_1[:at] + bytes((message_1[at] ^ 0x20,)) + message_1[at + 1 :] for at in range(len(message_1))]
    wrong += [message_1[:size] for size in range(len(message_1))] + [b"", b"\xff" * 512, b"\x81" * 512]
    rubbish = [b"\x48" + bytes(8), b"\x40", b"", b"\x47" + bytes(7), b"\x52" + bytes(18), b"\x9f", b"\x58\x20"]
    with there() as end:
        first = [{"do": "refusal", **made, "messages": [[1, message.hex()]]} for message in wrong]
        third = [{"do": "refusal", **made, "messages": [[1, message_1.hex()], [3, wrong.hex()]]} for wrong in rubbish]
        verdicts = end.ask_all(first)
        here = Here()
        assert verdicts == [here.ask(question) for question in first]
        # A changed x may be another point, a changed C_I another name: what is taken is found out by message_2.
        assert set(verdicts) == {"EdhocError", ""}
        assert verdicts.count("EdhocError") > len(message_1)
        assert set(end.ask_all(third)) == {"EdhocError"}
        end.ask(made["make"])
        with pytest.raises(BoardError, match="at most 512") as why:
            end.ask({"do": "take", "step": 1, "message": "00" * 513})
        assert why.value.kind == "MessageError"


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), step=st.sampled_from([edhoc.MESSAGE_1, edhoc.MESSAGE_2, edhoc.MESSAGE_3]))
def test_any_bytes_at_all_raise_nothing_but_our_errors(data: bytes, step: int) -> None:
    end = brought_to({1: edhoc.AWAITS_1, 2: edhoc.AWAITS_2, 3: edhoc.AWAITS_3}[step])
    with pytest.raises(EdhocError):
        run(end.take(step, data))
    with suppress(MessageError):
        edhoc_messages.error_of(data)


# One form for one thing --------------------------------------------------------------------------------------------


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


KID_R, KID_I = BOARD.party.kid, GATEWAY.party.kid
NO_EAD_OF_OURS = {
    "a text": b"\x61a",
    "a value without a label": b"\x41a",
    "two values for one label": b"\x00\x41a\x41b",
    "a label that is no integer": b"\xf5",
    "a label longer than need be": b"\x18\x00",
    "critical": b"\x20",
    "critical with a value": b"\x21\x41a",
    "critical after padding": b"\x00\x41a\x22",
    "an empty array": b"\x80",
    "a value cut off": b"\x00\x42a",
}
EAD_TO_IGNORE = {
    "padding": b"\x00\x45\x00\x00\x00\x00\x00",
    "padding without a value": b"\x00",
    "padding twice": b"\x00\x00\x41\x00",
    "unknown": b"\x18\x63\x43abc",
    "padding and unknown": b"\x00\x41\x00\x05\x05\x41a",
}


def right_2(mac: bytes) -> bytes:
    return C_R + cbor.encode(KID_R) + cbor.encode(mac)


def right_3(mac: bytes) -> bytes:
    return cbor.encode(KID_I) + cbor.encode(mac)


@pytest.mark.parametrize("ead", EAD_TO_IGNORE.values(), ids=EAD_TO_IGNORE)
def test_padding_and_what_is_not_critical_is_left_unread(ead: bytes) -> None:
    one, loose = gateway(), Loose(BOARD)
    message_3 = run(one.take(edhoc.MESSAGE_2, loose.message_2(run(one.take(edhoc.START)), right_2, ead)))
    run(one.take(edhoc.MESSAGE_4, loose.message_4(message_3, ead)))
    assert one.exporter(5, b"", 16)

    loose, other = Loose(GATEWAY), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, loose.message_1(ead)))
    run(other.take(edhoc.MESSAGE_3, loose.message_3(message_2, right_3, ead)))
    assert other.peer is GATEWAY.party


@pytest.mark.parametrize("ead", NO_EAD_OF_OURS.values(), ids=NO_EAD_OF_OURS)
def test_what_is_critical_or_no_authorization_data_is_refused_in_every_message(ead: bytes) -> None:
    one, loose = gateway(), Loose(BOARD)
    message_1 = run(one.take(edhoc.START))
    with pytest.raises(EdhocError):
        run(one.take(edhoc.MESSAGE_2, loose.message_2(message_1, right_2, ead)))

    one, loose = gateway(), Loose(BOARD)
    message_3 = run(one.take(edhoc.MESSAGE_2, loose.message_2(run(one.take(edhoc.START)), right_2)))
    with pytest.raises(EdhocError):
        run(one.take(edhoc.MESSAGE_4, loose.message_4(message_3, ead)))

    with pytest.raises(EdhocError):
        run(board().take(edhoc.MESSAGE_1, Loose(GATEWAY).message_1(ead)))

    loose, other = Loose(GATEWAY), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, loose.message_1(b"")))
    with pytest.raises(EdhocError):
        run(other.take(edhoc.MESSAGE_3, loose.message_3(message_2, right_3, ead)))


WRONG_2: dict[str, Callable[[bytes], bytes]] = {
    "the connection in a byte string": lambda mac: cbor.encode(C_R) + cbor.encode(KID_R) + cbor.encode(mac),
    "a connection of two bytes": lambda mac: b"\x18\x20" + cbor.encode(KID_R) + cbor.encode(mac),
    "a connection that is true": lambda mac: b"\xf5" + cbor.encode(KID_R) + cbor.encode(mac),
    "the kid in its map": lambda mac: C_R + cbor.encode({4: KID_R}) + cbor.encode(mac),
    "the kid as a text": lambda mac: C_R + b"\x68" + b"abcdefgh" + cbor.encode(mac),
    "the kid with a long length": lambda mac: C_R + b"\x58\x08" + KID_R + cbor.encode(mac),
    "the MAC as it is": lambda mac: C_R + cbor.encode(KID_R) + mac,
    "a MAC cut short": lambda mac: C_R + cbor.encode(KID_R) + cbor.encode(mac[:7]),
    "no MAC": lambda mac: C_R + cbor.encode(KID_R),
    "an empty MAC": lambda mac: C_R + cbor.encode(KID_R) + b"\x40",
    "a longer MAC": lambda mac: C_R + cbor.encode(KID_R) + cbor.encode(mac + b"\x00"),
    "an array around it": lambda mac: b"\x83" + right_2(mac),
}


@pytest.mark.parametrize("write", WRONG_2.values(), ids=WRONG_2)
def test_a_plaintext_2_in_another_form_is_refused_though_its_mac_is_right(write: Callable[[bytes], bytes]) -> None:
    one = gateway()
    with pytest.raises(EdhocError):
        run(one.take(edhoc.MESSAGE_2, Loose(BOARD).message_2(run(one.take(edhoc.START)), write)))


WRONG_3: dict[str, Callable[[bytes], bytes]] = {
    "the kid in its map": lambda mac: cbor.encode({4: KID_I}) + cbor.encode(mac),
    "a MAC cut short": lambda mac: cbor.encode(KID_I) + cbor.encode(mac[:7]),
    "an array around it": lambda mac: b"\x82" + right_3(mac),
    "nothing": lambda mac: b"",
}


@pytest.mark.parametrize("write", WRONG_3.values(), ids=WRONG_3)
def test_a_plaintext_3_in_another_form_is_refused_though_its_mac_is_right(write: Callable[[bytes], bytes]) -> None:
    loose, other = Loose(GATEWAY), board()
    message_2 = run(other.take(edhoc.MESSAGE_1, loose.message_1(b"")))
    with pytest.raises(EdhocError):
        run(other.take(edhoc.MESSAGE_3, loose.message_3(message_2, write)))


def test_a_kid_of_one_byte_has_one_form_too() -> None:
    """The surplus encoding of RFC 9529, with a right MAC."""
    short = Someone("LE-0009")
    short.party = Party(b"\x32", short.party.ccs, short.party.public_key)
    for kid, verdict in ((byte_identifier(b"\x32"), ""), (b"\x41\x32", "refused")):
        one, loose = gateway(lambda kid: short.party), Loose(short)
        message_2 = loose.message_2(run(one.take(edhoc.START)), lambda mac, kid=kid: C_R + kid + cbor.encode(mac))  # type: ignore[misc]
        if verdict:
            with pytest.raises(EdhocError, match="kid alone"):
                run(one.take(edhoc.MESSAGE_2, message_2))
        else:
            assert run(one.take(edhoc.MESSAGE_2, message_2))


def test_there_are_48_names_of_one_byte() -> None:
    names = edhoc_messages.connections()
    assert len(set(names)) == 48
    assert all(byte_identifier(name) == name for name in names)
    assert all(len(byte_identifier(bytes((other,)))) == 2 for other in range(256) if bytes((other,)) not in names)


@pytest.mark.parametrize("method", [b"\x00", b"\x01", b"\x02", b"\x04", b"\x22", b"\xf5", b"\x41\x03"])
def test_no_other_method_is_spoken(method: bytes) -> None:
    message_1 = run(gateway().take(edhoc.START))
    assert error_of_step(board(), edhoc.MESSAGE_1, method + message_1[1:]) == (1, "refused")


# Suites and errors -----------------------------------------------------------------------------------------------

SUITE_CASES = {
    # what message_1 offers, what the board speaks -> the error's list; None: no error
    "ours": ((2,), (2,), None),
    "ours after one we do not speak": ((6, 2), (2,), None),
    "another": ((3,), (2,), [2]),
    "ours stands before the selected": ((2, 3), (2, 3), [2, 3]),
    "the selected is not ours though one before is": ((2, 3), (2,), [2]),
    "two of ours": ((3,), (2, 3), None),
}


@pytest.mark.parametrize(("offered", "spoken", "told"), SUITE_CASES.values(), ids=SUITE_CASES)
def test_suites_are_agreed_or_named(offered: tuple[int, ...], spoken: tuple[int, ...], told: list[int] | None) -> None:
    one, other = gateway(suites=offered), board(suites=spoken)
    if told is None:
        handshake(one, other)
    else:
        assert error_of_step(other, edhoc.MESSAGE_1, run(one.take(edhoc.START))) == (2, told)


def test_the_error_about_suites_needs_no_key_of_ours() -> None:
    """Suite 0 has keys of another curve: the suite is judged before the key."""
    message_1 = b"\x03\x00" + cbor.encode(b"\xff" * 32) + C_I
    assert error_of_step(board(), edhoc.MESSAGE_1, message_1) == (2, [2])


ERRORS = [(1, "refused"), (1, ""), (2, (2,)), (2, (2, 3)), (3, True)]


@pytest.mark.parametrize(("code", "about"), ERRORS)
def test_an_error_message_says_what_it_was_given(code: int, about: object) -> None:
    message = edhoc_messages.error_message(code, about)
    assert edhoc_messages.error_of(message) == (code, list(about) if isinstance(about, tuple) else about)
    for changed in [message + b"\x00", message[:-1], b"\x81" + message]:
        with pytest.raises(MessageError):
            edhoc_messages.error_of(changed)


NO_ERRORS = ["00", "0000", "0001", "170100", "1718", "0102", "01f5", "0201f5", "028102", "0280", "02f5", "0261", "03f4"]
NO_ERRORS += ["0301", "f5f5", "01616100", "0141aa", "02826161", "1801"]


@pytest.mark.parametrize("message", ["", *NO_ERRORS, "0178ff" + "61" * 255, "01" + "40" * 512])
def test_what_is_no_error_message_is_refused(message: str) -> None:
    with pytest.raises(MessageError):
        edhoc_messages.error_of(bytes.fromhex(message))
