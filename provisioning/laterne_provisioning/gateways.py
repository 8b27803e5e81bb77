"""Gateways: which there are is said by the roster key, which also says whom they serve (protocol/README.md, 5.4)."""

import base64
import json
from pathlib import Path

from laterne_protocol import cose, credential, fields
from laterne_protocol.errors import ObjectError
from laterne_protocol.gateway_credential import GatewayCredential
from laterne_provisioning import audit, keys, primitives
from laterne_provisioning.authority import Authority, sign_object
from laterne_provisioning.errors import UsageError

MAX_KEY_FILE_BYTES = 4096

ENROL = "enrol gateway"  # in the log of audits
VERSIONS = 10  # of the trust, from the one it is made under on; a trust changes once a year or less


def key_in(path: Path, whose: str = "gateway", printed_by: str = "laterne-gateway key") -> bytes:
    """The public key (64 bytes) in a JWK file, as the other end's command prints it. Raises UsageError."""

    def not_a_key(why: str) -> UsageError:
        return UsageError(f"{path} is not a {whose}'s public key: {why}. Bring what `{printed_by}` has printed.")

    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_KEY_FILE_BYTES))
    except OSError as why:
        raise UsageError(f"The key cannot be read: {why.strerror}: {path}") from why
    except ValueError as why:
        raise not_a_key("it is not JSON") from why
    if not isinstance(found, dict) or (found.get("kty"), found.get("crv")) != ("EC", "P-256"):
        raise not_a_key("it is not a JWK of P-256")
    if "d" in found:
        raise not_a_key(f"it holds a private key, which is to stay with the {whose}: make a new one there")
    try:
        key = b"".join(base64.b64decode(found[name] + "=", b"-_", validate=True) for name in ("x", "y"))
    except (KeyError, TypeError, ValueError) as why:
        raise not_a_key("x and y are not what RFC 7518 wants") from why
    if len(key) != credential.KEY_BYTES or not primitives.is_point(key):
        raise not_a_key("x and y are no point of the curve")
    return key


def enrol(authority: Authority, gateway: str, public: bytes, key: keys.SigningKey, now: int) -> bytes:
    """The credential of a gateway. public: its agreement key, 64 bytes. key: the roster key. now: Unix seconds.

    Raises UsageError, OperatorError.
    """
    try:
        fields.board_id(gateway, "gateway id")
    except ObjectError as why:
        raise UsageError(f"{gateway!r} cannot be a gateway: {why}.") from why
    version = authority.trusted.version
    made = GatewayCredential(gateway, public, (version, version + VERSIONS - 1), now)
    key.open()
    with authority.registry() as registry, registry.transaction():
        details: audit.Details = {"kid": credential.kid(public).hex(), "versions": list(made.versions)}
        authority.log.append(ENROL, gateway, details)
        signed = sign_object(key, cose.GATEWAY, made.to_payload())
    authority.sign_log(key, every=audit.SIGN_EVERY)
    return signed


def is_enrolled(authority: Authority, gateway: str) -> bool:
    """Whether a credential was ever signed for it here."""
    return any(record.subject == gateway for record in authority.log.of(ENROL))
