"""Secret numbers of P-256: checked, drawn, split, and times the base point. For signing and for agreeing alike.

As in `p256`, which says against what the splitting helps.
"""

from laterne_firmware.p256_points import N, comb_term, sum_of_multiples
from laterne_firmware.randomness import RandomnessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.p256_points import Point

    RandomBytes = Callable[[int], bytes]


class KeyRefused(ValueError):
    """Not a key of this curve: a point beside the curve, a number out of range, a wrong length. Do not use it."""


def private_scalar(private_key: bytes) -> int:
    scalar = int.from_bytes(private_key, "big")
    if len(private_key) != 32 or not 0 < scalar < N:
        raise KeyRefused("a private key has 32 bytes and lies between 0 and the order of the curve")
    return scalar


def random_bytes(random: "RandomBytes") -> bytes:
    made = random(32)
    if len(made) != 32:
        raise RandomnessError(f"the source of random numbers gave {len(made)} bytes instead of 32")
    return made


def random_scalar(random: "RandomBytes") -> int:
    """A number from 1 to N - 1, each equally likely."""
    for _ in range(4):  # one candidate in 2^32 is refused: four in a row are a broken source
        number = int.from_bytes(random_bytes(random), "big")
        if 0 < number < N:
            return number
    raise RandomnessError("the source of random numbers gave nothing below the order of the curve")


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
