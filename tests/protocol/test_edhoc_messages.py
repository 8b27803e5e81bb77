"""The messages of a handshake as a target: every byte changed, every thing in another form, every error."""

import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.firmware.micropython import BoardError
from tests.protocol.edhoc_ends import Here, Someone, responder, there
from tests.protocol.edhoc_pair import (
    BOARD,
    C_I,
    C_R,
    GATEWAY,
    Loose,
    board,
    brought_to,
    error_of_step,
    gateway,
    handshake,
)
from tests.protocol.edhoc_primitives import (
    PRIMITIVES,
    run,
)

from laterne_protocol import cbor, edhoc, edhoc_messages
from laterne_protocol.edhoc_keys import (
    SUITES,
    KeySchedule,
    Party,
    byte_identifier,
)
from laterne_protocol.edhoc_messages import EdhocError
from laterne_protocol.errors import MessageError

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
        message_2 = loose.message_2(run(one.take(edhoc.START)), lambda mac, kid=kid: C_R + kid + cbor.encode(mac))  # type: ignore[misc]  # mypy infers no lambda with a default
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
