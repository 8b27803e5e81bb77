"""What a handshake and a session need, out of `cryptography`: for tests on CPython."""

from collections.abc import Generator
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from laterne_protocol.edhoc_keys import Primitives

Result = TypeVar("Result")


def run(steps: Generator[None, None, Result]) -> Result:
    """Runs all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: Result = finished.value
            return result


def steps_to(result: Result) -> Generator[None, None, Result]:
    """Steps that are done at once."""
    return result
    yield


def public_bytes(key: EllipticCurvePublicKey) -> bytes:
    """x and y, 64 bytes."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def new_key() -> tuple[bytes, bytes]:
    """A private key (32 bytes) and its public key (64 bytes)."""
    key = generate_private_key(SECP256R1())
    return key.private_numbers().private_value.to_bytes(32, "big"), public_bytes(key.public_key())


def private_key(private: bytes) -> EllipticCurvePrivateKey:
    """The key that these 32 bytes are."""
    return derive_private_key(int.from_bytes(private, "big"), SECP256R1())


def make_key() -> Generator[None, None, tuple[bytes, bytes]]:
    return steps_to(new_key())


def decompress(x: bytes) -> Generator[None, None, bytes]:
    return steps_to(public_bytes(EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x02" + x)))


def agree(private: bytes, public: bytes) -> Generator[None, None, bytes]:
    peer = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + public)
    return steps_to(private_key(private).exchange(ECDH(), peer))


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    mac = HMAC(salt, SHA256())
    mac.update(secret)
    return mac.finalize()


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, info).derive(key)


def ccm_seal(key: bytes, nonce: bytes, message: bytes, associated: bytes, tag_bytes: int) -> bytes:
    return AESCCM(key, tag_bytes).encrypt(nonce, message, associated)


def ccm_open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes, tag_bytes: int) -> bytes:
    try:
        return AESCCM(key, tag_bytes).decrypt(nonce, sealed, associated)
    except InvalidTag:
        raise ValueError("the tag does not belong to these bytes") from None


PRIMITIVES = Primitives(make_key, decompress, agree, hkdf_extract, hkdf_expand, ccm_seal, ccm_open)
