"""What P-256 costs on this interpreter, for tests/benchmarks/bench_p256.py."""

import gc
import os
import time

from lines import serve

# ruff: noqa: E402 - what each import leaves on the heap is measured, while there is nothing else
gc.collect()
_before = gc.mem_alloc()
import laterne_firmware.primitives
import laterne_firmware.randomness  # noqa: F401 - measured, too

gc.collect()
_after_primitives = gc.mem_alloc()
from laterne_firmware import p256, p256_table

gc.collect()
_after_p256 = gc.mem_alloc()
from laterne_firmware import p256_keys, p256_peer
from laterne_firmware.steps import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

MESSAGE = bytes(300)  # about a report
PRIVATE, PUBLIC = run(p256_keys.make_key(os.urandom))
PEER_PUBLIC = run(p256_keys.make_key(os.urandom))[1]
SIGNATURE = run(p256.sign(PRIVATE, MESSAGE, os.urandom))


def steps_of(what: str) -> "Generator[None, None, object]":
    if what == "sign":
        return p256.sign(PRIVATE, MESSAGE, os.urandom)
    if what == "sign and check":
        return p256_peer.sign_and_check(PRIVATE, PUBLIC, MESSAGE, os.urandom)
    if what == "verify":
        return p256_peer.verify(PUBLIC, MESSAGE, SIGNATURE)
    if what == "agree":
        return p256_peer.agree(PRIVATE, PEER_PUBLIC, os.urandom)
    if what == "make":
        return p256_keys.make_key(os.urandom)
    if what == "decompress":
        return p256_peer.decompress(PUBLIC[:32])
    raise ValueError(what)


def step_times(what: str) -> "tuple[int, int, int]":
    """Microseconds of all steps and of the longest, collections of garbage included, and the number of steps."""
    steps = steps_of(what)
    total = longest = count = 0
    more = True
    while more:
        started = time.ticks_us()
        try:
            next(steps)
        except StopIteration:
            more = False
        took = time.ticks_diff(time.ticks_us(), started)
        total += took
        longest = max(longest, took)
        count += 1
    return total, longest, count


def live_bytes(what: str) -> int:
    """The most that is in use between two steps, garbage not counted."""
    steps = steps_of(what)
    gc.collect()
    before = gc.mem_alloc()
    most = 0
    for _ in steps:
        gc.collect()
        most = max(most, gc.mem_alloc() - before)
    return most


def garbage_bytes(what: str) -> int:
    """All that is ever taken from the heap; needs a heap that holds it."""
    gc.collect()
    before = gc.mem_alloc()
    gc.disable()
    run(steps_of(what))
    taken: int = gc.mem_alloc() - before
    gc.enable()
    return taken


def answer(question: "dict[str, Any]") -> object:
    if "steps" in question:
        return [step_times(question["steps"]) for _ in range(question["times"])]
    if "live" in question:
        return live_bytes(question["live"])
    if "garbage" in question:
        return garbage_bytes(question["garbage"])
    return {
        "primitives": _after_primitives - _before,
        "p256": _after_p256 - _after_primitives,
        "table": sum(len(piece) for piece in p256_table.BASE_POINTS),
    }


serve(answer)
