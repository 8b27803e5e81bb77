"""P-256 with somebody else's key: checking it, verifying, agreeing. Loaded for handshakes and orders, not for signing.

As in `p256`: everything long is a generator of steps; keys and signatures are bytes, big-endian.
"""

from hashlib import sha256

from laterne_firmware.p256_points import N, P, add, affine, comb_term, double, invert, signs, sum_of_multiples
from laterne_firmware.p256_scalars import KeyRefused, private_scalar, random_scalar, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.p256_points import Term
    from laterne_firmware.p256_scalars import RandomBytes

_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_WINDOW_BITS = 4
_WINDOWS = 65  # 260 bits


class FaultError(Exception):
    """A signature just made does not verify: the arithmetic was disturbed. Drop it and sign again."""


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
    scalar = private_scalar(private_key)
    x, y = check_public_key(public_key)
    multiples = yield from odd_multiples(x, y)
    part, rest = split(scalar, random)
    terms = (window_term(multiples, rest), window_term(multiples, part, 1))
    point = yield from sum_of_multiples(terms, random_scalar(random))
    x, _ = yield from affine(point, random_scalar(random))
    return x.to_bytes(32, "big")


def sign_and_check(
    private_key: bytes, public_key: bytes, message: bytes, random: "RandomBytes"
) -> "Generator[None, None, bytes]":
    """As p256.sign(), but verified before it leaves: three times the time. FaultError if it does not hold."""
    from laterne_firmware.p256 import sign

    signature = yield from sign(private_key, message, random)
    if not (yield from verify(public_key, message, signature)):
        raise FaultError("a signature just made does not verify with its public key")
    return signature


# Arithmetic ------------------------------------------------------------------------------------------------------


def square_repeatedly(number: int, times: int) -> "Generator[None, None, int]":
    for done in range(times):
        number = number * number % P
        if done % 64 == 63:
            yield
    return number


def window_term(odd_multiples: "tuple[bytes, ...]", scalar: int, doublings: int = 0) -> "Term":
    """scalar 2^doublings times a point whose `odd_multiples` are at hand: 65 digits of four neighbouring signs."""
    digits = bytearray()
    for byte in signs(scalar, _WINDOWS * _WINDOW_BITS).to_bytes(33, "little"):
        digits.append(byte & 15)
        digits.append(byte >> 4)
    return odd_multiples, bytes(digits[:_WINDOWS]), _WINDOW_BITS, doublings


def odd_multiples(x: int, y: int) -> "Generator[None, None, tuple[bytes]]":
    """1, 3 ... 15 times a point that is no secret, as a table for `_pick`.

    Its double (X, Y, Z) counts as (X, Y, 1) on the curve to which x -> x Z^2, y -> y Z^3 leads. Addition uses no
    constant of the curve, so `add` serves there too, and on the way back each sum's Z takes the factor Z.
    """
    step_x, step_y, way_back = double((x, y, 1))
    square = way_back * way_back % P
    points = [(x * square % P, y * square * way_back % P, 1)]
    while len(points) < 1 << (_WINDOW_BITS - 1):
        points.append(add(points[-1], (step_x, step_y)))
    yield
    # One division for all: of the product of all Z, from which each is won by multiplications (Montgomery's trick).
    products = [1]
    for _, _, z in points:
        products.append(products[-1] * z * way_back % P)
    inverse = yield from invert(products.pop(), P, 1)
    table = bytearray(64 * len(points))
    while points:
        x, y, z = points.pop()
        one = inverse * products.pop() % P
        inverse = inverse * z * way_back % P
        square = one * one % P
        at = 64 * len(points)
        table[at : at + 32] = (x * square % P).to_bytes(32, "big")
        table[at + 32 : at + 64] = (y * square * one % P).to_bytes(32, "big")
    return (bytes(table),)


def right_side(x: int) -> int:
    """y^2 on the curve."""
    return ((x * x - 3) * x + _B) % P
