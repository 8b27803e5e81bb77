"""What people decide about boards after enrolment: accepted or rejected, revoked, replaced.

    pending   --accept-->   enrolled      a second person has compared the words of its key
    pending   --reject-->   rejected
    pending   --revoke-->   revoked
    enrolled  --revoke-->   revoked
    enrolled  --replace-->  replaced      another board takes its post
    revoked   --replace-->  revoked       its post goes to another board, it stays what it is

No way leads back: whoever is revoked, rejected or replaced comes again only with new keys under a new id. Each of these
takes effect at a gateway with the next roster.
"""

from laterne_protocol import credential, fields
from laterne_protocol import roster as wire
from laterne_protocol.errors import ObjectError
from laterne_provisioning import audit
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import (
    ENDED,
    ENROLLED,
    PENDING,
    REJECTED,
    REPLACED,
    REVOKED,
    Board,
    Place,
    Registry,
)


def waiting(registry: Registry) -> list[Board]:
    """The boards that a second person has to decide about, by id."""
    return [board for board in registry.boards() if board.state == PENDING and board.delivered is not None]


def accept(authority: Authority, registry: Registry, board_id: str, now: int) -> bool:
    """The board is enrolled from now on, Unix seconds. False: it was already. Raises OperatorError, UsageError."""
    with registry.transaction():
        board = _known(registry, board_id)
        if board.state == ENROLLED:
            return False
        if board.state in ENDED:
            raise OperatorError(f"{board_id} is {board.state} ({board.reason}): it cannot be accepted any more.")
        if board.delivered is None:
            raise OperatorError(
                f"{board_id} has not confirmed its credential: repeat `laterne board enrol` with it first."
            )
        authority.log.append("accept", board_id, _details(board, ENROLLED))
        registry.accept(board_id, now)
    return True


def reject(authority: Authority, registry: Registry, board_id: str, reason: str, now: int) -> bool:
    """The board will not be served. False: it was rejected already. Raises OperatorError, UsageError."""
    check_reason(reason)
    with registry.transaction():
        board = _known(registry, board_id)
        if board.state == REJECTED:
            return False
        if board.state != PENDING:
            raise OperatorError(f"{board_id} is {board.state}, not pending: `laterne board revoke` ends a board.")
        authority.log.append("reject", board_id, _details(board, REJECTED) | {"reason": reason})
        registry.end(board_id, REJECTED, now, reason)
    return True


def revoke(authority: Authority, registry: Registry, board_id: str, reason: str, now: int) -> bool:
    """Nothing that the board signs counts any more. False: it was revoked already. Raises OperatorError, UsageError."""
    check_reason(reason)
    with registry.transaction():
        board = _known(registry, board_id)
        if board.state == REVOKED:
            return False
        if board.state in ENDED:
            raise OperatorError(f"{board_id} is {board.state} ({board.reason}): gateways refuse it already.")
        authority.log.append("revoke", board_id, _details(board, REVOKED) | {"reason": reason})
        registry.end(board_id, REVOKED, now, reason)
    return True


def replace(authority: Authority, registry: Registry, old_id: str, new_id: str, now: int) -> Place | None:
    """The board `new_id` takes the post of `old_id`, which ends. The post. Raises OperatorError, UsageError.

    Given again, it changes nothing.
    """
    if old_id == new_id:
        raise UsageError("A board cannot replace itself: name the old board and then the new one.")
    with registry.transaction():
        old, new = _known(registry, old_id), _known(registry, new_id)
        if old.replaced_by == new_id:
            return old.hangings[-1].place if old.hangings else None
        if old.replaced_by is not None:
            raise OperatorError(f"{old_id} is replaced by {old.replaced_by} already: replace that one.")
        if old.state not in (ENROLLED, REVOKED):
            raise OperatorError(f"{old_id} is {old.state}: only a board that was enrolled can be replaced.")
        if new.state != ENROLLED:
            raise OperatorError(f"{new_id} is {new.state}: enrol it first.")
        place = old.hangings[-1].place if old.hangings else None
        if new.place is not None and (place is None or new.place.post != place.post):
            raise OperatorError(
                f"{new_id} hangs at {new.place.post}: take one without a post, or replace that board first."
            )
        post: audit.Details = {"post": None if place is None else place.post}
        if old.state == ENROLLED:
            reason = f"replaced by {new_id}"
            authority.log.append("replace", old_id, {**_details(old, REPLACED), **post, "by": new_id})
            registry.end(old_id, REPLACED, now, reason)
        else:
            authority.log.append("replace", old_id, {**_details(old, REVOKED), **post, "by": new_id})
        registry.succeed(old_id, new_id)
        if place is not None:
            authority.log.append("hang", new_id, post)
            registry.hang(new_id, place, now)
    return place


def check_reason(reason: str) -> None:
    """Raises UsageError: a reason that could not stand in a roster."""
    try:
        fields.text(reason, "reason", wire.MAX_REASON_BYTES)
    except ObjectError as why:
        raise UsageError(f"The {why}: it stands in the rosters, so give a short one.") from why


def _known(registry: Registry, board_id: str) -> Board:
    board = registry.board(board_id)
    if board is None:
        raise UsageError(f"{board_id} is not in the registry: see `laterne board list`.")
    return board


def _details(board: Board, state: str) -> dict[str, audit.Json]:
    return {"kid": credential.kid(board.sign_key).hex(), "state": state}
