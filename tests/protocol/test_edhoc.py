"""The handshake as a state machine: what it does in which order, and with whom."""

import itertools
from collections.abc import Generator
from contextlib import ExitStack

import pytest
from tests.protocol.edhoc_ends import End, Here, Someone, initiator, responder, shake_hands, there
from tests.protocol.edhoc_pair import (
    BOARD,
    C_I,
    C_R,
    EVERYBODY,
    GATEWAY,
    STRANGER,
    Loose,
    board,
    brought_to,
    error_of_step,
    gateway,
    handshake,
    roster,
)
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

from laterne_protocol import cbor, edhoc
from laterne_protocol.edhoc_keys import (
    SUITES,
    KeySchedule,
    Party,
    Primitives,
    party,
)
from laterne_protocol.edhoc_messages import EdhocError
from laterne_protocol.errors import MessageError

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
