"""Inputs out of inputs: what a seeded source of random numbers makes of the corpus when there is no atheris.

Bytes are flipped, lost, doubled, spliced; CBOR is also taken apart and given other parts, so that what comes out is
still deterministic and reaches the checks behind the decoder.
"""

import random
from collections.abc import Iterator

from tests.protocol.test_objects import damaged, flipped

from laterne_protocol import cbor
from laterne_protocol.errors import CborError

# Heads at the borders of their sizes, of every major type; what is never ours; lengths that no input has.
INTERESTING = [
    bytes.fromhex(text)
    for text in (
        *("00", "17", "18", "1800", "1817", "19ffff", "1bffffffffffffffff", "20", "37", "38", "3bffffffffffffffff"),
        *("40", "5f", "60", "6180", "7f", "80", "9f", "a0", "bf", "d2", "d818", "f4", "f5", "f6", "f7", "f97e00", "ff"),
        *("5b7fffffffffffffff", "9bffffffffffffffff", "bb0000000000000001", "81" * 10),
    )
]


def inputs(seeds: list[bytes], draw: random.Random) -> Iterator[bytes]:
    """The seeds as they are, then mutations of them without an end."""
    yield from seeds
    while True:
        data = draw.choice(seeds)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            data = mutated(data, seeds, draw)
        yield data


def mutated(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    how = draw.random()
    if not data or how < 0.05:
        return draw.randbytes(draw.randrange(40))
    at = draw.randrange(len(data) + 1)
    if how < 0.35:
        return flipped(data, draw)
    if how < 0.65:
        try:
            return cbor.encode(damaged(cbor.decode(data, tags=(18, 107)), draw))
        except CborError:
            return flipped(data, draw)
    if how < 0.75:
        return data[:at] + draw.choice(INTERESTING) + data[at + draw.randrange(3) :]
    if how < 0.85:
        end = draw.randrange(at, len(data) + 1)
        return data[:at] + data[end:] if draw.random() < 0.5 else data[:end] + data[at:]
    if how < 0.95:
        other = draw.choice(seeds)
        return data[:at] + other[draw.randrange(len(other) + 1) :]
    return data[:at]
