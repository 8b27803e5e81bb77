"""Who this gateway is to its boards: its agreement key, and the credential in which the authority vouches for it.

The key is made here and never leaves the machine (`laterne-gateway key`); the authority is given the public half.
What comes back (`laterne gateway enrol`) is a file for everybody: the boards are shown it (protocol/README.md,
5.4 and 9.4).

After a rotation of the roster key, boards that hold the former trust believe the former credential and no other; it is
in such a session that they are told the new trust. So former credentials are kept as long as a trust that we followed
believes one and not the newest. That is no way back in for who holds the former roster key: what boards believe is
theirs to judge, and each has left it behind when it has followed.
"""

import base64
import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from laterne_gateway import primitives
from laterne_gateway.buffer import Buffer
from laterne_gateway.config import GatewaySettings
from laterne_gateway.health import Health
from laterne_gateway.trusts import RosterError, read_bounded
from laterne_gateway.writer import StoreError
from laterne_protocol import cose, credential, edhoc_keys, trust
from laterne_protocol.edhoc_keys import Party
from laterne_protocol.errors import ObjectError, SignatureError, WireError
from laterne_protocol.gateway_credential import (
    MAX_GATEWAY_CREDENTIAL_BYTES,
    GatewayCredential,
    gateway_credential_of,
)

log = logging.getLogger("laterne")

SUBJECT = "credential"
KEY_MODE = 0o600
MAX_KEY_BYTES = 4096


class IdentityError(RosterError):
    """Without key and credential no board talks to us; the sentence says what to do."""


@dataclass(frozen=True)
class Introduction:
    """data: the credential's bytes, as boards are shown them. believed_under: the versions of those trusts."""

    data: bytes
    credential: GatewayCredential
    believed_under: frozenset[int]


@dataclass(frozen=True)
class Identity:
    """agree: with our key (primitives.agreement). introductions: at least one, the newest first; each is believed under
    a trust under which none before it is. problem: why the credential that the authority gave us last does not do.
    """

    party: Party
    agree: Callable[[bytes], Generator[None, None, bytes]]
    introductions: tuple[Introduction, ...]
    problem: str | None = None

    def is_believed_under(self, version: int) -> bool:
        """Whether a board that holds this version of the trust takes one of our credentials."""
        return any(version in one.believed_under for one in self.introductions)


def make_key(file: Path) -> bytes:
    """A new key in a file that nobody else may read, never instead of one that is there; the public key, 64 bytes.

    Raises IdentityError.
    """
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # 0600 from the beginning
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(pem)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, file)  # fails if there is a file, unlike rename
        finally:
            os.unlink(temporary)
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError as why:
        raise IdentityError(f"{file}: is there already and is not overwritten") from why
    except OSError as why:
        raise IdentityError(f"{file}: cannot be written ({why.strerror}): correct the path or its rights") from why
    return _public(key)


def public_key(file: Path) -> bytes:
    """The public half, 64 bytes. Raises IdentityError."""
    return _public(_load(file))


def jwk(key: bytes) -> str:
    """A public key (64 bytes) as JSON Web Key (RFC 7518, 6.2), one line."""
    x, y = (base64.urlsafe_b64encode(half).rstrip(b"=").decode() for half in (key[:32], key[32:]))
    return json.dumps({"kty": "EC", "crv": "P-256", "x": x, "y": y})


def load(settings: GatewaySettings, trusts: Sequence[trust.Trust], kept: Iterable[bytes] = ()) -> Identity:
    """Our key, and the credentials that fit it and that the authority has signed. Raises IdentityError: there is none.

    trusts: those that were followed, the one in force last. kept: credentials from former times.
    """
    key = _load(settings.key)
    public = _public(key)
    problem = None
    candidates = list(kept)
    try:
        data = read_bounded(settings.credential, MAX_GATEWAY_CREDENTIAL_BYTES, "laterne gateway enrol")
        candidates = [data, *(one for one in candidates if one != data)]
        _require_ours(data, settings, public, trusts[-1])
    except WireError as why:
        problem = f"{settings.credential}: {why}: sign {settings.id}'s key anew: laterne gateway enrol"
    except RosterError as why:
        problem = str(why)
    introductions = _useful([_introduction(one, settings, public, trusts) for one in candidates])
    if not introductions:
        raise IdentityError(problem or f"{settings.credential}: is of no use: laterne gateway enrol")
    private = key.private_numbers().private_value.to_bytes(32, "big")
    return Identity(edhoc_keys.party(settings.id, public), primitives.agreement(private), tuple(introductions), problem)


