"""What the authority orders boards to do, and what it makes of their receipts: new keys, and the end of a board.

Each step is in the registry before it has an effect outside, so the same command goes on wherever it was stopped:

    under way    what is at the broker    what comes next
    nothing      nothing                  the order is signed and stored: asked
    asked        ROTATE                   the receipt names the next keys; credential and TAKE are stored: given
    asked        DECOMMISSION             the receipt ends the board: told
    given        TAKE                     the receipt says where the former keys end; the keys change: told
    told         the last order           the board knows that its receipt has arrived; all is taken away: nothing

Before "told" the registry holds the former keys, and so do rosters made meanwhile: the gateway serves the board by
these, and its reports by the next ones wait on it. Nothing is believed of a receipt but what the board's signature
covers; broker and gateway can hold one back, not make one.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from laterne_protocol import cose, credential, order, receipt
from laterne_protocol.errors import ObjectError, WireError
from laterne_provisioning import audit, keys, primitives
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.decisions import check_reason
from laterne_provisioning.enrol import CREDENTIAL_NUMBER_BYTES, LAST_EPOCH, fingerprint
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.order_book import ASKED, DECOMMISSION, GIVEN, ROTATE, TOLD, Done, OrderBook, UnderWay
from laterne_provisioning.registry import DECOMMISSIONED, ENDED, ENROLLED, Board, Registry


@dataclass(frozen=True)
class Desk:
    """Where orders are written. order_key, enrolment_key: opened when they are needed. now: gives Unix seconds."""

    authority: Authority
    registry: Registry
    order_key: keys.SigningKey
    enrolment_key: keys.SigningKey
    now: Callable[[], int]

    @property
    def book(self) -> OrderBook:
        return OrderBook(self.registry)


class BoardRefuses(OperatorError):
    """The board has refused the order, and says why. Nothing is under way any more."""


def begin_rotation(desk: Desk, board_id: str) -> UnderWay:
    """The rotation of this board's keys: the one under way, or a new one. Raises OperatorError, UsageError."""
    desk.order_key.open()
    desk.enrolment_key.open()  # it signs the next credential: better to know now that it is there
    with desk.registry.transaction():
        board, there = _known(desk, board_id), desk.book.under_way(board_id)
        if there is not None and there.act != ROTATE:
            raise OperatorError(f"{board_id} is being decommissioned: `laterne board decommission {board_id}`.")
        if there is not None and there.step == TOLD:
            return there
        _require_enrolled(board)
        if there is not None:
            return there
        return _ask(desk, board, ROTATE, order.ROTATE, None, None)


def begin_decommission(desk: Desk, board_id: str, reason: str, give_up: bool) -> UnderWay:
    """The end of this board: what is under way, or a new order. give_up: reports that wait on it may be lost.

    What is under way keeps its own reason and its own give_up: the board may have done it already.
    Raises OperatorError, UsageError.
    """
    check_reason(reason)
    desk.order_key.open()
    with desk.registry.transaction():
        board, there = _known(desk, board_id), desk.book.under_way(board_id)
        if there is not None and there.act == ROTATE and there.step != ASKED:
            raise OperatorError(f"{board_id} is getting new keys: finish `laterne board rotate {board_id}` first.")
        if there is not None and there.step == TOLD:
            return there
        _require_enrolled(board)
        if there is not None and there.act == DECOMMISSION:
            return there
        return _ask(desk, board, DECOMMISSION, order.DECOMMISSION, give_up, reason)


def is_receipt(board: Board, ordered: bytes, body: bytes) -> bool:
    """Whether these bytes are the board's receipt for this order, signed by the key that it had then."""
    try:
        _receipt(board, ordered, body)
    except WireError:
        return False
    return True


def take_receipt(desk: Desk, there: UnderWay, body: bytes) -> UnderWay:
    """What is under way after this receipt, for which is_receipt() is true. Raises BoardRefuses, OperatorError."""
    with desk.registry.transaction():
        board = _known(desk, there.board)
        _require_enrolled(board)  # it may have been revoked while we waited
        try:
            said = _receipt(board, there.ordered, body)
        except WireError as why:
            raise OperatorError(f"{there.board} is not as it was when the order went out: {why}. Repeat.") from why
        refused = _refused(desk, board, there, said)
        if refused is None:
            return _done(desk, board, there, said, body)
        desk.authority.log.append("order refused", there.board, {"act": there.act, "reason": said.reason or 0})
        desk.book.end(there.board)
    raise BoardRefuses(refused)


def finish(desk: Desk, there: UnderWay) -> None:
    """Nothing is left to be done outside."""
    with desk.registry.transaction():
        desk.book.end(there.board)


def _ask(
    desk: Desk, board: Board, act: str, action: int, argument: bool | bytes | None, reason: str | None
) -> UnderWay:
    counter, ordered = _signed(desk, board, action, argument)
    there = UnderWay(board.id, act, ASKED, counter, ordered, None, reason, desk.now())
    desk.book.put(there)
    return there


def _signed(desk: Desk, board: Board, action: int, argument: bool | bytes | None) -> tuple[int, bytes]:
    counter = desk.book.next_counter(board.id, desk.now())
    kid = credential.kid(board.sign_key)
    ordered = sign_object(
        desk.order_key, cose.ORDER, order.Order(board.id, kid, counter, action, argument).to_payload()
    )
    if len(ordered) > order.MAX_ORDER_BYTES:
        raise OperatorError(
            f"The order has {len(ordered)} bytes, a board takes {order.MAX_ORDER_BYTES}: a shorter name?"
        )
    names = {order.ROTATE: "rotate", order.TAKE: "take", order.DECOMMISSION: "decommission"}
    desk.authority.log.append(
        "order",
        board.id,
        {"action": names[action], "counter": counter, "for": kid.hex(), "digest": order.digest(ordered).hex()},
    )
    return counter, ordered


