"""P-256 by `cryptography`, in the forms of protocol/README.md: keys are x and y, signatures r and s, low s."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

KEY_BYTES = 64
SIGNATURE_BYTES = 64

# SEC 2, 2.4.2: the order of the group.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def public_key(key: bytes) -> ec.EllipticCurvePublicKey:
    """The key for `cryptography`. key: 64 bytes x and y. Raises ValueError: not a point of the curve."""
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)


def raw_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """The 64 bytes x and y of a P-256 key. Raises ValueError: a key of another curve."""
    if not isinstance(key.curve, ec.SECP256R1):
        raise ValueError(f"a key of the curve {key.curve.name}, P-256 is needed")
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def is_point(key: bytes) -> bool:
    """Whether these 64 bytes are a point of the curve."""
    try:
        public_key(key)
    except ValueError:
        return False
    return True


def is_signature(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the 64 bytes r and s are this key's ECDSA signature (P-256, SHA-256) of the message.

    False also for 64 bytes that are no key. Low s is checked by laterne_protocol.cose.
    """
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public_key(key).verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def raw_signature(der: bytes) -> bytes:
    """r and s, 32 bytes each, in the low-s form, of a DER signature. Raises ValueError: not one."""
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")
