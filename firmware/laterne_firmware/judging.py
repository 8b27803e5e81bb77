"""Signed objects are judged without their readers and the arithmetic being in memory together.

Whoever judges asks `verify` for each signature. If it is not known yet, the judging is broken off, its modules leave
memory, the one signature is verified, and the judging begins again: reading costs milliseconds, verifying more than a
second. So nothing may be stored, and nothing be said, before the last signature has been asked for.
"""

from hashlib import sha256

from laterne_firmware.identity import unload_arithmetic
from laterne_firmware.memory import unload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeVar

    from laterne_firmware.sessions import Sessions

    Judgement = TypeVar("Judgement")

UPDATE = 26  # as in sessions
READERS = (
    "laterne_firmware.release_check",
    "laterne_protocol.manifest",
    "laterne_firmware.introductions",
    "laterne_firmware.known_gateway",
    "laterne_protocol.gateway_credential",
    "laterne_protocol.trust",
    "laterne_protocol.public_keys",
    "laterne_protocol.cose",
)
_verified = {}  # type: dict[bytes, bool]  # digest of key, message and signature -> whether they belong together


class Wanted(Exception):
    """A signature that is not verified yet: key, message, signature."""

    def __init__(self, key: bytes, message: bytes, signature: bytes) -> None:
        self.check = key, message, signature


def work(sessions: "Sessions", step: int, body: bytes) -> "Generator[None, None, bytes | None]":
    """As introductions.work(), or release_check.work()."""

    def begin() -> "Generator[None, None, bytes | None]":
        if step == UPDATE:
            from laterne_firmware import release_check

            return release_check.work(sessions, body)
        from laterne_firmware import introductions

        return introductions.work(sessions, step, body)

    return (yield from judged(begin))


def judged(begin: "Callable[[], Generator[None, None, Judgement]]") -> "Generator[None, None, Judgement]":
    """What comes of the steps that begin() gives; it is called again for each signature that it asks for."""
    while True:
        unload_arithmetic()
        try:
            return (yield from begin())
        except Wanted as why:
            key, message, signature = why.check
        unload(*READERS)
        _verified[_name(key, message, signature)] = yield from _verify(key, message, signature)


def _verify(key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
    from laterne_firmware import p256_peer
    from laterne_firmware.p256_scalars import KeyRefused

    try:
        return (yield from p256_peer.verify(key, message, signature))
    except KeyRefused:
        return False  # no signature belongs to what is no key


def verify(key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
    """As p256_peer.verify(), in judged() only."""
    known = _verified.get(_name(key, message, signature))
    if known is None:
        raise Wanted(key, message, signature)
    return known
    yield


def _name(key: bytes, message: bytes, signature: bytes) -> bytes:
    return sha256(key + signature + message).digest()  # the first two have 64 bytes each
