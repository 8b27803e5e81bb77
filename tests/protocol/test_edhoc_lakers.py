"""The handshake with another implementation at the other end: lakers-python, in a process of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.firmware.micropython import BoardError, MicroPython
from tests.protocol.edhoc_ends import End, Here, Someone, initiator, responder, shake_hands, take, there
from tests.protocol.oracles import Oracle, OracleError

HANDSHAKES = 150  # in each role
HANDSHAKES_OF_THE_BOARD = 10
OURS, THEIRS = "01", "20"


@pytest.fixture(scope="module")
def lakers() -> Iterator[Oracle]:
    with Oracle("lakers_runner.py") as oracle:
        yield oracle


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with there() as end:
        yield end


class Lakers:
    """lakers as an end."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle

    def make(self, role: str, own: Someone, peer: Someone, ead: dict[str, list[Any]] | None = None) -> None:
        self._oracle.ask(
            {
                "do": "make",
                "role": role,
                "own": own.party.ccs.hex(),
                "peer": peer.party.ccs.hex(),
                "private": own.private.hex(),
                "connection": THEIRS,
                "ead": ead or {},
            }
        )

    def ask(self, question: dict[str, Any]) -> Any:
        answer = self._oracle.ask(question)
        return [answer] if question["do"] == "take" else answer  # as edhoc_runner.py answers


def check_same_keys(one: End, other: End) -> None:
    for label, context, size in ((0, "", 16), (1, "", 8), (7, "00010203", 29)):
        question = {"do": "export", "label": label, "context": context, "size": size}
        assert one.ask(question) == other.ask(question)


def check_handshakes(lakers: Oracle, ours: End, our_role: str, count: int) -> None:
    theirs = Lakers(lakers)
    for number in range(count):
        us, them = Someone(f"LE-{number}"), Someone(f"gateway-{number}")
        if our_role == "initiator":
            ours.ask(initiator(us, [them.party], OURS))
            theirs.make("responder", them, us)
            shake_hands(ours, theirs)
        else:
            ours.ask(responder(us, [them.party], OURS))
            theirs.make("initiator", them, us)
            shake_hands(theirs, ours)
        check_same_keys(ours, theirs)


@pytest.mark.parametrize("our_role", ["initiator", "responder"])
def test_we_shake_hands_with_lakers(lakers: Oracle, our_role: str) -> None:
    check_handshakes(lakers, Here(), our_role, HANDSHAKES)


@pytest.mark.parametrize("our_role", ["initiator", "responder"])
def test_the_board_shakes_hands_with_lakers(lakers: Oracle, board: MicroPython, our_role: str) -> None:
    check_handshakes(lakers, board, our_role, HANDSHAKES_OF_THE_BOARD)


EAD = {
    "padding": ([0, False, "000000"], True),
    "unknown": ([5, False, "616263"], True),
    "unknown and critical": ([5, True, "616263"], False),
}


@pytest.mark.parametrize(("item", "taken"), EAD.values(), ids=EAD)
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_authorization_data_of_lakers_is_left_unread_or_refused(
    lakers: Oracle, step: int, item: list[Any], taken: bool
) -> None:
    ours, theirs = Here(), Lakers(lakers)
    us, them = Someone("us"), Someone("them")
    if step in (2, 4):
        ours.ask(initiator(us, [them.party], OURS))
        theirs.make("responder", them, us, {str(step): item})
        pair: tuple[End, End] = (ours, theirs)
    else:
        ours.ask(responder(us, [them.party], OURS))
        theirs.make("initiator", them, us, {str(step): item})
        pair = (theirs, ours)
    if taken:
        shake_hands(*pair)
        check_same_keys(*pair)
        return
    with pytest.raises(BoardError, match="critical"):
        shake_hands(*pair)


def a_wrong_mac(message: str) -> str:
    return message[:-2] + f"{int(message[-2:], 16) ^ 1:02x}"


@pytest.mark.parametrize("spoil", [a_wrong_mac, lambda message: message[:-2]])
def test_lakers_refuses_what_we_refuse(lakers: Oracle, spoil: Callable[[str], str]) -> None:
    """The oracle's verdict on a spoilt message_3; a panic is a refusal too, and does not end the test."""
    ours, theirs = Here(), Lakers(lakers)
    us, them = Someone("us"), Someone("them")
    ours.ask(initiator(us, [them.party], OURS))
    theirs.make("responder", them, us)
    message_3 = take(ours, 2, take(theirs, 1, take(ours, 0)))
    with pytest.raises(OracleError):
        take(theirs, 3, spoil(message_3))
    theirs.make("responder", them, us)  # and it goes on answering
