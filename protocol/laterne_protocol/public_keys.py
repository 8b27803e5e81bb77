"""Public keys as objects carry them, and their short name (protocol/README.md, 5).

What handshakes need of them, and everything else, too; the objects that hold them stand in `credential`, `roster`,
`trust` and `gateway_credential`.
"""

from hashlib import sha256

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError

KEY_BYTES = 64  # x and y of a P-256 point, 32 bytes each, big endian


def cose_key(key: bytes) -> "dict[object, object]":
    """The COSE_Key (RFC 9053, 7.1) of a P-256 point. key: 64 bytes x and y."""
    if len(key) != KEY_BYTES:
        raise ObjectError("a public key has %d bytes" % KEY_BYTES)
    return {1: 2, -1: 1, -2: key[:32], -3: key[32:]}


def key_of(value: object, name: str) -> bytes:
    """The 64 bytes x and y of a COSE_Key as cose_key() makes it. Raises ObjectError.

    Not checked here: that the point is on the curve. The primitive that takes the key does it.
    """
    parts = fields.mapping(value, name, (1, -1, -2, -3))
    fields.integer(parts[1], name + " type", 2, 2)
    fields.integer(parts[-1], name + " curve", 1, 1)
    return fields.byte_string(parts[-2], name + " x", 32) + fields.byte_string(parts[-3], name + " y", 32)


def kid(key: bytes) -> bytes:
    """The short name of a public key: the first 8 bytes of its RFC 9679 thumbprint. key: 64 bytes x and y."""
    return thumbprint(key)[:8]


def thumbprint(key: bytes) -> bytes:
    """RFC 9679: SHA-256 over the deterministic COSE_Key with its required members only, 32 bytes."""
    return sha256(cbor.encode(cose_key(key))).digest()