def _receipt(board: Board, ordered: bytes, body: bytes) -> receipt.Receipt:
    signed = cose.parse(body, receipt.MAX_RECEIPT_BYTES)
    found = receipt.receipt_of(cose.verify(signed, cose.RECEIPT, partial(primitives.is_signature, board.sign_key)))
    if (found.board, found.order) != (board.id, order.digest(ordered)):
        raise ObjectError("it is for another order")
    return found


def _refused(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt) -> str | None:
    """Why there is nothing to go on with, and what to do; None: go on."""
    if said.outcome == receipt.DONE:
        rotated = there.act == ROTATE and there.step == ASKED
        problem = _unproven(desk, board, there, said) if rotated else None
        if problem is None:
            return None
        return f"{board.id} has not proven its next keys: {problem}. It goes on with the present ones."
    why = receipt.REASONS.get(said.reason or 0, f"reason {said.reason}")
    if said.reason == receipt.REPORTS_WAIT:
        return f"{board.id} refuses: {why}. Repeat when its gateway has them, or let them go: --give-up-backlog."
    return f"{board.id} refuses: {why}. Nothing has changed; repeat the command to begin anew."


def _done(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt, body: bytes) -> UnderWay:
    if there.step == ASKED and there.act == ROTATE:
        after = _give(desk, board, there, said)
    elif there.step == ASKED:
        after = _decommissioned(desk, board, there, said, body)
    elif there.step == GIVEN:
        after = _changed(desk, board, there, said)
    else:
        return there  # it was told before
    desk.book.keep(Done(board.id, there.counter, there.act, there.ordered, body, said.sequence, desk.now()))
    desk.book.put(after)
    return after


def _give(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt) -> UnderWay:
    _, proof = _next_keys(said)
    claims = credential.Credential(
        desk.authority.name,
        board.id,
        desk.now(),
        secrets.token_bytes(CREDENTIAL_NUMBER_BYTES),
        proof.sign_key,
        proof.agree_key,
        proof.tier,
        proof.model,
        (desk.authority.trusted.version, LAST_EPOCH),
    )
    issued = sign_object(desk.enrolment_key, cose.CREDENTIAL, claims.to_payload())
    counter, ordered = _signed(desk, board, order.TAKE, issued)
    return replace(there, step=GIVEN, counter=counter, ordered=ordered, credential=issued)


def _next_keys(said: receipt.Receipt) -> tuple[cose.Sign1, credential.Possession]:
    if not isinstance(said.result, bytes):
        raise ObjectError("its receipt names no keys")
    signed = cose.parse(said.result, credential.MAX_POSSESSION_BYTES)
    return signed, credential.possession_of(signed.payload)


def _unproven(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt) -> str | None:
    """What is wrong with the next keys: the present key has named them, they must have proven themselves, too."""
    try:
        signed, proof = _next_keys(said)
        cose.verify(signed, cose.POSSESSION, partial(primitives.is_signature, proof.sign_key))
    except WireError as why:
        return str(why)
    if proof.nonce != order.digest(there.ordered):
        return "they were proven for another order"
    if not primitives.is_point(proof.agree_key):
        return "the agreement key is none"
    if proof.hardware != board.hardware:
        return "they are of other hardware"
    for key in (proof.sign_key, proof.agree_key):
        if desk.registry.board_with_key(key) is not None:
            return f"key {fingerprint(credential.kid(key))} is not new: it stands in the registry"
    return None


def _changed(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt) -> UnderWay:
    assert there.credential is not None
    claims = credential.credential_of(cose.parse(there.credential, credential.MAX_CREDENTIAL_BYTES).payload)
    new = replace(
        board,
        sign_key=claims.sign_key,
        agree_key=claims.agree_key,
        credential=there.credential,
        credential_digest=credential.digest(there.credential),
    )
    details: audit.Details = {
        "kid": credential.kid(new.sign_key).hex(),
        "former": credential.kid(board.sign_key).hex(),
        "last": said.sequence,
        "credential": new.credential_digest.hex(),
        "state": board.state,
    }
    desk.authority.log.append("rotate", board.id, details)
    desk.registry.change_keys(new, said.sequence, desk.now())
    return replace(there, step=TOLD)


def _decommissioned(desk: Desk, board: Board, there: UnderWay, said: receipt.Receipt, body: bytes) -> UnderWay:
    assert there.reason is not None
    details: audit.Details = {
        "kid": credential.kid(board.sign_key).hex(),
        "last": said.sequence,
        "reason": there.reason,
        "receipt": receipt.digest(body).hex(),
        "state": DECOMMISSIONED,
    }
    desk.authority.log.append("decommission", board.id, details)
    desk.registry.end(board.id, DECOMMISSIONED, desk.now(), there.reason)
    return replace(there, step=TOLD)


def _known(desk: Desk, board_id: str) -> Board:
    board = desk.registry.board(board_id)
    if board is None:
        raise UsageError(f"{board_id} is not in the registry: see `laterne board list`.")
    return board


def _require_enrolled(board: Board) -> None:
    if board.state in ENDED:
        raise OperatorError(f"{board.id} is {board.state} ({board.reason}): it takes no orders any more.")
    if board.state != ENROLLED:
        raise OperatorError(f"{board.id} is {board.state}: only a board that is enrolled takes orders.")
