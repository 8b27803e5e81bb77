"""P-256 on the board, for test_p256.py: {"do": name, ...} with bytes as hex."""

import asyncio
import os
from hashlib import sha256

from lines import serve

from laterne_firmware import p256, p256_keys, p256_peer
from laterne_firmware.steps import run
from laterne_firmware.supervisor import stepping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any


class Repeatable:
    """Random bytes that a test can have again: SHA-256 of a seed and a counter."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        assert size == 32
        self._count += 1
        return sha256(self._seed + bytes((self._count,))).digest()


def source(question: "dict[str, Any]") -> "Callable[[int], bytes]":
    """What `random` names: nothing for the system's, {"repeat": seed}, {"broken": hex of what it always gives}."""
    kind = question.get("random")
    if kind is None:
        return os.urandom
    if "repeat" in kind:
        return Repeatable(bytes.fromhex(kind["repeat"]))
    constant = bytes.fromhex(kind["broken"])
    return lambda size: constant


async def beside(steps: "Generator[None, None, bytes]") -> "list[object]":
    """Runs steps while another task counts how often it gets its turn."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    result = await stepping(steps, lambda: None)
    task.cancel()
    return [result.hex(), turns]


def answer(question: "dict[str, Any]") -> object:
    what = question["do"]
    given = {
        name: bytes.fromhex(question[name])
        for name in ("private", "public", "message", "signature", "x")
        if name in question
    }
    random = source(question)
    if what == "verify":
        return run(p256_peer.verify(given["public"], given["message"], given["signature"]))
    if what == "sign":
        if "public" in given:
            return run(p256_peer.sign_and_check(given["private"], given["public"], given["message"], random)).hex()
        return run(p256.sign(given["private"], given["message"], random, question.get("hedged", True))).hex()
    if what == "sign beside":
        return asyncio.run(beside(p256.sign(given["private"], given["message"], random)))
    if what == "agree":
        return run(p256_peer.agree(given["private"], given["public"], random)).hex()
    if what == "decompress":
        return run(p256_peer.decompress(given["x"], question["odd"])).hex()
    if what == "make":
        return [part.hex() for part in run(p256_keys.make_key(random))]
    if what == "public":
        return run(p256_keys.public_key_of(given["private"], random)).hex()
    if what == "check":
        p256_peer.check_public_key(given["public"])
        return True
    raise ValueError(what)


serve(answer)
