"""The gateway's primitives as the tests of handshakes and sessions on CPython want them, and how to run their steps."""

from collections.abc import Generator
from typing import TypeVar

from laterne_gateway.primitives import (
    PRIMITIVES,
    agree,
    ccm_open,
    ccm_seal,
    decompress,
    hkdf_expand,
    hkdf_extract,
    make_key,
)

__all__ = [
    "PRIMITIVES",
    "agree",
    "ccm_open",
    "ccm_seal",
    "decompress",
    "hkdf_expand",
    "hkdf_extract",
    "make_key",
    "new_key",
    "run",
]

Result = TypeVar("Result")


def run(steps: Generator[None, None, Result]) -> Result:
    """Runs all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: Result = finished.value
            return result


def new_key() -> tuple[bytes, bytes]:
    """A private key (32 bytes) and its public key (64 bytes)."""
    return run(make_key())
