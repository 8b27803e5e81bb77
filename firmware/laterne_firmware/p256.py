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

from laterne_firmware.p256_points import N, affine, comb_term, invert, sum_of_multiples
from laterne_firmware.primitives import Hmac
from laterne_firmware.randomness import RandomnessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.p256_points import Point

    RandomBytes = Callable[[int], bytes]


class KeyRefused(ValueError):
    """Not a key of this curve: a point beside the curve, a number out of range, a wrong length. Do not use it."""


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
    z = _random_bytes(random) if hedged else b""
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


def private_scalar(private_key: bytes) -> int:
    scalar = int.from_bytes(private_key, "big")
    if len(private_key) != 32 or not 0 < scalar < N:
        raise KeyRefused("a private key has 32 bytes and lies between 0 and the order of the curve")
    return scalar


def _random_bytes(random: "RandomBytes") -> bytes:
    made = random(32)
    if len(made) != 32:
        raise RandomnessError(f"the source of random numbers gave {len(made)} bytes instead of 32")
    return made


def random_scalar(random: "RandomBytes") -> int:
    """A number from 1 to N - 1, each equally likely."""
    for _ in range(4):  # one candidate in 2^32 is refused: four in a row are a broken source
        number = int.from_bytes(_random_bytes(random), "big")
        if 0 < number < N:
            return number
    raise RandomnessError("the source of random numbers gave nothing below the order of the curve")


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


def split(scalar: int, random: "RandomBytes") -> "tuple[int, int]":
    """Two numbers, each uniformly random, with scalar = 2 part + rest.

    Not part + rest: their highest digits, added first, would be equal now and then, and adding a point to itself
    takes another formula, which an eavesdropper can tell. Here, as the terms are ordered, the sum begins with
    twice a digit, an even multiple, goes on to three times or more in the highest tooth, and never comes back to
    a single digit of the table.
    """
    part = random_scalar(random)
    return part, (scalar - 2 * part) % N


def times_base(scalar: int, random: "RandomBytes") -> "Generator[None, None, Point]":
    part, rest = split(scalar, random)
    terms = (comb_term(rest), comb_term(part, 1))
    return (yield from sum_of_multiples(terms, random_scalar(random)))
