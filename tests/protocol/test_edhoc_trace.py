"""The handshake against RFC 9529: its trace byte for byte, its invalid messages refused, on both interpreters."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.firmware.micropython import BoardError
from tests.protocol.edhoc_ends import VECTORS, End, Here, take, there, traced
from tests.protocol.edhoc_primitives import PRIMITIVES, agree, run

from laterne_protocol.edhoc_keys import SUITES, KeySchedule, ccs

TRACE = VECTORS["trace"]
INVALID = {case["title"]: case for case in VECTORS["invalid"]}
OURS = "EdhocError"


@pytest.fixture(scope="module", params=["CPython", "MicroPython"])
def end(request: pytest.FixtureRequest) -> Iterator[End]:
    with ExitStack() as stack:
        yield Here() if request.param == "CPython" else stack.enter_context(there())


def invalid(what: str) -> list[str]:
    return [title for title, case in INVALID.items() if case["what"] == what]


def test_the_initiator_of_the_trace_sends_its_bytes(end: End) -> None:
    end.ask(traced("initiator"))
    assert take(end, 0) == TRACE["message_1"]
    assert take(end, 2, TRACE["message_2"]) == TRACE["message_3"]
    assert take(end, 4, TRACE["message_4"]) == ""
    check_exported(end, "responder")


def test_the_responder_of_the_trace_sends_its_bytes(end: End) -> None:
    end.ask(traced("responder"))
    assert take(end, 1, TRACE["message_1"]) == TRACE["message_2"]
    assert take(end, 3, TRACE["message_3"]) == TRACE["message_4"]
    check_exported(end, "initiator")


def check_exported(end: End, peer: str) -> None:
    assert end.ask({"do": "peer"}) == TRACE[peer]["kid"]
    for case in TRACE["exported"]:
        size = len(case["hex"]) // 2
        question = {"do": "export", "label": case["label"], "context": case["context"], "size": size}
        assert end.ask(question) == case["hex"]


def test_a_suite_that_the_board_does_not_speak_is_answered_with_those_it_does(end: End) -> None:
    end.ask(traced("responder"))
    question = {"do": "error_for", "step": 1, "message": TRACE["first_message_1"]}
    assert end.ask(question) == TRACE["error"]


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_a_credential_has_the_bytes_of_the_trace(side: str) -> None:
    own = TRACE[side]
    kid, public = bytes.fromhex(own["kid"]), bytes.fromhex(own["public"])
    assert ccs(own["subject"], kid, public).hex() == own["ccs"]


def test_there_are_fifteen_invalid_messages() -> None:
    assert [len(invalid(what)) for what in ("message_1", "message_2", "PLAINTEXT_2")] == [11, 1, 3]


@pytest.mark.parametrize("title", invalid("message_1"))
def test_an_invalid_message_1_is_refused(end: End, title: str) -> None:
    end.ask(traced("responder"))
    with pytest.raises(BoardError) as why:
        take(end, 1, INVALID[title]["hex"])
    assert why.value.kind == OURS


def test_an_invalid_message_2_is_refused(end: End) -> None:
    (title,) = invalid("message_2")
    end.ask(traced("initiator"))
    take(end, 0)
    with pytest.raises(BoardError) as why:
        take(end, 2, INVALID[title]["hex"])
    assert why.value.kind == OURS


@pytest.mark.parametrize("title", invalid("PLAINTEXT_2"))
def test_an_invalid_plaintext_2_is_refused(end: End, title: str) -> None:
    """The plaintext goes into message_2 by the keystream of the trace; test_edhoc.py does it with a right MAC too."""
    known = bytes.fromhex(TRACE["message_2"])[2:]
    plaintext = bytes.fromhex(INVALID[title]["hex"])
    end.ask(traced("initiator"))
    take(end, 0)
    message = known[:32] + encrypted(plaintext)
    with pytest.raises(BoardError) as why:
        take(end, 2, bytes((0x58, len(message))).hex() + message.hex())
    assert why.value.kind == OURS


def encrypted(plaintext: bytes) -> bytes:
    """CIPHERTEXT_2 of another plaintext in the trace. The keystream depends on its length, so it is derived again."""
    keys = KeySchedule(PRIMITIVES, SUITES[2], bytes.fromhex(TRACE["message_1"]))
    initiator, responder = TRACE["initiator"], TRACE["responder"]
    shared = run(agree(bytes.fromhex(responder["ephemeral_private"]), bytes.fromhex(initiator["ephemeral_public"])))
    keys.begin(bytes.fromhex(responder["ephemeral_public"])[:32], shared)
    return keys.cipher_2(plaintext)
