"""Ciphers, keyed hashes and random numbers on the board, for test_primitives.py: {"do": name, ...}, bytes as hex."""

import os
from hashlib import sha256

from lines import serve

from laterne_firmware import ciphers, primitives, randomness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Numbers:
    """A generator that behaves as named, `os.urandom` otherwise; it fails after so many good samples."""

    def __init__(self, behaviour: str, good_bytes: int) -> None:
        self._behaviour = behaviour
        self._good = good_bytes
        self._count = 0

    def __call__(self, size: int) -> bytes:
        made = b""
        while len(made) < size:
            self._count += 1
            made += sha256(b"numbers" + self._count.to_bytes(4, "big")).digest()
        made = made[:size]
        self._good -= size
        if self._good >= 0 or self._behaviour == "sound":
            return made
        if self._behaviour == "stands still":
            return bytes(size)
        if self._behaviour == "favours one value":  # every fourth byte is 7: 64 of 512 would be 2 by chance
            return bytes([7 if index % 4 == 0 else byte for index, byte in enumerate(made)])
        if self._behaviour == "too short":
            return made[:-1]
        raise ValueError(self._behaviour)


class Noise:
    """Samples of a noisy input; `constant` is one that is not connected."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour

    def __call__(self) -> int:
        return 128 if self._behaviour == "constant" else os.urandom(1)[0] & 15


kept: "dict[str, Any]" = {}
said = []  # type: list[str]


def make_random(question: "dict[str, Any]") -> None:
    behaviour = question.get("generator", "sound")
    numbers = Numbers(behaviour, question.get("good_bytes", 0))
    said[:] = []
    noise = Noise(question["noise"]) if "noise" in question else None
    kept["random"] = randomness.Random(
        bytes.fromhex(question.get("seed", "")),
        question.get("boot_count", 1),
        bytes.fromhex(question.get("device_id", "e6614103e7")),
        numbers,
        noise,
        said.append,
    )


def answer(question: "dict[str, Any]") -> object:
    what = question["do"]
    if what == "hmac":
        return primitives.Hmac(bytes.fromhex(question["key"])).digest(bytes.fromhex(question["message"])).hex()
    if what == "hkdf":
        key = ciphers.hkdf_extract(bytes.fromhex(question["salt"]), bytes.fromhex(question["secret"]))
        return ciphers.hkdf_expand(key, bytes.fromhex(question["info"]), question["size"]).hex()
    if what in ("seal", "open"):
        function = ciphers.ccm_seal if what == "seal" else ciphers.ccm_open
        key, nonce, text, associated = [
            bytes.fromhex(question[name]) for name in ("key", "nonce", "text", "associated")
        ]
        return function(key, nonce, text, associated, question["tag_bytes"]).hex()
    if what == "equal":
        return ciphers.equal(bytes.fromhex(question["left"]), bytes.fromhex(question["right"]))
    if what == "drbg":
        drbg = randomness.HmacDrbg(bytes.fromhex(question["seed"]))
        if question["reseed"]:
            drbg.update(bytes.fromhex(question["reseed"]))
        first, second = (bytes.fromhex(additional) for additional in question["additional"])
        drbg.generate(question["size"], first)
        return drbg.generate(question["size"], second).hex()
    if what == "make random":
        make_random(question)
        return True
    if what == "next seed":
        return kept["random"].next_seed().hex()
    if what == "random":
        return kept["random"](question["count"]).hex()
    if what == "said":
        return said
    if what == "reseed":
        kept["random"].reseed()
        return True
    raise ValueError(what)


serve(answer)
