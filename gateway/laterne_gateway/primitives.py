"""The ciphers of the gateway by `cryptography`: checking signatures, and what handshakes and records need.

Keys come as 64 bytes x and y, signatures as 64 bytes r and s (RFC 9053, 2.1), as the board makes them. PRIMITIVES is
what `laterne_protocol.edhoc` and `laterne_protocol.session` want; in it, all that a peer got wrong is a ValueError.

Kept between calls are the public keys whose signatures are checked, report after report. No private key and no secret
is: an ephemeral key that a cache remembers would open every record of its session for as long. A cipher
object takes 0.15 us to make, less than a look into a cache.
"""

from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from laterne_protocol.edhoc_keys import Primitives

_ALGORITHM = ECDSA(SHA256())
KEYS_KEPT = 512  # a roster has at most 256 boards; roots and roles are few

_Result = TypeVar("_Result")
_Steps = Generator[None, None, _Result]

# Signatures --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=KEYS_KEPT)
def _signing_key(key: bytes) -> EllipticCurvePublicKey | None:
    try:
        return _public(key)
    except ValueError:
        return None


def valid(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature (r and s, 64 bytes) of the message is by the key (x and y, 64 bytes)."""
    public = _signing_key(key)
    if public is None or len(signature) != 64:
        return False
    encoded = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        public.verify(encoded, message, _ALGORITHM)
    except InvalidSignature:
        return False
    return True


# Agreement ---------------------------------------------------------------------------------------------------------


def agreement(private: bytes) -> Callable[[bytes], _Steps[bytes]]:
    """agree() with our own static key (32 bytes), loaded once: what a Handshake wants besides PRIMITIVES.

    Raises ValueError: not a number from 1 to the order of the curve less 1.
    """
    key = _private(private)
    return lambda public: _at_once(key.exchange(ECDH(), _public(public)))


def make_key() -> _Steps[tuple[bytes, bytes]]:
    """Steps to a new private key (32 bytes) and its public key (64 bytes)."""
    key = generate_private_key(SECP256R1())
    private = key.private_numbers().private_value.to_bytes(32, "big")
    return _at_once((private, _bytes_of(key.public_key())))


def decompress(x: bytes) -> _Steps[bytes]:
    """Steps to the public key (64 bytes) with this x (32 bytes) and an even y. Raises ValueError: there is none."""
    # SEC 1, 2.3.4. Only 33 bytes that are a point pass: x < p is checked, too.
    return _at_once(_bytes_of(EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x02" + x)))


def agree(private: bytes, public: bytes) -> _Steps[bytes]:
    """Steps to the shared x-coordinate (32 bytes). Raises ValueError: not a point, or not a private key."""
    return _at_once(_private(private).exchange(ECDH(), _public(public)))


def _private(private: bytes) -> EllipticCurvePrivateKey:
    return derive_private_key(int.from_bytes(private, "big"), SECP256R1())


def _public(key: bytes) -> EllipticCurvePublicKey:
    # SEC 1, 2.3.3: 0x04 and both coordinates. from_encoded_point checks that the point is on the curve.
    return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + key)


def _bytes_of(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _at_once(result: _Result) -> _Steps[_Result]:
    # Everything here takes less than 0.1 ms: one step.
    return result
    yield


# Keys and records --------------------------------------------------------------------------------------------------


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869, 2.2, with SHA-256: 32 bytes."""
    mac = HMAC(salt, SHA256())
    mac.update(secret)
    return mac.finalize()


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, 2.3, with SHA-256: length bytes. Raises ValueError: more than 8,160."""
    return HKDFExpand(SHA256(), length, info).derive(key)


def ccm_seal(key: bytes, nonce: bytes, message: bytes, associated: bytes, tag_bytes: int) -> bytes:
    """AES-CCM (RFC 3610): the ciphertext, the tag at its end. Raises ValueError: sizes that it does not know."""
    return AESCCM(key, tag_bytes).encrypt(nonce, message, associated)


def ccm_open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes, tag_bytes: int) -> bytes:
    """The message that ccm_seal() was given. Raises ValueError: the tag is wrong, or as ccm_seal()."""
    try:
        return AESCCM(key, tag_bytes).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise ValueError("the tag does not belong to these bytes") from None


PRIMITIVES = Primitives(make_key, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)
