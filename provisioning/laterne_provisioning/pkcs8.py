"""A private key as an encrypted PEM file that every tool reads: PKCS#8 (RFC 5958) with PBES2 (RFC 8018, 6.2).

`cryptography` reads such files with any number of rounds but writes them with 2,048, which guesses a weak passphrase
of a stolen key within hours. So the envelope is written here; its ciphers are those of `cryptography`.
"""

import base64
import secrets
import textwrap

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROUNDS = 600_000  # PBKDF2-HMAC-SHA256: OWASP password storage cheat sheet, 2023; a fifth of a second
SALT_BYTES = 16
AES_KEY_BYTES, AES_BLOCK_BYTES = 32, 16

# RFC 8018, appendix C; RFC 3565, 4.1: object identifiers as DER.
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_AES256_CBC = bytes.fromhex("060960864801650304012a")
_NULL = bytes.fromhex("0500")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def plain_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key without encryption."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encrypted_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> bytes:
    """The key, encrypted with AES-256 under PBKDF2 of the passphrase."""
    salt, first_block = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(AES_BLOCK_BYTES)
    aes_key = PBKDF2HMAC(SHA256(), AES_KEY_BYTES, salt, ROUNDS).derive(passphrase)
    pad = padding.PKCS7(8 * AES_BLOCK_BYTES).padder()
    plain = pad.update(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) + pad.finalize()
    encryptor = Cipher(algorithms.AES256(aes_key), modes.CBC(first_block)).encryptor()
    kdf = _sequence(
        _PBKDF2,
        _sequence(_der(_OCTETS, salt), _der(_INTEGER, ROUNDS.to_bytes(3, "big")), _sequence(_HMAC_SHA256, _NULL)),
    )
    scheme = _sequence(_PBES2, _sequence(kdf, _sequence(_AES256_CBC, _der(_OCTETS, first_block))))
    envelope = _sequence(scheme, _der(_OCTETS, encryptor.update(plain) + encryptor.finalize()))
    lines = textwrap.wrap(base64.b64encode(envelope).decode(), 64)
    return "\n".join(
        ["-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, "-----END ENCRYPTED PRIVATE KEY-----", ""]
    ).encode()


def _sequence(*parts: bytes) -> bytes:
    return _der(_SEQUENCE, b"".join(parts))


def _der(tag: int, content: bytes) -> bytes:
    # X.690, 8.1.3: lengths of up to 127 in one byte, longer ones with the number of their bytes ahead.
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else bytes([0x82, *divmod(size, 256)])
    return bytes([tag]) + length + content
