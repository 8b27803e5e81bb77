"""The keys of a new board: made at its first start, in steps, so that line and watchdog go on. Then unloaded.

A rotation makes its next ones here, too.
"""

from laterne_firmware import p256_keys
from laterne_firmware.identity import KEYS
from laterne_firmware.store import Record
from laterne_protocol import public_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.identity import Identity


def pairs(random: "Callable[[int], bytes]") -> "Generator[None, None, bytes]":
    """Both key pairs and the kid of the first, as they stand on flash (identity.KEYS)."""
    private_sign, sign_key = yield from p256_keys.make_key(random)
    private_agree, agree_key = yield from p256_keys.make_key(random)
    return private_sign + sign_key + private_agree + agree_key + public_keys.kid(sign_key)


def make(identity: "Identity", random: "Callable[[int], bytes]") -> "Generator[None, None, None]":
    """Makes both key pairs, stores them and hands them to the identity. OSError when the flash refuses."""
    keys = yield from pairs(random)
    Record(KEYS).save(keys)
    identity.take_keys(keys)
