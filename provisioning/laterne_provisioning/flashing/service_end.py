"""A board in service becomes a blank one, by USB: the operator's order goes to it, and its receipt comes back.

An enrolled board gives no REPL, and takes by USB nothing but this (protocol/README.md, 12.7). In this order:

    asked       the board judges the order as if it came over its line; what waits is still delivered, if it can be
    receipt     on our disk before the board is told so: then it erases itself, and nobody could ask it again
    told        it erases, starts again, and is a new board with a REPL

What is on the port is a stranger: the receipt counts when the operator has checked its signature. Stopped anywhere,
the same again goes on; a board that is not enrolled is left as it is.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from laterne_protocol import board_messages as messages
from laterne_protocol import cose, frame, order, receipt, trust
from laterne_protocol.errors import WireError
from laterne_provisioning import output, primitives
from laterne_provisioning.doctor.console import Console, PortGone, State, state_of
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.out_file import require_writable, write

BY_USB = 30  # as in firmware/laterne_firmware/sessions.py
STATE_WITHIN_S = 20.0  # it tells its state every 5 s, and none while it signs or shakes hands
# A board takes four questions at once and one more each half minute. It may wait 15 s for its gateway (12.4), and as
# long again after each report that this one acknowledges.
AGAIN_S = 15.0
BEGUN_WITHIN_S = 75.0  # then its console says that the order begins; a release that knows none by USB never does
ANSWER_WITHIN_S = 300.0
BLANK_WITHIN_S = 90.0  # two starts, some hundred files erased, and new keys are made
TOLD_WITHIN_S = 6.0  # its state comes each 5 s
LOOK_AGAIN_S = 0.2
# What a board says at its start when it is not enrolled (firmware: app).
NEW = "first start: making keys"
REFUSED = "an order was refused: "
WORKS = ("order ", "no memory")  # it has read the order


@dataclass(frozen=True)
class End:
    """An order that ends a board's service. board: for whom it is. signed: the order. kept: where its receipt goes."""

    board: str
    signed: bytes
    kept: Path


