"""Which boards' signatures count: from an authority's public side, or from rosters and a trust file alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from laterne_protocol import cose, credential, roster, trust
from laterne_protocol.errors import SignatureError, WireError
from laterne_provisioning import grants, output, primitives
from laterne_provisioning.authority import Authority, read_trust
from laterne_provisioning.errors import UsageError
from laterne_provisioning.registry import DECOMMISSIONED, Board
from laterne_provisioning.verifier import KnownBoard


def of_authority(authority: Authority, received_by: int | None = None) -> list[KnownBoard]:
    """All boards of the registry, each credential checked. Raises UsageError.

    received_by: Unix seconds at which all reports in question had been received, as far as the asker knows; boards
    that ended after that are believed. Without it nothing is believed of a board that has ended: a board's clock and
    its sequences are in the hands of whoever has its key.
    """
    with authority.registry() as registry:
        boards, issued = registry.boards(), grants.Grants(registry).bodies()
    known = []
    for board in boards:
        try:
            claims = grants.believed(board.credential, authority.trusted, issued)
        except WireError as why:
            raise UsageError(
                f"The registry holds a credential of {board.id} that cannot be believed: {why}. "
                "Bring the registry back from a backup."
            ) from why
        if (claims.board, claims.sign_key) != (board.id, board.sign_key):
            raise UsageError(
                f"The credential of {board.id} in the registry is that of another board or key. "
                "Bring the registry back from a backup."
            )
        # Former keys are taken from the registry as they stand there: their enrolment key may be gone by now.
        formers = tuple((one.sign_key, one.last) for one in board.formers)
        first = next((one.credential for one in board.formers if one.last), board.credential)  # its chain began with it
        refused = _why_not(board, received_by)
        digest = credential.digest(first)
        known.append(KnownBoard(board.id, board.sign_key, digest, refused, formers, board.last))
    return known


def _why_not(board: Board, received_by: int | None) -> str | None:
    if board.enrolled is None:
        return f"{board.id} is {board.state}: it was never accepted"
    if board.state == DECOMMISSIONED:
        return None  # up to its last report, which it has named itself; its key is erased
    if board.ended is None or (received_by is not None and received_by < board.ended):
        return None
    return f"{board.id} was {board.state} at {output.moment(board.ended)} ({board.reason})"


def of_rosters(paths: Sequence[Path], trust_path: Path) -> tuple[list[KnownBoard], dict[bytes, str]]:
    """The boards of these rosters, believed as far as the trust file says, and the kids they deny, with the reason.

    What one roster denies, none of the others lets in. Raises UsageError.
    """
    _, trusted = read_trust(trust_path)
    denied: dict[bytes, str] = {}
    known: dict[str, KnownBoard] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(roster.MAX_ROSTER_BYTES + 1)
            signed = cose.parse(data, roster.MAX_ROSTER_BYTES)
            listed = roster.roster_of(_payload(signed, cose.ROSTER, trusted.keys[trust.ROSTER]))
        except OSError as why:
            raise UsageError(f"The roster cannot be read: {why.strerror}: {path}") from why
        except WireError as why:
            raise UsageError(f"{path} is no roster that can be believed: {why}. Export it again.") from why
        for entry in listed.entries:
            formers = tuple((one.sign_key, one.last) for one in entry.former)
            board = KnownBoard(entry.board, entry.sign_key, entry.credential_digest, formers=formers)
            if known.setdefault(entry.board, board) != board:
                raise UsageError(f"The rosters give {entry.board} two keys: leave out the older one.")
        denied |= {kid: f"{board} is on the roster's deny list ({reason})" for board, kid, reason in listed.revoked}
    kept = [board for board in known.values() if credential.kid(board.sign_key) not in denied]
    return kept, denied


def _payload(signed: cose.Sign1, domain: str, keys: Sequence[bytes]) -> bytes:
    for key in keys:
        try:
            return cose.verify(signed, domain, partial(primitives.is_signature, key))
        except SignatureError:
            continue  # the next key of this role may be the one
    raise SignatureError(f"no {domain.split('/')[1]} key of the trust file has signed it")
