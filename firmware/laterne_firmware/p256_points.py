"""The arithmetic under p256: sums of multiples of points of P-256, regular in time as far as Python allows.

Points are added and doubled in Jacobian coordinates (the curve's a is -3), with the number of operations fixed by
the length of a scalar, not by its value. Everything long is a generator, as in p256. Nothing here draws random
numbers or judges keys; blinds are passed in, and the caller has checked that points lie on the curve.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    Point = tuple[int, int, int]  # Jacobian: x = X/Z^2, y = Y/Z^3; Z = 0 is the point at infinity
    # Odd multiples of a point; digits, lowest first; doublings between two digits; doublings after the last.
    Term = tuple[tuple[bytes, ...], bytes, int, int]

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_TEETH = 6  # 32 points, 2 KiB of heap; 7 teeth would save an eighth of the time and cost 2 KiB more
_COLUMNS = 43  # 6 x 43 = 258 bits: a scalar made odd by adding N needs 257
_YIELD_EVERY = 4  # positions; at most 4 doublings and 8 additions, 0.15 ms on the unix port


def invert(number: int, modulus: int, blind: int) -> "Generator[None, None, int]":
    """1/number by Euclid's algorithm, which takes longer for some numbers: hence the blind, a random one.

    With a random blind the number of rounds depends on nothing but chance. blind=1 for what is not secret.
    """
    high, low = modulus, number * blind % modulus
    before, factor = 0, 1
    rounds = 0
    while low:
        quotient, rest = divmod(high, low)
        high, low = low, rest
        before, factor = factor, before - quotient * factor
        rounds += 1
        if not rounds % 64:
            yield
    return before * blind % modulus


# Digits are signed and odd, so that none is zero: a scalar k is the sum of +-2^i over all bit positions i, and a
# digit gathers some of these signs, lowest first. Its highest sign says which half of the digits it belongs to; the
# lower half mirrors the upper one, so a table holds the upper half only.


def signs(scalar: int, length: int) -> int:
    """The bits b_i with scalar = sum of (2 b_i - 1) 2^i modulo N; 0 <= scalar < N, length at least 257."""
    odd = scalar + N * (~scalar & 1)
    return (odd + (1 << length) - 1) >> 1


def comb_term(scalar: int, doublings: int = 0) -> "Term":
    """scalar 2^doublings times the base point: 43 digits of six signs, each sign 43 positions from the next."""
    # Not in memory for agreeing, which has no use for it.
    from laterne_firmware.p256_table import BASE_POINTS

    all_signs = signs(scalar, _TEETH * _COLUMNS)
    digits = bytearray(_COLUMNS)
    for tooth in range(_TEETH):
        row = all_signs >> tooth * _COLUMNS
        low = row & 0x3FFFFF  # in two parts, because a board's small integers have 31 bits
        high = row >> 22
        for column in range(22):
            digits[column] |= (low >> column & 1) << tooth
        high &= 0x1FFFFF
        for column in range(21):
            digits[column + 22] |= (high >> column & 1) << tooth
    return BASE_POINTS, bytes(digits), 1, doublings


def _pick(points: "tuple[bytes, ...]", digit: int) -> "tuple[int, int]":
    """The point that a digit stands for; as much work for every digit. points: eight of them in each piece."""
    half = 8 * len(points)
    positive = digit // half
    index = (digit ^ (positive - 1)) & (half - 1)
    piece = points[index >> 3]
    at = 64 * (index & 7)
    y = int.from_bytes(piece[at + 32 : at + 64], "big")
    return int.from_bytes(piece[at : at + 32], "big"), (P - y, y)[positive]


def sum_of_multiples(terms: "tuple[Term, ...]", blind: int) -> "Generator[None, None, Point]":
    """The sum of all terms, doublings shared. The last term reaches highest; blind becomes the first Z."""
    points, digits, spacing, doublings = terms[-1]
    top = (len(digits) - 1) * spacing + doublings
    x, y = _pick(points, digits[-1])
    square = blind * blind % P
    point = x * square % P, y * square * blind % P, blind
    terms = terms[:-1] + ((points, digits[:-1], spacing, doublings),)
    for position in range(top, -1, -1):
        if position != top:
            point = double(point)
        for points, digits, spacing, doublings in terms:
            column = (position - doublings) // spacing
            if not (position - doublings) % spacing and 0 <= column < len(digits):
                point = add(point, _pick(points, digits[column]))
        if not position % _YIELD_EVERY:
            yield
    return point


def double(point: "Point") -> "Point":
    """Right for every point of the curve, infinity included."""
    x, y, z = point
    p = P
    z_square = z * z % p
    y_square = y * y % p
    beta = 4 * x * y_square % p
    alpha = 3 * (x - z_square) * (x + z_square) % p
    x3 = (alpha * alpha - 2 * beta) % p
    return x3, (alpha * (beta - x3) - 8 * y_square * y_square) % p, 2 * y * z % p


def add(point: "Point", other: "tuple[int, int]") -> "Point":
    """point + other, which has Z = 1.

    The three special cases below are met with hostile signatures; a private operation meets them with a chance of
    2^-200 (`split` in p256 says why), so that these branches tell nothing.
    """
    x1, y1, z1 = point
    x2, y2 = other
    p = P
    z_square = z1 * z1 % p
    h = (x2 * z_square - x1) % p
    r = (y2 * (z_square * z1 % p) - y1) % p
    if not z1:  # infinity + other
        return x2, y2, 1
    if not h:  # the same x: other is point itself, or its opposite
        return (1, 1, 0) if r else double(point)
    h_square = h * h % p
    h_cube = h_square * h % p
    v = x1 * h_square % p
    x3 = (r * r - h_cube - 2 * v) % p
    return x3, (r * (v - x3) - y1 * h_cube) % p, z1 * h % p


def affine(point: "Point", blind: int) -> "Generator[None, None, tuple[int, int]]":
    """x and y. ZeroDivisionError for the point at infinity, which no scalar from 1 to N - 1 leads to."""
    x, y, z = point
    if not z:
        raise ZeroDivisionError("the point at infinity has no coordinates")
    inverse = yield from invert(z, P, blind)
    square = inverse * inverse % P
    return x * square % P, y * square * inverse % P