def read(path: Path, trusted: trust.Trust) -> End:
    """What `board decommission -o` has written. Raises UsageError: it is none, or not signed by an order key."""
    kept = path.with_suffix(".receipt")
    try:
        with path.open("rb") as file:
            signed = file.read(order.MAX_ORDER_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The order cannot be read: {why.strerror}: {path}") from why
    try:
        parsed = cose.parse(signed, order.MAX_ORDER_BYTES)
        told = order.order_of(parsed.payload)
    except WireError as why:
        raise UsageError(f"{path} is no order: {why}. `laterne board decommission ID -o FILE` writes one.") from why
    if told.action != order.DECOMMISSION:
        raise UsageError(f"{path} does not end a board's service: by USB a board takes no other order.")
    for key in trusted.keys["order"]:
        try:
            cose.verify(parsed, cose.ORDER, partial(primitives.is_signature, key))
        except WireError:
            continue
        require_writable(kept)
        return End(told.board, signed, kept)
    raise UsageError(f"{path} is not signed by an order key of {trusted.authority}: ask for a new one.")


def carry_out(port: str, end: End, say: Callable[[str], None]) -> str:
    """The board on this port is blank now, or was not in service; which it was, in words.

    Raises UsageError, OperatorError, PortGone.
    """
    with Console(port) as console:
        if console.gives_prompt():
            return _unsent(port, end)
        say(f"Listening to {port}")
        state = _state(console)
        if not state.is_enrolled:
            return _unsent(port, end)
        if state.board != end.board:
            raise OperatorError(
                f"The order is for {end.board}, and the board on {port} is {state.board}: nothing was sent."
            )
        say(f"Ordering {end.board} to end its service: it closes its report, {state.waiting} wait")
        answer = _asked(console, BY_USB, end.signed, say)
        found = _receipt(end, answer)
        write(end.kept, answer)
        if found.reason is not None:
            raise OperatorError(_refusal(end, found))
        say(f"Its receipt is in {end.kept}. Letting it erase itself")
        with suppress(PortGone):  # it is about to reset itself, and the answer may be lost with the port
            _asked(console, messages.RECEIPT_ARRIVED, receipt.digest(answer), say)
    _wait_until_new(port)
    return f"The service of {end.board} is over. {_receipts_way(end)}"


def _unsent(port: str, end: End) -> str:
    said = f"The board on {port} is not in service: the order was not sent."
    return f"{said} {end.board} was ended before? {_receipts_way(end)}" if end.kept.exists() else said


def _receipts_way(end: End) -> str:
    return (
        f"Its receipt is in {end.kept}, for the operator: laterne board decommission {end.board} --receipt "
        f"{end.kept.name} --authority DIR"
    )


def _state(console: Console) -> State:
    for said in console.lines(STATE_WITHIN_S):
        state = state_of(said)
        if state is not None:
            return state
    raise OperatorError(
        f"What is on {console.port} tells nothing for {STATE_WITHIN_S:.0f} s: is it a board that runs laterne, and is "
        "this its USB port? A board that is dead takes no order: revoke it and erase its flash (BOOTSEL, esptool)."
    )


def _asked(console: Console, step: int, body: bytes, say: Callable[[str], None]) -> bytes:
    began_s = time.monotonic()
    within_s = BEGUN_WITHIN_S
    sent = frame.Frame(frame.USB, frame.ANY_BOARD, frame.GATEWAY, bytes((step,)) + body).to_bytes()
    while time.monotonic() < began_s + within_s:
        console.send(frame.DELIMITER + sent)
        for said in console.lines(AGAIN_S):
            _, _, text = said.partition(": ")
            if text.startswith(REFUSED):
                raise OperatorError(f"The board refuses: {output.foreign(text[len(REFUSED) :])}. Ask for a new order.")
            if text.startswith(f"answer {step} "):
                try:
                    return bytes.fromhex(text.split(" ")[2])
                except ValueError:
                    break  # damaged on its way: the same question gets the same answer
            if text.startswith(WORKS):
                within_s = ANSWER_WITHIN_S
            if text and state_of(said) is None:
                say(output.foreign(said))
    raise OperatorError(
        f"The board on {console.port} has not answered within {within_s:.0f} s: give the same command again. If its "
        "release is older than orders by USB, only its line or BOOTSEL is left (provisioning/README.md)."
    )


def _receipt(end: End, answer: bytes) -> receipt.Receipt:
    try:
        found = receipt.receipt_of(cose.parse(answer, receipt.MAX_RECEIPT_BYTES).payload)
    except WireError as why:
        raise OperatorError(f"What {end.board} has answered is no receipt ({why}): repeat the command.") from why
    if (found.board, found.order) != (end.board, order.digest(end.signed)):
        raise OperatorError(f"What answers has a receipt of {found.board} for another order: repeat the command.")
    return found


def _refusal(end: End, found: receipt.Receipt) -> str:
    why = receipt.REASONS.get(found.reason or 0, f"reason {found.reason}")
    return (
        f"{end.board} refuses: {why}. It goes on as it was. {_receipts_way(end)}. Then there can be another order"
        + (", with --give-up-backlog." if found.reason == receipt.REPORTS_WAIT else ".")
    )


def _wait_until_new(port: str) -> None:
    """It starts twice; its port vanishes and comes back, or stays where it is an adapter's. Then it tells that it is
    new; or, its service switch closed, nothing runs on it and it has a prompt."""
    end_s = time.monotonic() + BLANK_WITHIN_S
    while time.monotonic() < end_s:
        try:
            with Console(port) as console:
                if console.gives_prompt():
                    return
                for said in console.lines(TOLD_WITHIN_S):
                    state = state_of(said)
                    if NEW in said or (state is not None and not state.is_enrolled):
                        return
        except (PortGone, UsageError):
            time.sleep(LOOK_AGAIN_S)
    raise OperatorError(f"The board on {port} is not blank yet: give the same command again.")
