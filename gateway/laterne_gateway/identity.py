"""Who this gateway is to its boards: its agreement key, and the credential in which the authority vouches for it.

The key is made here and never leaves the machine (`laterne-gateway key`); the authority is given the public half.
What comes back (`laterne gateway enrol`) is a file for everybody: the boards are shown it (protocol/README.md,
5.4 and 9.4).
"""

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
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
from laterne_gateway.config import GatewaySettings
from laterne_gateway.roster import RosterError, read_bounded
from laterne_protocol import cose, credential, edhoc_keys, trust
from laterne_protocol.edhoc_keys import Party
from laterne_protocol.errors import ObjectError, SignatureError, WireError
from laterne_protocol.gateway_credential import (
    MAX_GATEWAY_CREDENTIAL_BYTES,
    GatewayCredential,
    gateway_credential_of,
)

KEY_MODE = 0o600
MAX_KEY_BYTES = 4096


class IdentityError(RosterError):
    """Without key and credential no board talks to us; the sentence says what to do."""


@dataclass(frozen=True)
class Identity:
    """introduction: the credential's bytes, as boards are shown them. agree: with our key (primitives.agreement)."""

    party: Party
    agree: Callable[[bytes], Generator[None, None, bytes]]
    introduction: bytes
    credential: GatewayCredential


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


def load(settings: GatewaySettings, trusted: trust.Trust) -> Identity:
    """Our key and credential, fitting together and signed by the authority. Raises IdentityError."""
    file = settings.credential
    key = _load(settings.key)
    public = _public(key)
    remedy = f"sign {settings.id}'s key anew: laterne gateway enrol"
    try:
        data = read_bounded(file, MAX_GATEWAY_CREDENTIAL_BYTES, "laterne gateway enrol")
        found = verified_credential(data, trusted)
        if found.gateway != settings.id:
            raise ObjectError(f"it is for gateway {found.gateway}, this one is {settings.id}")
        if found.agree_key != public:
            raise ObjectError(f"it names another key than the one in {settings.key}")
        if not found.is_valid_under(trusted.version):
            first, last = found.versions
            raise ObjectError(f"it is valid under trust versions {first} to {last}, the trust has {trusted.version}")
    except WireError as why:
        raise IdentityError(f"{file}: {why}: {remedy}") from why
    except RosterError as why:
        raise IdentityError(str(why)) from why
    private = key.private_numbers().private_value.to_bytes(32, "big")
    return Identity(edhoc_keys.party(settings.id, public), primitives.agreement(private), data, found)


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
