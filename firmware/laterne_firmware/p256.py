"""P-256 on a board: signing, in steps that let the event loop run. Its own keys are made in `p256_keys`, what needs
somebody else's key (verifying, agreeing) stands in `p256_peer`; a running board signs and needs neither.

Holds to SEC 1 and FIPS 186-5 (ECDSA, ECDH), RFC 6979 (deterministic nonces) and
draft-irtf-cfrg-det-sigs-with-noise (added randomness Z). It knows nothing of COSE: messages are bytes, a signature is
r and s, 32 bytes each; a private key is 32 bytes, a public key x and y, 32 bytes each, all big-endian.

Everything long is a generator that yields between its steps and returns its result:

    signature = yield from sign(...)                    # in another generator
    signature = await stepping(sign(...), beat)         # supervisor.py: the event loop runs between the steps

Against listening (power, radio, timing) private operations are regular and blinded: scalars are split into two random
parts, every digit costs one addition whatever its value, points carry a random projective Z, what is inverted is first
multiplied by a random number, and so is the private key before it meets r. What is left: MicroPython's integers are
not constant in time, a table entry is read at an address that depends on a digit, and private keys lie in the heap
until their memory is used again. Who can open a post and measure many signatures needs a chip that keeps its keys
(the credential's tier says which boards have one).
"""

from hashlib import sha256

from laterne_firmware.p256_points import N, affine, invert
from laterne_firmware.p256_scalars import KeyRefused, private_scalar, random_bytes, random_scalar, times_base
from laterne_firmware.primitives import Hmac

__all__ = ("KeyRefused", "sign")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.p256_scalars import RandomBytes


def sign(
    private_key: bytes,
    message: bytes,
    random: "RandomBytes",
    hedged: bool = True,
) -> "Generator[None, None, bytes]":
    """ECDSA with SHA-256 over the message: r and s, 64 bytes, s in the lower half of its range.

    random: used for Z and all blinding. hedged=False leaves Z out and gives exactly RFC 6979, for its test vectors.
    KeyRefused, RandomnessError.
    """
    scalar = private_scalar(private_key)
    digest = sha256(message).digest()
    z = random_bytes(random) if hedged else b""
    for nonce in _nonces(private_key, digest, z):
        point = yield from times_base(nonce, random)
        x, _ = yield from affine(point, random_scalar(random))
        r = x % N
        blind = random_scalar(random)
        inverse = yield from invert(nonce * blind % N, N, 1)
        # s = (digest + r d) / k, above and below the line times the blind: neither r nor a division meets d or k.
        s = (int.from_bytes(digest, "big") * blind + r * (scalar * blind % N)) * inverse % N
        if r and s:  # FIPS 186-5, 6.4.1 step 11; never seen by anybody
            break
    s = (s, N - s)[s > N // 2]
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _nonces(private_key: bytes, digest: bytes, z: bytes) -> "Generator[int, None, None]":
    """RFC 6979, 3.2: the candidates for k, in order. With Z: draft-irtf-cfrg-det-sigs-with-noise, steps d and f."""
    reduced = (int.from_bytes(digest, "big") % N).to_bytes(32, "big")  # bits2octets
    if z:
        # V, mark and Z fill whole blocks of the hash, and so does the key: the secret parts meet no chosen bytes.
        inputs = z + bytes(128 - 32 - 1 - len(z)) + private_key + bytes(64 - 32) + reduced
    else:
        inputs = private_key + reduced
    value = b"\x01" * 32
    hmac = Hmac(bytes(32))
    for mark in (b"\x00", b"\x01"):
        hmac = Hmac(hmac.digest(value, mark, inputs))
        value = hmac.digest(value)
    while True:
        value = hmac.digest(value)
        nonce = int.from_bytes(value, "big")
        if 0 < nonce < N:
            yield nonce
        hmac = Hmac(hmac.digest(value, b"\x00"))
        value = hmac.digest(value)
