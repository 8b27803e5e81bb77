"""Rosters: which boards a gateway may serve, signed by the roster key (protocol/README.md, 7).

A gateway takes only rosters with its own name and a higher version, so every export is a new version.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from laterne_protocol import cose, credential, fields
from laterne_protocol import roster as wire
from laterne_protocol.errors import CborError, ObjectError, WireError
from laterne_provisioning import keys
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import ENDED, ENROLLED, PENDING, REVOKED, Board, Registry

ENVELOPE_BYTES = 128  # what the signature adds to the payload: 96 bytes and some


@dataclass(frozen=True)
class SignedRoster:
    """A roster that has been issued. body: the COSE_Sign1. boards: the ids of its boards."""

    version: int
    boards: tuple[str, ...]
    revoked: tuple[str, ...]
    body: bytes


def issue(
    authority: Authority, registry: Registry, gateway: str, wanted: Sequence[str], key: keys.SigningKey, now: int
) -> SignedRoster:
    """Sign the next roster of a gateway and write it into the registry.

    wanted: ids of boards, or empty for all that are enrolled. key: the roster key. now: Unix seconds.
    Raises UsageError, OperatorError.
    """
    try:
        fields.board_id(gateway, "gateway id")
    except ObjectError as why:
        raise UsageError(f"{gateway!r} cannot be a gateway: {why}.") from why
    key.open()
    with registry.transaction():
        boards = registry.boards()
        served = _served(boards, wanted)
        revoked = [board for board in boards if board.state in ENDED]
        if len(served) > wire.MAX_BOARDS:
            raise UsageError(
                f"{len(served)} boards are enrolled and a roster holds {wire.MAX_BOARDS}: name this gateway's "
                "boards with --board."
            )
        if len(revoked) > wire.MAX_REVOKED:
            # Who is not on the roster is not served either; naming the newest says why in the gateway's log.
            revoked = sorted(revoked, key=lambda board: (board.state == REVOKED, board.ended or 0))[-wire.MAX_REVOKED :]
        # Also its former keys, while there is room: an older roster of another gateway may name the board by one.
        denied = [(board, board.sign_key) for board in revoked]
        denied += [(board, one.sign_key) for board in reversed(revoked) for one in reversed(board.formers)]
        former = registry.newest_roster(gateway)
        version = max(1 if former is None else former.version + 1, registry.roster_floor())
        payload = _payload(
            wire.Roster(
                gateway,
                version,
                now,
                [_entry(board) for board in served],
                [
                    (board.id, credential.kid(key), board.reason or board.state)
                    for board, key in denied[: wire.MAX_REVOKED]
                ],
                None if former is None else former.digest,
            )
        )
        body = sign_object(key, cose.ROSTER, payload)
        authority.log.append(
            "roster export",
            gateway,
            {
                "version": version,
                "digest": wire.digest(payload).hex(),
                "boards": len(served),
                "revoked": [board.id for board in revoked],
            },
        )
        # The row comes before the file: no version is ever given to two rosters.
        registry.add_roster(gateway, version, now, wire.digest(payload), body)
    authority.sign_log(key)
    return SignedRoster(version, tuple(b.id for b in served), tuple(b.id for b in revoked), body)


def _served(boards: list[Board], wanted: Sequence[str]) -> list[Board]:
    if not wanted:
        return [board for board in boards if board.state == ENROLLED]
    known = {board.id: board for board in boards}
    served = []
    for board_id in sorted(set(wanted)):
        if board_id not in known:
            raise UsageError(f"{board_id} is not in the registry: see `laterne board list`.")
        board = known[board_id]
        if board.state == PENDING and board.delivered is not None:
            raise OperatorError(f"{board_id} waits for a second person: `laterne board accept {board_id}`.")
        if board.state == PENDING:
            raise OperatorError(f"{board_id} has not confirmed its credential: repeat `laterne board enrol` with it.")
        if board.state in ENDED:
            raise OperatorError(f"{board_id} is {board.state}: leave it out.")
        served.append(board)
    return served


def newest_boards(registry: Registry, gateway: str) -> list[str] | None:
    """The boards that the newest roster of a gateway lets it serve; None: it has none."""
    return dict(newest(registry)).get(gateway)


def gateways_of(registry: Registry, board_id: str) -> list[str]:
    """The gateways whose newest roster has this board."""
    return [gateway for gateway, boards in newest(registry) if board_id in boards]


def newest(registry: Registry) -> list[tuple[str, list[str]]]:
    """Each gateway and the boards that its newest roster lets it serve."""
    rows = registry.execute("select gateway, max(version), body from roster group by gateway order by gateway")
    found = []
    for gateway, _, body in rows:
        listed = wire.roster_of(cose.parse(body, wire.MAX_ROSTER_BYTES).payload)  # ours: signed and stored by issue()
        found.append((gateway, [entry.board for entry in listed.entries]))
    return found


def keys_in_newest(registry: Registry, gateway: str) -> dict[str, bytes]:
    """The signing key of each board that the newest roster of a gateway lets it serve; {}: it has none."""
    rows = registry.execute("select body from roster where gateway = ? order by version desc limit 1", gateway)
    if not rows:
        return {}
    listed = wire.roster_of(cose.parse(rows[0][0], wire.MAX_ROSTER_BYTES).payload)  # ours: stored by issue()
    return {entry.board: entry.sign_key for entry in listed.entries}


def _payload(wanted: wire.Roster) -> bytes:
    """What is to be signed. Raises OperatorError: no gateway would take it."""
    while True:
        payload = wanted.to_payload()
        rotated = [entry for entry in wanted.entries if entry.former]
        try:
            if len(payload) > wire.MAX_ROSTER_BYTES - ENVELOPE_BYTES:
                raise CborError(f"it has {len(payload)} bytes")
            wire.roster_of(payload)  # what a gateway would refuse is not signed
        except WireError as why:
            if not rotated or not isinstance(why, CborError):
                raise OperatorError(f"No gateway would take this roster: {why}. Leave one of the boards out.") from why
            # A roster of many boards has no room for all former keys (protocol/README.md, 7), which are needed only
            # while reports that they signed wait on boards.
            rotated[0].former = rotated[0].former[1:]
            continue
        return payload


def _entry(board: Board) -> wire.Entry:
    place = board.place
    post = None if place is None else wire.Post(place.post, place.latitude, place.longitude)
    former = [wire.Former(one.sign_key, one.credential_digest, one.last) for one in board.formers]
    return wire.Entry(
        board.id,
        board.sign_key,
        board.agree_key,
        board.tier,
        board.chain_digest,
        post,
        tuple(former[-wire.MAX_FORMER_KEYS :]),
    )
