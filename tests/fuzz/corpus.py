"""What the fuzzers begin with: the vectors of protocol/vectors, and the handshake and records of RFC 9529's trace.

Made anew at every start, so that a vector added today is fuzzed today; nothing of it is kept in the repository.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
MAX_SEED_BYTES = 4096  # a roster of 256 boards has 40,000: so long an input makes a fuzzer slow and finds nothing more

# Target: (file, kinds) of its vectors.
KINDS = {
    "cbor": ("cbor", ("cbor",)),
    "frame": ("frame", ("frames",)),
    "message": ("messages", ("message",)),
    "cose": ("cose", ("sign1",)),
    "report": ("report", ("report",)),
    "credential": ("credential", ("credential",)),
    "possession": ("credential", ("possession",)),
    "order": ("order", ("order",)),
    "receipt": ("receipt", ("receipt",)),
    "grant": ("grant", ("grant",)),
    "roster": ("roster", ("roster",)),
    "trust": ("trust", ("trust",)),
    "trust-file": ("trust", ("trust file",)),
    "bundle": ("trust", ("trust bundle",)),
    "gateway": ("gateway", ("gateway",)),
    "envelope": ("envelope", ("envelope",)),
    "index": ("index", ("index",)),
}


@functools.cache
def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


@functools.cache
def edhoc_vectors() -> dict[str, Any]:
    """RFC 9529: its trace, and the messages that nobody may take."""
    found: dict[str, Any] = json.loads((VECTORS / "rfc" / "edhoc.json").read_text(encoding="utf-8"))
    return found


def good(kind: str) -> list[bytes]:
    """The vectors of a kind that are taken."""
    return [
        bytes.fromhex(one["hex"])
        for file, kinds in dict.fromkeys(KINDS.values())
        if kind in kinds
        for one in vectors(file)
        if one["kind"] == kind and "refused" not in one["gives"]
    ]


def of_vectors(target: str) -> list[bytes]:
    """The inputs of a target that reads one kind of bytes: all of its vectors, those that are refused too."""
    file, kinds = KINDS[target]
    found = [bytes.fromhex(one["hex"]) for one in vectors(file) if one["kind"] in kinds]
    return [data for data in found if len(data) <= MAX_SEED_BYTES]


def write(folder: Path, seeds: list[bytes]) -> None:
    """The seeds as files, named as libFuzzer names what it finds; what it found before stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
