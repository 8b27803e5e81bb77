"""Which boards' signatures count: from an authority's public side, or from rosters and a trust file alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from laterne_protocol import cose, credential, roster, trust
from laterne_protocol.errors import SignatureError, WireError
from laterne_provisioning import primitives
from laterne_provisioning.authority import Authority, read_trust
from laterne_provisioning.errors import UsageError
from laterne_provisioning.registry import REVOKED
from laterne_provisioning.verifier import KnownBoard


def of_authority(authority: Authority) -> list[KnownBoard]:
    """All boards of the registry that are not revoked, each credential checked. Raises UsageError."""
    with authority.registry() as registry:
        boards = [board for board in registry.boards() if board.state != REVOKED]
    known = []
    for board in boards:
        try:
            signed = cose.parse(board.credential, credential.MAX_CREDENTIAL_BYTES)
            claims = credential.credential_of(
                _payload(signed, cose.CREDENTIAL, authority.trusted.keys[trust.ENROLMENT])
            )
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
        known.append(KnownBoard(board.id, board.sign_key, credential.digest(board.credential)))
    return known


def of_rosters(paths: Sequence[Path], trust_path: Path) -> list[KnownBoard]:
    """The boards of these rosters, believed as far as the trust file says. Raises UsageError."""
    _, trusted = read_trust(trust_path)
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
            board = KnownBoard(entry.board, entry.sign_key, entry.credential_digest)
            if known.setdefault(entry.board, board) != board:
                raise UsageError(f"The rosters give {entry.board} two keys: leave out the older one.")
    return list(known.values())


def _payload(signed: cose.Sign1, domain: str, keys: Sequence[bytes]) -> bytes:
    for key in keys:
        try:
            return cose.verify(signed, domain, partial(primitives.is_signature, key))
        except SignatureError:
            continue  # the next key of this role may be the one
    raise SignatureError(f"no {domain.split('/')[1]} key of the trust file has signed it")
