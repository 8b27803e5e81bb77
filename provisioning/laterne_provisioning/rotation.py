"""New keys for an authority: the next trust file, signed by enough of the former roots and enough of the new ones.

Everything new is made beside, in `.rotation.unfinished`; its renaming to `rotation` is the moment from which the new
keys count. What is in `rotation` is then moved to its place, by this command or, if it was interrupted, by the next
one that opens the authority. So at any moment there is the former authority or the new one.

A former key stays in the trust file where objects it has signed must stay believed: enrolment keys while the
registry holds a credential or a grant of theirs, others when the operator says so. No former key signs any more.
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from laterne_protocol import cose, credential, grant, trust
from laterne_protocol.errors import WireError
from laterne_provisioning import audit, files, grants, keys, primitives
from laterne_provisioning.authority import (
    CONFIGURATION,
    FORMER_TRUST_FILES,
    KEYS,
    ROOT,
    ROTATION,
    TRUST_FILE,
    Authority,
    KeyPlace,
    configuration_text,
    open_authority,
    sign_object,
    trust_details,
)
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import Registry


@dataclass(frozen=True)
class Change:
    """What is to be new.

    roles: those that get a new key. roots: the numbers (1 for the first) of the roots that do. there: (role, URI) of
    keys that are there already; the others are made in files. keep: roles whose former keys stay valid in any case.
    roots_at: where the private part of a root is now, by its number, if not where authority.toml says.
    """

    roles: Collection[str] = ()
    roots: Collection[int] = ()
    there: Sequence[tuple[str, str]] = ()
    keep: Collection[str] = ()
    roots_at: Mapping[int, str] | None = None


@dataclass(frozen=True)
class Rotated:
    """The authority after it. retired: the places of keys that sign no more. signers: kids of the roots that signed."""

    authority: Authority
    retired: tuple[KeyPlace, ...]
    signers: tuple[bytes, ...]


def rotate(authority: Authority, change: Change, passphrase: str | None, secrets: keys.Secrets) -> Rotated:
    """Give the authority its next trust file. passphrase: of new key files, None for plain ones. secrets: of the roots.

    Raises UsageError, OperatorError; then the authority is as it was.
    """
    _require_sensible(authority, change)
    building = authority.directory / f".{ROTATION}.unfinished"
    lock = os.open(authority.directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What an interrupted rotation has left was never used by anyone.
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=files.PRIVATE_DIRECTORY)
        try:
            places, retired, new = _new_places(authority, change, building, passphrase, secrets)
            with authority.registry() as registry:
                wanted = _next_trust(authority, change, places, registry)
            signers, data = _signed(authority, change, places, new, wanted, building, secrets)
            files.write_public(building / TRUST_FILE, data)
            # A gateway that has missed a rotation of the roots needs every version to follow (laterne_gateway.trusts).
            former = FORMER_TRUST_FILES.replace("*", str(authority.trusted.version))
            files.write_public(building / former, authority.trust_file)
            files.write_private(building / CONFIGURATION, configuration_text(authority.name, places).encode())
            files.sync_directory(building)
            authority.log.append(audit.TRUST, authority.name, trust_details(wanted))
            os.rename(building, authority.directory / ROTATION)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        files.sync_directory(authority.directory)
    except BlockingIOError as why:
        raise OperatorError("Another laterne trust rotate is at work: wait for it.") from why
    except OSError as why:
        raise UsageError(f"The new keys cannot be made in {authority.directory}: {why.strerror}.") from why
    finally:
        os.close(lock)
    made = open_authority(authority.directory)
    for role in audit.SIGNERS:
        if role in change.roles:
            made.sign_log(made.signing_key(role, secrets))  # a key of this trust file must vouch for the log
            break
    return Rotated(made, tuple(retired), tuple(signers))


def _require_sensible(authority: Authority, change: Change) -> None:
    count = len(authority.trusted.roots)
    if not change.roles and not change.roots:
        raise UsageError("What is to be new? Give --role ROLE or --root NUMBER.")
    for role in (*change.roles, *change.keep):
        if role not in trust.ROLES:
            raise UsageError(f"{role!r} is none of {', '.join(trust.ROLES)}.")
    for number in (*change.roots, *(change.roots_at or {})):
        if not 1 <= number <= count:
            raise UsageError(f"There is no root {number}: they are numbered from 1 to {count}.")
    for role, _ in change.there:
        if role != ROOT and role not in change.roles:
            raise UsageError(f"--key {role}=… names a key of a role that is not to change: add --role {role}.")
    given = [role for role, _ in change.there]
    for role in set(given):
        several = sum(place.role == role for place in authority.places) if role == trust.RELEASE else 1
        if given.count(role) > (len(change.roots) if role == ROOT else several):
            raise UsageError(f"--key {role}=… was given more often than {role} keys are to change.")


def _new_places(
    authority: Authority, change: Change, building: Path, passphrase: str | None, secrets: keys.Secrets
) -> tuple[list[KeyPlace], list[KeyPlace], set[bytes]]:
    """The places from now on, those that are given up, and the public parts of the keys just made in `building`."""
    (building / KEYS).mkdir(mode=files.PRIVATE_DIRECTORY)
    waiting = list(change.there)
    version = authority.trusted.version + 1
    places: list[KeyPlace] = []
    retired: list[KeyPlace] = []
    made: set[bytes] = set()
    number = 0
    for place in authority.places:
        number += place.role == ROOT
        if not (number in change.roots if place.role == ROOT else place.role in change.roles):
            places.append(place)
            continue
        retired.append(place)
        several = place.role in (ROOT, trust.RELEASE)  # of which more than one must sign, perhaps
        if not several and any(new.role == place.role for new in places):
            continue  # a role had several keys: one takes their place
        given = next((one for one in waiting if one[0] == place.role), None)
        if given is not None:
            waiting.remove(given)
            public = keys.public_key(given[1], f"{place.role} key", authority.directory, secrets)
            places.append(KeyPlace(place.role, public, given[1]))
            continue
        stem = f"{ROOT}-{number}" if place.role == ROOT else place.role
        if place.role == trust.RELEASE and (before := sum(new.role == place.role for new in places)):
            stem = f"{place.role}-{before + 1}"
        path = Path(KEYS) / f"{stem}-v{version}.pem"
        public = keys.make_key_file(building / path, passphrase)
        made.add(public)
        places.append(KeyPlace(place.role, public, keys.file_uri(path)))
    return places, retired, made


def _next_trust(authority: Authority, change: Change, places: Sequence[KeyPlace], registry: Registry) -> trust.Trust:
    former = authority.trusted
    by_role = {}
    for role in trust.ROLES:
        if role not in change.roles:
            by_role[role] = former.keys[role]
            continue
        kept = former.keys[role] if role in change.keep else []
        if role == trust.ENROLMENT and not kept:
            needed = _signed_by_enrolment(registry)
            kept = [key for key in former.keys[role] if any(_has_signed(key, *signed) for signed in needed)]
        by_role[role] = [*(place.public for place in places if place.role == role), *kept]
    wanted = trust.Trust(
        former.version + 1,
        authority.name,
        former.threshold,
        [place.public for place in places if place.role == ROOT],
        by_role,
        former.release_threshold,
    )
    try:
        trust.trust_payload_of(wanted.to_payload())
    except WireError as why:
        raise UsageError(f"These keys make no trust file: {why}.") from why
    return wanted


def _signed_by_enrolment(registry: Registry) -> list[tuple[str, bytes]]:
    """What must stay believed: credentials, and grants under which boards were enrolled or still can be merged."""
    boards = registry.boards()
    return [(cose.CREDENTIAL, body) for board in boards for body in grants.credentials_of(board)] + [
        (cose.GRANT, issued.body)
        for issued in grants.Grants(registry).all()
        if issued.revoked is None or grants.boards_under(boards, issued.number)
    ]


def _has_signed(key: bytes, domain: str, body: bytes) -> bool:
    try:
        signed = cose.parse(body, grant.MAX_GRANT_BYTES)
        cose.verify(signed, domain, partial(primitives.is_signature, key))
    except WireError:
        return False
    return True


def _signed(
    authority: Authority,
    change: Change,
    places: Sequence[KeyPlace],
    new: Collection[bytes],
    wanted: trust.Trust,
    building: Path,
    secrets: keys.Secrets,
) -> tuple[list[bytes], bytes]:
    """The kids of the roots that have signed, and the trust file."""
    payload = wanted.to_payload()
    roots = [place for place in authority.places if place.role == ROOT]
    at = {roots[number - 1].public: uri for number, uri in (change.roots_at or {}).items()}
    for place in places:
        if place.role == ROOT and place not in roots:
            roots.append(place)
    signers: list[bytes] = []
    signed: list[bytes] = []
    absent: list[str] = []
    for place in roots[: trust.MAX_KEYS_A_ROLE]:
        kid = credential.kid(place.public)
        directory = building if place.public in new else authority.directory
        key = keys.SigningKey(
            f"root key {kid.hex()}", at.get(place.public, place.uri), place.public, directory, secrets
        )
        try:
            key.open()
        except OperatorError as why:
            absent.append(str(why))
            continue
        key.log = authority.log
        signed.append(sign_object(key, cose.TRUST, payload))
        signers.append(kid)
    if not signed:
        raise OperatorError("No root can sign. " + " ".join(absent))
    data = trust.trust_file(signed)
    try:
        # As whoever holds the former trust file will judge it: TUF 5.3, root rotation.
        trust.trust_of(data, primitives.is_signature, authority.trusted)
    except WireError as why:
        raise OperatorError(
            f"The new trust file would not be believed: {why}. Bring more roots (--root-at NUMBER=URI). "
            + " ".join(absent)
        ) from why
    return signers, data
