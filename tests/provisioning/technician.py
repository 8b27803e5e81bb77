"""A technician in memory: his key, a grant, and a journal written by hand, so that it can be wrong in any way.

Nothing here goes through field.py: what merging.py judges was made by somebody else.
"""

import secrets
from dataclasses import dataclass, field

from tests.provisioning.fake_board import Key

from laterne_protocol import cbor, cose, credential
from laterne_protocol.grant import MAX_GRANT_BYTES, Grant, digest, grant_of
from laterne_provisioning import grant_journal, grants, keys
from laterne_provisioning.authority import Authority
from laterne_provisioning.grant_journal import Confirm, Enrol, Entry, Hang
from laterne_provisioning.registry import Place

NOW = 1_790_000_000  # Unix seconds: when the grants of these tests begin
DAY = 86_400


@dataclass
class BoardKeys:
    """The keys of a board."""

    sign: Key = field(default_factory=Key)
    agree: Key = field(default_factory=Key)


def granted(
    authority: Authority,
    key: Key,
    *,
    ids: tuple[str, ...] = ("LE-01*",),
    posts: tuple[str, ...] = (),
    most: int = 3,
    versions: tuple[int, int] | None = None,
    begin: int = NOW,
) -> bytes:
    """The grant file of a week."""
    wanted = Grant(
        grants.new_number(), authority.name, "M. Lindqvist", key.public, "the harbour", [*ids], [*posts], most,
        (begin, begin + 7 * DAY), versions or grants.versions_of(authority.trusted),
    )  # fmt: skip
    with authority.registry() as registry:
        return grants.issue(authority, registry, authority.signing_key("enrolment", keys.Secrets()), wanted, NOW)


class Technician:
    """Writes a journal. file: the grant file. lines: of the journal, each a COSE_Sign1. clock: Unix seconds."""

    def __init__(self, file: bytes, key: Key) -> None:
        parts = cbor.decode(file)
        assert isinstance(parts, list)
        self.file = file
        self.body: bytes = parts[0]
        self.given = grant_of(cose.parse(self.body, MAX_GRANT_BYTES).payload)
        self.key = key
        self.lines: list[bytes] = []
        self.clock = NOW + 60

    @property
    def journal(self) -> bytes:
        return b"".join(map(grant_journal.line_of, self.lines))

    def write(self, said: Enrol | Confirm | Hang, by: Key | None = None) -> None:
        """The next entry."""
        former = grant_journal.digest(self.lines[-1]) if self.lines else digest(self.body)
        entry = Entry(len(self.lines) + 1, former, self.clock, said)
        self.lines.append((by or self.key).sign_object(grant_journal.DOMAIN, entry.to_payload()))
        self.clock += 60

    def enrol(
        self,
        board_id: str,
        board: BoardKeys | None = None,
        *,
        place: Place | None = None,
        confirmed: bool = True,
        number: bytes | None = None,
        issued: int | None = None,
        authority: str | None = None,
        signed_by: Key | None = None,
        proven_by: BoardKeys | None = None,
        proof_signed_by: Key | None = None,
        nonce: bytes | None = None,
        epoch: int = 1,
    ) -> bytes:
        """What field.py would write for a good board, and whatever differs from that. The credential."""
        board = board or BoardKeys()
        proven = proven_by or board
        salt = secrets.token_bytes(16)
        over = grant_journal.nonce(digest(self.body), salt) if nonce is None else nonce
        proof = credential.Possession(over, proven.sign.public, proven.agree.public, 0, "pico", b"\1\2")
        claims = credential.Credential(
            self.given.authority if authority is None else authority,
            board_id,
            self.clock if issued is None else issued,
            self.given.credential_number(len(self.lines) + 1) if number is None else number,
            board.sign.public,
            board.agree.public,
            0,
            "pico",
            (epoch, 0xFFFFFFFF),
        )
        body = (signed_by or self.key).sign_object(cose.CREDENTIAL, claims.to_payload())
        possession = (proof_signed_by or proven.sign).sign_object(cose.POSSESSION, proof.to_payload())
        self.write(Enrol(salt, possession, body, place))
        if confirmed:
            self.write(Confirm(board_id, credential.digest(body)))
        return body
