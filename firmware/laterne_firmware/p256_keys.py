"""Making key pairs of P-256: a board does it once, at its first start, and for each handshake.

As in `p256`: steps, and the same care against listening.
"""

from laterne_firmware.p256_points import affine
from laterne_firmware.p256_scalars import private_scalar, random_scalar, times_base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.p256_scalars import RandomBytes


def make_key(random: "RandomBytes") -> "Generator[None, None, tuple[bytes, bytes]]":
    """A new (private key, public key). RandomnessError if `random` gives nothing usable."""
    private_key = random_scalar(random).to_bytes(32, "big")
    public_key = yield from public_key_of(private_key, random)
    return private_key, public_key


def public_key_of(private_key: bytes, random: "RandomBytes") -> "Generator[None, None, bytes]":
    """The public key of a private one; KeyRefused, RandomnessError."""
    point = yield from times_base(private_scalar(private_key), random)
    x, y = yield from affine(point, random_scalar(random))
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")
