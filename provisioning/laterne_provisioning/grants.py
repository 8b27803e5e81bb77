"""Grants: what a field technician may enrol away from the authority, and who believes what was enrolled so.

A grant is signed by the enrolment key and names the technician's key; that key signs credentials under it
(protocol/README.md, 5.5). The technician carries a grant file: the grant, and the trust file of that day, because
boards are to be told whom to believe. The registry keeps every grant that was issued: a credential made under one is
believed because its grant is.

    issued   --merge-->    issued     its journal has come home, or a longer one: merging.py
    issued   --revoke-->   revoked    no journal of it is merged any more; boards that were merged stay
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from laterne_protocol import cbor, cose, credential, fields, trust
from laterne_protocol.errors import ObjectError, SignatureError, WireError
from laterne_protocol.grant import MAX_GRANT_BYTES, NUMBER_BYTES, Grant, digest, grant_of, number_in
from laterne_provisioning import audit, keys, primitives
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import Board, Registry

VERSIONS = 10  # of the trust, from the one it is made under on: as a gateway's credential
MAX_FILE_BYTES = trust.MAX_TRUST_BYTES + MAX_GRANT_BYTES + 16

# A table of its own beside those of registry.py, made when the first grant is issued.
SCHEMA = """
create table if not exists issued_grant (
    number  blob    primary key,                    -- 8 bytes
    body    blob    not null,                       -- the COSE_Sign1
    issued  integer not null,                       -- Unix seconds
    revoked integer,                                -- Unix seconds
    reason  text,                                   -- why it was revoked
    merged  integer not null default 0,             -- entries of its journal that have been merged
    head    blob,                                   -- the digest of the last of them, 16 bytes
    check ((revoked is null) = (reason is null)),
    check ((merged = 0) = (head is null))
) strict
"""


@dataclass(frozen=True)
class IssuedGrant:
    """A row of the registry. body: the COSE_Sign1. issued, revoked: Unix seconds.

    merged: how many entries of its journal have been merged. head: the digest of the last of them, 16 bytes.
    """

    number: bytes
    body: bytes
    issued: int
    revoked: int | None
    reason: str | None
    merged: int
    head: bytes | None

    @property
    def given(self) -> Grant:
        """What stands in it: it was signed here."""
        return grant_of(cose.parse(self.body, MAX_GRANT_BYTES).payload)


class Grants:
    """The grants in a registry. Every method raises OperatorError when SQLite cannot do its work."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self) -> list[IssuedGrant]:
        """All that were issued, the oldest first."""
        if not self._registry.execute("select 1 from sqlite_master where name = 'issued_grant'"):
            return []
        rows = self._registry.execute(
            "select number, body, issued, revoked, reason, merged, head from issued_grant order by issued, rowid"
        )
        return [IssuedGrant(*row) for row in rows]

    def bodies(self) -> dict[bytes, bytes]:
        """By number, what believed() needs."""
        return {issued.number: issued.body for issued in self.all()}

    def grant(self, number: bytes) -> IssuedGrant:
        """The grant with this number. Raises UsageError."""
        for issued in self.all():
            if issued.number == number:
                return issued
        raise UsageError(f"There is no grant {number.hex()}: see `laterne grant list`.")

    def of_journal(self, first_former: bytes) -> IssuedGrant | None:
        """The grant that a journal's first entry names as what came before it."""
        return next((issued for issued in self.all() if digest(issued.body) == first_former), None)

    def add(self, number: bytes, body: bytes, now: int) -> None:
        """A grant that has been signed. now: Unix seconds."""
        self._registry.execute(SCHEMA)
        self._registry.execute("insert into issued_grant (number, body, issued) values (?, ?, ?)", number, body, now)

    def revoke(self, number: bytes, reason: str, now: int) -> None:
        """It counts no more from now on, Unix seconds."""
        self._registry.execute("update issued_grant set revoked = ?, reason = ? where number = ?", now, reason, number)

    def move(self, number: bytes, merged: int, head: bytes) -> None:
        """So much of its journal has been merged; the last entry has this digest."""
        self._registry.execute("update issued_grant set merged = ?, head = ? where number = ?", merged, head, number)


@dataclass(frozen=True)
class GrantFile:
    """What a technician carries. body: the grant's COSE_Sign1. trust_file: the bytes for boards, as trust.cbor."""

    given: Grant
    body: bytes
    trusted: trust.Trust
    trust_file: bytes


def new_number() -> bytes:
    """The number of a grant that is to be issued."""
    return secrets.token_bytes(NUMBER_BYTES)


def versions_of(trusted: trust.Trust) -> tuple[int, int]:
    """The versions of the trust under which a grant made now counts."""
    return trusted.version, trusted.version + VERSIONS - 1


def issue(authority: Authority, registry: Registry, key: keys.SigningKey, wanted: Grant, now: int) -> bytes:
    """Sign a grant and write it into the registry; the grant file. key: the enrolment key. now: Unix seconds.

    wanted: with a new_number() and versions_of() the trust. Raises UsageError, OperatorError.
    """
    trusted = authority.trusted
    taken = [*trusted.roots, *(one for role in trust.ROLES for one in trusted.keys[role])]
    if wanted.key in taken or registry.board_with_key(wanted.key):
        raise UsageError("The technician's key has another role already: make an own one with `laterne grant key`.")
    payload = wanted.to_payload()
    try:
        grant_of(payload)
    except ObjectError as why:
        raise UsageError(f"This is no grant: {why}.") from why
    key.open()
    with registry.transaction():
        authority.log.append("grant issue", wanted.number.hex(), _details(wanted))
        body = sign_object(key, cose.GRANT, payload)
        # The row comes before the file: a grant that nobody can revoke is not given out.
        Grants(registry).add(wanted.number, body, now)
    authority.sign_log(key, every=audit.SIGN_EVERY)
    return cbor.encode([body, authority.trust_file])


