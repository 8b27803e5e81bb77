"""Ends of a handshake for tests: one on this interpreter, one under MicroPython, both asked in the same way."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from tests.firmware.micropython import BoardError, MicroPython
from tests.protocol.edhoc_primitives import PRIMITIVES, new_key

from laterne_protocol.edhoc_keys import Party, party
from laterne_protocol.errors import WireError

RUNNER = Path(__file__).parent / "on_board" / "edhoc_runner.py"
VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "protocol/vectors/rfc/edhoc.json").read_text(encoding="utf-8")
)
GATEWAY_CONNECTION, BOARD_CONNECTION = "01", "02"


class End(Protocol):
    """An end that answers the questions of edhoc_runner.py; BoardError when it raised an error of ours."""

    def ask(self, question: dict[str, Any]) -> Any: ...


class Here:
    """An end on CPython, with `cryptography`."""

    def __init__(self) -> None:
        # The runner lies among scripts for the board and not in a package.
        spec = importlib.util.spec_from_file_location("edhoc_runner", RUNNER)
        assert spec is not None
        assert spec.loader is not None
        runner = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runner)
        self._end = runner.End(PRIMITIVES)

    def ask(self, question: dict[str, Any]) -> Any:
        try:
            return self._end.answer(json.loads(json.dumps(question)))
        except WireError as why:
            raise BoardError(type(why).__name__, str(why)) from why


def there() -> MicroPython:
    """An end under MicroPython, with the primitives of the firmware; a context manager."""
    # Twice a board's heap: here the code is compiled on it, and records travel as hex in JSON.
    return MicroPython(RUNNER, heap="256K")


class Someone:
    """Who can take part: an id with a new agreement key."""

    def __init__(self, name: str) -> None:
        self.private, public = new_key()
        self.party = party(name, public)

    def said(self) -> dict[str, str]:
        return {**said(self.party), "private": self.private.hex()}


def said(who: Party) -> dict[str, str]:
    return {"kid": who.kid.hex(), "ccs": who.ccs.hex(), "public": who.public_key.hex()}


def initiator(own: Someone, peers: Iterable[Party], connection: str = GATEWAY_CONNECTION) -> dict[str, Any]:
    """The question that makes a gateway's end."""
    return {
        "do": "make",
        "role": "initiator",
        "own": own.said(),
        "peers": [said(peer) for peer in peers],
        "connection": connection,
    }


def responder(own: Someone, peers: Iterable[Party], connection: str = BOARD_CONNECTION) -> dict[str, Any]:
    """The question that makes a board's end."""
    return {**initiator(own, peers, connection), "role": "responder"}


def traced(role: str) -> dict[str, Any]:
    """The question that makes an end of RFC 9529's trace."""
    trace = VECTORS["trace"]
    own, peer = trace[role], trace["responder" if role == "initiator" else "initiator"]
    return {
        "do": "make",
        "role": role,
        "own": {"kid": own["kid"], "ccs": own["ccs"], "public": own["public"], "private": own["private"]},
        "peers": [{"kid": peer["kid"], "ccs": peer["ccs"], "public": peer["public"]}],
        "connection": own["connection"],
        "ephemeral": [own["ephemeral_private"], own["ephemeral_public"]],
        "suites": trace["suites_i"] if role == "initiator" else [2],
    }


def take(end: End, step: int, message: str = "") -> str:
    """What the end sends after this step."""
    answer: str = end.ask({"do": "take", "step": step, "message": message})[0]
    return answer


def shake_hands(gateway: End, board: End) -> list[str]:
    """The four messages of a handshake between two ends that have been made."""
    messages = [take(gateway, 0)]
    messages.append(take(board, 1, messages[0]))
    messages.append(take(gateway, 2, messages[1]))
    messages.append(take(board, 3, messages[2]))
    assert take(gateway, 4, messages[3]) == ""
    return messages
