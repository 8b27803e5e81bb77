"""P-256 on a board: making keys, signing, verifying and agreeing, in steps that let the event loop run.

Holds to SEC 1 and FIPS 186-5 (ECDSA, ECDH), RFC 6979 (deterministic nonces) and
draft-irtf-cfrg-det-sigs-with-noise (added randomness Z). It knows nothing of COSE: messages are bytes, a signature is
r and s, 32 bytes each; a private key is 32 bytes, a public key x and y, 32 bytes each, all big-endian.

Everything long is a generator that yields between its steps and returns its result:

    signature = yield from sign(...)            # in another generator
    signature = run(sign(...))                  # all at once
    signature = await run_async(sign(...))      # the event loop runs between the steps

Against listening (power, radio, timing) private operations are regular and blinded: scalars are split into two random
parts, every digit costs one addition whatever its value, points carry a random projective Z, what is inverted is first
multiplied by a random number, and so is the private key before it meets r. What is left: MicroPython's integers are
not constant in time, a table entry is read at an address that depends on a digit, and private keys lie in the heap
until their memory is used again. Who can open a post and measure many signatures needs a chip that keeps its keys
(the credential's tier says which boards have one).
"""

from hashlib import sha256

from laterne_firmware.p256_points import (
    N,
    P,
    affine,
    comb_term,
    invert,
    odd_multiples,
    right_side,
    square_repeatedly,
    sum_of_multiples,
    window_term,
)
from laterne_firmware.primitives import Hmac, RandomnessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeVar

    from laterne_firmware.p256_points import Point

    Result = TypeVar("Result")
    RandomBytes = Callable[[int], bytes]


class KeyRefused(ValueError):
    """Not a key of this curve: a point beside the curve, a number out of range, a wrong length. Do not use it."""


class FaultError(Exception):
    """A signature just made does not verify: the arithmetic was disturbed. Drop it and sign again."""


# Running the steps -----------------------------------------------------------------------------------------------