def revoke(authority: Authority, registry: Registry, number: bytes, reason: str, now: int) -> bool:
    """No journal of this grant is merged any more. False: it was revoked already. Raises UsageError."""
    with registry.transaction():
        kept = Grants(registry)
        issued = kept.grant(number)
        if issued.revoked is not None:
            return False
        authority.log.append("grant revoke", number.hex(), {"technician": issued.given.technician, "reason": reason})
        kept.revoke(number, reason, now)
    return True


def read_file(path: Path) -> GrantFile:
    """The grant file of a technician, checked as far as it can be without an authority. Raises UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        parts = fields.array(cbor.decode(content, MAX_FILE_BYTES), "grant file", 2, 2)
        body = fields.byte_string(parts[0], "grant", 1, MAX_GRANT_BYTES)
        trust_file = fields.byte_string(parts[1], "trust file", 1, trust.MAX_TRUST_BYTES)
        trusted = trust.trust_of(trust_file, primitives.is_signature)
        given = verified(body, trusted)
    except OSError as why:
        raise UsageError(f"The grant cannot be read: {why.strerror}: {path}") from why
    except WireError as why:
        raise UsageError(f"{path} is no grant that can be believed: {why}. Bring the file of `grant issue`.") from why
    return GrantFile(given, body, trusted, trust_file)


def verified(body: bytes, trusted: trust.Trust) -> Grant:
    """The grant in a COSE_Sign1 that an enrolment key of this trust has signed. Raises WireError."""
    given = grant_of(_payload(cose.parse(body, MAX_GRANT_BYTES), cose.GRANT, trusted.keys[trust.ENROLMENT]))
    if given.authority != trusted.authority:
        raise ObjectError(f"it is a grant of {given.authority}, not of {trusted.authority}")
    return given


def believed(body: bytes, trusted: trust.Trust, bodies: Mapping[bytes, bytes]) -> credential.Credential:
    """The claims of a credential by the enrolment key, or by a technician under a grant (protocol/README.md, 5.5).

    bodies: the grants that were issued, by number. Raises WireError.
    """
    signed = cose.parse(body, credential.MAX_CREDENTIAL_BYTES)
    # Not believed yet, it only says whose signature this has to be: no key of the one kind is tried for the other.
    number = number_in(credential.credential_of(signed.payload).number)
    if number is None or number not in bodies:
        return credential.credential_of(_payload(signed, cose.CREDENTIAL, trusted.keys[trust.ENROLMENT]))
    return made_under(verified(bodies[number], trusted), body)


def made_under(given: Grant, body: bytes) -> credential.Credential:
    """The claims of a credential that the technician has signed, all of them allowed by the grant. Raises WireError."""
    signed = cose.parse(body, credential.MAX_CREDENTIAL_BYTES)
    claims = credential.credential_of(_payload(signed, cose.CREDENTIAL, [given.key]))
    if claims.authority != given.authority or number_in(claims.number) != given.number:
        raise ObjectError("the credential was not made under this grant")
    if not given.is_valid_under(claims.epoch[0]):
        raise ObjectError("the credential begins with a trust version that is not the grant's")
    problem = given.why_not(claims.board, claims.issued)
    if problem is not None:
        raise ObjectError(problem)
    return claims


def boards_under(boards: Sequence[Board], number: bytes) -> list[Board]:
    """Those of the boards that have a credential made under this grant, or had one before they got new keys."""
    return [board for board in boards if any(_number_in(board, body) == number for body in credentials_of(board))]


def credentials_of(board: Board) -> list[bytes]:
    """The credential that a board has, and those of its former keys."""
    return [board.credential, *(former.credential for former in board.formers)]


def number_of(text: str) -> bytes:
    """A grant's number as people write it, 16 hexadecimal digits. Raises UsageError."""
    try:
        number = bytes.fromhex(text)
    except ValueError:
        number = b""
    if len(number) != NUMBER_BYTES:
        raise UsageError(f"{text!r} is no number of a grant, {2 * NUMBER_BYTES} hexadecimal digits: see `grant list`.")
    return number


def check_reason(reason: str) -> None:
    """Raises UsageError: a reason that is no short text."""
    try:
        fields.text(reason, "reason", 64)
    except ObjectError as why:
        raise UsageError(f"The {why}.") from why


def _number_in(board: Board, body: bytes) -> bytes | None:
    try:
        payload = cose.parse(body, credential.MAX_CREDENTIAL_BYTES).payload
        return number_in(credential.credential_of(payload).number)
    except WireError as why:
        raise OperatorError(
            f"The registry holds a credential of {board.id} that is none: {why}. Bring the registry back from a backup."
        ) from why


def _details(given: Grant) -> dict[str, audit.Json]:
    return {
        "technician": given.technician,
        "kid": credential.kid(given.key).hex(),
        "site": given.site,
        "ids": [*given.ids],
        "posts": [*given.posts],
        "most": given.most,
        "valid": [*given.valid],
        "versions": [*given.versions],
    }


def _payload(signed: cose.Sign1, domain: str, by: Sequence[bytes]) -> bytes:
    for key in by:
        try:
            return cose.verify(signed, domain, partial(primitives.is_signature, key))
        except SignatureError:
            continue  # the next key of this role may be the one
    raise SignatureError(f"its signature is not that of a key that may sign {domain}")
