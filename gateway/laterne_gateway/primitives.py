"""The one cipher of the gateway: checking ECDSA signatures (P-256, SHA-256) by `cryptography`.

Keys come as 64 bytes x and y, signatures as 64 bytes r and s (RFC 9053, 2.1), as the board makes them.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

_ALGORITHM = ECDSA(SHA256())
KEYS_KEPT = 512  # a roster has at most 256 boards; roots and roles are few


@lru_cache(maxsize=KEYS_KEPT)
def _key(key: bytes) -> EllipticCurvePublicKey | None:
    # SEC 1, 2.3.3: 0x04 and both coordinates. from_encoded_point checks that the point is on the curve.
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + key)
    except ValueError:
        return None


def valid(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature (r and s, 64 bytes) of the message is by the key (x and y, 64 bytes)."""
    public = _key(key)
    if public is None or len(signature) != 64:
        return False
    encoded = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        public.verify(encoded, message, _ALGORITHM)
    except InvalidSignature:
        return False
    return True
