"""How often a property is tried, and with which seed.

Every run tries the same examples. LATERNE_SEED=random tries others, and hypothesis prints how to have a failure again;
LATERNE_SEED=NUMBER does so for the tests that draw from `source()`. Their failures name the seed.
"""

import os
import random

from hypothesis import settings

SEED = os.environ.get("LATERNE_SEED", "2026")

PROPERTY = settings(deadline=None, print_blob=True, derandomize=SEED == "2026", max_examples=300)
THOROUGH = settings(PROPERTY, max_examples=1000)


def source() -> random.Random:
    """A source of random numbers; its seed is on stdout, which pytest shows with a failure."""
    seed = random.randrange(2**32) if SEED == "random" else int(SEED)
    print(f"LATERNE_SEED={seed}")
    return random.Random(seed)
