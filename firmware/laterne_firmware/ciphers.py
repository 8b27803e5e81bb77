"""What sessions need of a board's ciphers: AES-CCM (RFC 3610), HKDF (RFC 5869), and comparing without telling.

Over SHA-256 and `cryptolib`. A board loads this for handshakes and sessions; signing needs none of it.
"""

from cryptolib import aes

from laterne_firmware.primitives import Hmac

HASH_BYTES = 32

_AES_ECB = 1
_AES_CBC = 2
_AES_BLOCK = 16
MAX_CCM_BYTES = 65535  # of message; a frame carries 1,024. Block numbers then fit two bytes for every nonce length.
MAX_CCM_ASSOCIATED_BYTES = 65279  # 0xFEFF: longer ones have another length field (RFC 3610, 2.2), nobody needs it


class AuthenticationError(ValueError):
    """Sealed bytes that our key did not seal: drop them, nothing of them was opened."""


def equal(left: bytes, right: bytes) -> bool:
    """Whether two byte strings are equal, in a time that does not say where they differ."""
    difference = len(left) ^ len(right)
    for a, b in zip(left, right):  # noqa: B905 - MicroPython's zip has no `strict`; lengths are compared above
        difference |= a ^ b
    return difference == 0


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869, 2.2: a 32-byte pseudorandom key. An empty salt counts as 32 zero bytes."""
    return Hmac(salt).digest(secret)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, 2.3: `length` bytes (at most 8,160) from a pseudorandom key; ValueError if more are asked for."""
    if not 0 <= length <= 255 * HASH_BYTES:
        raise ValueError(f"HKDF gives at most {255 * HASH_BYTES} bytes, not {length}")
    hmac = Hmac(key)
    block = b""
    made = b""
    while len(made) < length:
        block = hmac.digest(block, info, bytes((len(made) // HASH_BYTES + 1,)))
        made += block
    return made[:length]


# AES-CCM ---------------------------------------------------------------------------------------------------------


def ccm_seal(key: bytes, nonce: bytes, message: bytes, associated: bytes = b"", tag_bytes: int = 8) -> bytes:
    """The encrypted message followed by its tag.

    key: 16 or 32 bytes; nonce: 7 to 13 bytes, never used twice under one key; tag: 4, 6 ... 16 bytes.
    The defaults with a 13-byte nonce are AES-CCM-16-64-128 (COSE 10). ValueError if a length is not one of these.
    """
    _check_ccm_lengths(key, nonce, len(message), associated, tag_bytes)
    stream = _ccm_stream(key, nonce, len(message))
    tag = _xor(_ccm_mac(key, nonce, message, associated, tag_bytes)[:tag_bytes], stream[:tag_bytes])
    return _xor(message, stream[_AES_BLOCK:]) + tag


def ccm_open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes = b"", tag_bytes: int = 8) -> bytes:
    """The message, or AuthenticationError; lengths as in `ccm_seal` (ValueError)."""
    length = len(sealed) - tag_bytes
    if length < 0:
        raise AuthenticationError(f"{len(sealed)} sealed bytes are shorter than their tag of {tag_bytes}")
    _check_ccm_lengths(key, nonce, length, associated, tag_bytes)
    stream = _ccm_stream(key, nonce, length)
    message = _xor(sealed[:length], stream[_AES_BLOCK:])
    tag = _xor(_ccm_mac(key, nonce, message, associated, tag_bytes)[:tag_bytes], stream[:tag_bytes])
    if not equal(tag, sealed[length:]):
        raise AuthenticationError("the tag does not belong to these bytes, this nonce and this key")
    return message


def _check_ccm_lengths(key: bytes, nonce: bytes, length: int, associated: bytes, tag_bytes: int) -> None:
    if len(key) not in (16, 32):
        raise ValueError(f"an AES key here has 16 or 32 bytes, not {len(key)}")
    if not 7 <= len(nonce) <= 13:
        raise ValueError(f"a CCM nonce has 7 to 13 bytes, not {len(nonce)}")
    if tag_bytes not in (4, 6, 8, 10, 12, 14, 16):
        raise ValueError(f"a CCM tag has 4, 6, 8, 10, 12, 14 or 16 bytes, not {tag_bytes}")
    if length > MAX_CCM_BYTES or len(associated) > MAX_CCM_ASSOCIATED_BYTES:
        raise ValueError(f"{length} bytes with {len(associated)} associated bytes are too many for one message")


def _ccm_mac(key: bytes, nonce: bytes, message: bytes, associated: bytes, tag_bytes: int) -> bytes:
    """RFC 3610, 2.2: the CBC-MAC, 16 bytes, not yet encrypted."""
    width = 15 - len(nonce)  # of the length field, called L in the RFC
    flags = 64 * (len(associated) > 0) + 8 * ((tag_bytes - 2) // 2) + width - 1
    blocks = bytearray((flags,)) + nonce + len(message).to_bytes(width, "big")
    if associated:
        blocks += len(associated).to_bytes(2, "big") + associated
        blocks += bytes(-len(blocks) % _AES_BLOCK)
    blocks += message
    blocks += bytes(-len(blocks) % _AES_BLOCK)
    # An object keeps its chaining state and works in one direction: a new one for each message.
    aes(key, _AES_CBC, bytes(_AES_BLOCK)).encrypt(blocks, blocks)
    return bytes(blocks[-_AES_BLOCK:])


def _ccm_stream(key: bytes, nonce: bytes, length: int) -> bytes:
    """RFC 3610, 2.3: S_0, S_1 ... for `length` bytes of message. One ECB call over all counter blocks."""
    count = 1 + (length + _AES_BLOCK - 1) // _AES_BLOCK
    width = 15 - len(nonce)
    blocks = bytearray((bytes((width - 1,)) + nonce + bytes(width)) * count)
    for number in range(1, count):
        blocks[number * _AES_BLOCK + 14] = number >> 8
        blocks[number * _AES_BLOCK + 15] = number & 255
    aes(key, _AES_ECB).encrypt(blocks, blocks)
    return bytes(blocks)


def _xor(data: bytes, stream: bytes) -> bytes:
    """`data` xor the beginning of `stream`, as one long number: a loop over bytes costs ten times as much."""
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")