async def load_and_keep(
    settings: GatewaySettings, trusts: Sequence[trust.Trust], buffer: Buffer, health: Health
) -> Identity:
    """As load(), with the credentials that the database keeps; afterwards it keeps those that are of use.

    Raises an alarm while the newest does not do. Raises IdentityError.
    """
    kept = await buffer.kept_files(SUBJECT)
    own = load(settings, trusts, kept.values())
    useful = {f"{SUBJECT} {sha256(one.data).hexdigest()[:16]}": one for one in own.introductions}
    try:
        for kind, one in useful.items():
            if kind not in kept:
                await buffer.keep_file(kind, one.credential.versions[0], one.data)
        for kind in kept.keys() - useful.keys():
            await buffer.forget_file(kind)
    except StoreError as why:  # nothing is lost by it as long as we run
        log.warning("%s: not kept: %s", SUBJECT, why)
    if own.problem is None:
        health.clear("gateway", SUBJECT, "the credential is good again")
    else:
        health.alarm("gateway", SUBJECT, f"{own.problem}; until then the former one serves who believes it")
    return own


def _require_ours(data: bytes, settings: GatewaySettings, public: bytes, trusted: trust.Trust) -> GatewayCredential:
    found = verified_credential(data, trusted)
    if found.gateway != settings.id:
        raise ObjectError(f"it is for gateway {found.gateway}, this one is {settings.id}")
    if found.agree_key != public:
        raise ObjectError(f"it names another key than the one in {settings.key}")
    if not found.is_valid_under(trusted.version):
        first, last = found.versions
        raise ObjectError(f"it is valid under trust versions {first} to {last}, the trust has {trusted.version}")
    return found


def _introduction(
    data: bytes, settings: GatewaySettings, public: bytes, trusts: Sequence[trust.Trust]
) -> Introduction | None:
    found, versions = None, set()
    for trusted in trusts:
        with contextlib.suppress(WireError):
            found = _require_ours(data, settings, public, trusted)
            versions.add(trusted.version)
    return None if found is None else Introduction(data, found, frozenset(versions))


def _useful(found: Sequence[Introduction | None]) -> list[Introduction]:
    good = [one for one in found if one is not None]
    useful: list[Introduction] = []
    covered: set[int] = set()
    for one in sorted(good, key=lambda one: max(one.believed_under), reverse=True):  # stable: the file's comes first
        if not one.believed_under <= covered:
            useful.append(one)
            covered |= one.believed_under
    return useful


def verified_credential(data: bytes, trusted: trust.Trust) -> GatewayCredential:
    """The gateway credential in these bytes, once a roster key is found to have signed it. Raises WireError."""
    signed = cose.parse(data, MAX_GATEWAY_CREDENTIAL_BYTES)
    for key in trusted.keys[trust.ROSTER]:
        if credential.kid(key) == signed.kid:
            return gateway_credential_of(cose.verify(signed, cose.GATEWAY, partial(primitives.valid, key)))
    raise SignatureError(f"key {signed.kid.hex()} is not a roster key of {trusted.authority}")


def _load(file: Path) -> EllipticCurvePrivateKey:
    try:
        with file.open("rb") as source:
            pem = source.read(MAX_KEY_BYTES)
    except OSError as why:
        raise IdentityError(f"{file}: cannot be read ({why.strerror}): make it: laterne-gateway key") from why
    with contextlib.suppress(ValueError, TypeError):  # not PEM, damaged, encrypted
        key = load_pem_private_key(pem, None)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return key
    raise IdentityError(f"{file}: is not a key that `laterne-gateway key` has made: bring the right file")


def _public(key: EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
