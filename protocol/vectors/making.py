"""What all vectors are made with: keys from names, signatures, and ways to change one thing (generate.py)."""

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from described import describe

from laterne_protocol import cbor, cose, credential

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Vector = dict[str, Any]


class Key:
    """A P-256 key pair made from a name: for vectors only."""

    def __init__(self, name: str) -> None:
        secret = int.from_bytes(hashlib.sha256(b"laterne vector key " + name.encode()).digest(), "big") % ORDER
        self.private = ec.derive_private_key(secret, ec.SECP256R1())
        point = self.private.public_key().public_numbers()
        self.public = point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")
        self.kid = credential.kid(self.public)

    def signature(self, message: bytes) -> bytes:
        """64 bytes r and s, low s, the nonce from RFC 6979."""
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")

    def sign(self, domain: str, payload: bytes, algorithm: int = cose.ESP256) -> bytes:
        """The COSE_Sign1 of a payload."""
        protected = cose.protected_header(self.kid, algorithm)
        return cose.assemble(protected, payload, self.signature(cose.to_be_signed(domain, protected, payload)))


BOARD, AGREE, ENROLMENT, ROSTER = Key("board"), Key("agree"), Key("enrolment"), Key("roster")
GATEWAY = Key("gateway")
NEXT, NEXT_AGREE = Key("next board"), Key("next agree")
OPERATOR = Key("order")
TECHNICIAN = Key("technician")
RELEASE = [Key("release 1"), Key("release 2")]
ROOTS = [Key("root 1"), Key("root 2"), Key("root 3")]


def vector(name: str, kind: str, data: bytes, **more: Any) -> Vector:
    """One vector: what our code says of these bytes."""
    made: Vector = {"name": name, "kind": kind, "hex": data.hex()}
    if more:
        made["more"] = more
    return {**made, "gives": describe(kind, data, more)}


def changed(payload: bytes, change: Callable[[Any], None]) -> bytes:
    """The payload after `change` was made to its decoded value."""
    value = cbor.decode(payload)
    change(value)
    return cbor.encode(value)


def put(*path_and_value: Any) -> Callable[[Any], None]:
    """A change: put(6, 1, 0, "x") sets value[6][1][0] = "x"."""
    *path, last, new = path_and_value

    def change(value: Any) -> None:
        for step in path:
            value = value[step]
        value[last] = new

    return change