def run(steps: "Generator[None, None, Result]") -> "Result":
    """Runs all steps at once and returns their result."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: "Result" = finished.value
            return result


async def run_async(steps: "Generator[None, None, Result]") -> "Result":
    """Runs the steps and lets the event loop run between them."""
    import asyncio  # here: a script that only checks signatures needs no event loop

    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: "Result" = finished.value
            return result
        await asyncio.sleep(0)


# Keys ------------------------------------------------------------------------------------------------------------


def make_key(random: "RandomBytes") -> "Generator[None, None, tuple[bytes, bytes]]":
    """A new (private key, public key). RandomnessError if `random` gives nothing usable."""
    private_key = _random_scalar(random).to_bytes(32, "big")
    public_key = yield from public_key_of(private_key, random)
    return private_key, public_key


def public_key_of(private_key: bytes, random: "RandomBytes") -> "Generator[None, None, bytes]":
    """The public key of a private one; KeyRefused, RandomnessError."""
    point = yield from _times_base(_private_scalar(private_key), random)
    x, y = yield from affine(point, _random_scalar(random))
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")


def check_public_key(public_key: bytes) -> "tuple[int, int]":
    """The coordinates of a public key, or KeyRefused. One step; the order being prime, no more is to check."""
    if len(public_key) != 64:
        raise KeyRefused(f"a public key has 64 bytes, this one has {len(public_key)}")
    x = int.from_bytes(public_key[:32], "big")
    y = int.from_bytes(public_key[32:], "big")
    if x >= P or y >= P or (y * y - right_side(x)) % P:
        raise KeyRefused("the public key is not a point of P-256")
    return x, y


def decompress(x: bytes, odd: int = 0) -> "Generator[None, None, bytes]":
    """The public key with this x (32 bytes) and a y that is even (odd=0) or odd; KeyRefused if there is none.

    EDHOC sends x alone and takes either y (RFC 9528).
    """
    if len(x) != 32:
        raise KeyRefused(f"an x-coordinate has 32 bytes, this one has {len(x)}")
    number = int.from_bytes(x, "big")
    if number >= P:
        raise KeyRefused("the x-coordinate is not below P")
    square = right_side(number)
    # The root is square^((P+1)/4), and (P+1)/4 = 2^94 (2^96 (2^32 (2^32 - 1) + 1) + 1).
    root = square
    for length in (1, 2, 4, 8, 16):  # root = square^(2^length - 1), up to 2^32 - 1
        root = (yield from square_repeatedly(root, length)) * root % P
    for squarings in (32, 96):
        root = (yield from square_repeatedly(root, squarings)) * square % P
    root = yield from square_repeatedly(root, 94)
    if (root * root - square) % P:
        raise KeyRefused("no point of P-256 has this x-coordinate")
    if root & 1 != odd:
        root = P - root
    return x + root.to_bytes(32, "big")


# Signing, verifying, agreeing ------------------------------------------------------------------------------------


def sign(
    private_key: bytes,
    message: bytes,
    random: "RandomBytes",
    hedged: bool = True,
    check_with: "bytes | None" = None,
) -> "Generator[None, None, bytes]":
    """ECDSA with SHA-256 over the message: r and s, 64 bytes, s in the lower half of its range.

    random: used for Z and all blinding. hedged=False leaves Z out and gives exactly RFC 6979, for its test vectors.
    check_with: the public key; the new signature is verified before it leaves (three times the time), FaultError
    if it does not hold. KeyRefused, RandomnessError.
    """
    scalar = _private_scalar(private_key)
    digest = sha256(message).digest()
    z = _random_bytes(random) if hedged else b""
    for nonce in _nonces(private_key, digest, z):
        point = yield from _times_base(nonce, random)
        x, _ = yield from affine(point, _random_scalar(random))
        r = x % N
        blind = _random_scalar(random)
        inverse = yield from invert(nonce * blind % N, N, 1)
        # s = (digest + r d) / k, above and below the line times the blind: neither r nor a division meets d or k.
        s = (int.from_bytes(digest, "big") * blind + r * (scalar * blind % N)) * inverse % N
        if r and s:  # FIPS 186-5, 6.4.1 step 11; never seen by anybody
            break
    s = (s, N - s)[s > N // 2]
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    if check_with is not None and not (yield from verify(check_with, message, signature)):
        raise FaultError("a signature just made does not verify with its public key")
    return signature


def verify(public_key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
    """Whether the signature is one of this key over this message; KeyRefused if the key is none.

    Both s and N - s are accepted, as by everybody else: never compare or chain on signatures. Nothing here is
    secret, so nothing is blinded.
    """
    x, y = check_public_key(public_key)
    if len(signature) != 64:
        return False
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (0 < r < N and 0 < s < N):
        return False
    inverse = yield from invert(s, N, 1)
    base_scalar = int.from_bytes(sha256(message).digest(), "big") * inverse % N
    multiples = yield from odd_multiples(x, y)
    terms = (comb_term(base_scalar), window_term(multiples, r * inverse % N))
    big_x, _, big_z = yield from sum_of_multiples(terms, 1)
    if not big_z:
        return False
    # x mod N = r, without a division: x is r or, rarely, r + N.
    square = big_z * big_z % P
    return not (big_x - r * square) % P or (r + N < P and not (big_x - (r + N) * square) % P)


def agree(private_key: bytes, public_key: bytes, random: "RandomBytes") -> "Generator[None, None, bytes]":
    """ECDH: the x-coordinate, 32 bytes, of the private key times the peer's point; KeyRefused, RandomnessError."""
    scalar = _private_scalar(private_key)
    x, y = check_public_key(public_key)
    multiples = yield from odd_multiples(x, y)
    part, rest = _split(scalar, random)
    terms = (window_term(multiples, rest), window_term(multiples, part, 1))
    point = yield from sum_of_multiples(terms, _random_scalar(random))
    x, _ = yield from affine(point, _random_scalar(random))
    return x.to_bytes(32, "big")


# Scalars ---------------------------------------------------------------------------------------------------------


def _private_scalar(private_key: bytes) -> int:
    scalar = int.from_bytes(private_key, "big")
    if len(private_key) != 32 or not 0 < scalar < N:
        raise KeyRefused("a private key has 32 bytes and lies between 0 and the order of the curve")
    return scalar


def _random_bytes(random: "RandomBytes") -> bytes:
    made = random(32)
    if len(made) != 32:
        raise RandomnessError(f"the source of random numbers gave {len(made)} bytes instead of 32")
    return made


def _random_scalar(random: "RandomBytes") -> int:
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


def _split(scalar: int, random: "RandomBytes") -> "tuple[int, int]":
    """Two numbers, each uniformly random, with scalar = 2 part + rest.

    Not part + rest: their highest digits, added first, would be equal now and then, and adding a point to itself
    takes another formula, which an eavesdropper can tell. Here, as the terms are ordered, the sum begins with
    twice a digit, an even multiple, goes on to three times or more in the highest tooth, and never comes back to
    a single digit of the table.
    """
    part = _random_scalar(random)
    return part, (scalar - 2 * part) % N


def _times_base(scalar: int, random: "RandomBytes") -> "Generator[None, None, Point]":
    part, rest = _split(scalar, random)
    terms = (comb_term(rest), comb_term(part, 1))
    return (yield from sum_of_multiples(terms, _random_scalar(random)))
