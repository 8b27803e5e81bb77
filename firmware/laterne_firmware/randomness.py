"""Random numbers fit for keys: an HMAC_DRBG (NIST SP 800-90A, 10.1.2) that several sources feed.

Where fresh entropy comes from and how it is tested stands in `entropy`, which is loaded for that and unloaded again.
This module reads no flash, no pin and no generator by itself: the sources are passed in, and the caller stores the
next seed.
"""

from laterne_firmware.memory import unload
from laterne_firmware.primitives import Hmac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REQUEST_BYTES = 65536  # SP 800-90A, table 2: 2^19 bits for one request
RESEED_AFTER_CALLS = 256  # far below the 2^48 of SP 800-90A: a state that leaked is worth little after that
SEED_BYTES = 32


class RandomnessError(Exception):
    """The source of random numbers is broken or not ready: make no key and no signature with it."""


class HmacDrbg:
    """HMAC_DRBG with SHA-256: the algorithm only; `Random` below decides what feeds it."""

    def __init__(self, seed: bytes) -> None:
        """seed: entropy, nonce and personalization, one after the other."""
        self._hmac = Hmac(bytes(SEED_BYTES))
        self._value = b"\x01" * SEED_BYTES
        self.update(seed)

    def generate(self, count: int, additional: bytes = b"") -> bytes:
        """10.1.2.5: `count` bytes; ValueError above 65,536."""
        if not 0 <= count <= MAX_REQUEST_BYTES:
            raise ValueError("one request gives at most %d random bytes, not %d" % (MAX_REQUEST_BYTES, count))
        if additional:
            self.update(additional)
        made = b""
        while len(made) < count:
            self._value = self._hmac.digest(self._value)
            made += self._value
        self.update(additional)
        return made[:count]

    def update(self, data: bytes) -> None:
        """10.1.2.2; with entropy, and additional input after it, this is the reseeding of 10.1.2.4."""
        for mark in (b"\x00", b"\x01") if data else (b"\x00",):
            self._hmac = Hmac(self._hmac.digest(self._value, mark, data))
            self._value = self._hmac.digest(self._value)


class Random:
    """Random bytes fit for keys on a board whose own generator is not (RP2040: a stirred PRNG).

    What is fed in: the seed stored by the boot before (the first one comes from enrolment), the boot count, the
    port's generator, the low bits of an open ADC input if there is one, and the chip's id. Any one of the secret
    ones being good is enough; a board without a stored seed rests on the generator and the noise alone.

    Order: make it; store `next_seed()` where the next boot finds it; then call it for bytes. Calls before that,
    and all calls after the generator has failed its health test, raise RandomnessError: a power cut must never bring
    a state back.

    generator: `os.urandom`. noise: one sample of a noisy measurement, 0 to 255; None when there is none, or none any
    more. log: told when the noise is left out. tested: what the health tests know of the two.
    """

    def __init__(
        self,
        stored_seed: bytes,
        boot_count: int,
        device_id: bytes,
        generator: "Callable[[int], bytes]",
        noise: "Callable[[], int] | None",
        log: "Callable[[str], None]",
    ) -> None:
        """stored_seed: 32 bytes, or none at the very first start. ValueError for a seed of another length,
        RandomnessError if the generator fails."""
        self.generator = generator
        self.noise = noise
        self.log = log
        self.tested = [(), ()]  # type: list[tuple[int, ...]]
        self._calls = 0
        self._seed_taken = False
        self._failure = ""
        from laterne_firmware import entropy

        self._drbg = HmacDrbg(entropy.first_seed(self, stored_seed, boot_count, device_id))

    def next_seed(self) -> bytes:
        """The 32 bytes to store for the next boot, before the first random byte is used."""
        seed = self._generate(SEED_BYTES)
        self._seed_taken = True
        return seed

    def __call__(self, count: int) -> bytes:
        """`count` random bytes; ValueError above 65,536, RandomnessError as above."""
        if not self._seed_taken:
            raise RandomnessError("no random numbers before the next seed is stored: call next_seed() first")
        return self._generate(count)

    def reseed(self) -> None:
        """Mixes in fresh samples; it happens by itself every 256 calls."""
        from laterne_firmware import entropy

        try:
            self._drbg.update(entropy.fresh(self))
        except RandomnessError as why:
            self._failure = str(why)  # for good: a broken generator may look sound later
            raise
        self._calls = 0
        unload("laterne_firmware.entropy")

    def _generate(self, count: int) -> bytes:
        if self._failure:
            raise RandomnessError(self._failure)
        if self._calls >= RESEED_AFTER_CALLS:
            self.reseed()
        self._calls += 1
        return self._drbg.generate(count)
