"""HMAC-SHA-256 (RFC 2104), over which this board signs and draws random numbers.

What only sessions need, AES-CCM and HKDF, stands in `ciphers`.
"""

from hashlib import sha256

_BLOCK_BYTES = 64  # SHA-256's block, the width of HMAC's pads


class Hmac:
    """HMAC-SHA-256 under one key.

    The two padded keys are kept: MicroPython's hash objects cannot be copied, so each message hashes its pads
    again, but nothing is padded twice.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = sha256(key).digest()
        padded = int.from_bytes(key + bytes(_BLOCK_BYTES - len(key)), "big")
        self._inner = _padded_with(b"\x36", padded)
        self._outer = _padded_with(b"\x5c", padded)

    def digest(self, *parts: bytes) -> bytes:
        """The 32 bytes of HMAC over the parts, one after the other."""
        inner = sha256(self._inner)
        for part in parts:
            inner.update(part)
        outer = sha256(self._outer)
        outer.update(inner.digest())
        return outer.digest()


def _padded_with(pad: bytes, padded: int) -> bytes:
    return (padded ^ int.from_bytes(pad * _BLOCK_BYTES, "big")).to_bytes(_BLOCK_BYTES, "big")
