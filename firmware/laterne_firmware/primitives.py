"""What a board has beside P-256: keyed hashes, key derivation, AES-CCM and random numbers fit for keys.

Holds to RFC 2104 (HMAC), RFC 5869 (HKDF), RFC 3610 (CCM), NIST SP 800-90A 10.1.2 (HMAC_DRBG) and SP 800-90B 4.4
(health tests), all over SHA-256 and `cryptolib`. It reads no flash, no pin and no generator by itself: the sources of
noise are passed in, and the caller stores the next seed.
"""

from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HASH_BYTES = 32
_BLOCK_BYTES = 64  # SHA-256's block, the width of HMAC's pads
_INNER_PAD = int.from_bytes(b"\x36" * _BLOCK_BYTES, "big")
_OUTER_PAD = int.from_bytes(b"\x5c" * _BLOCK_BYTES, "big")

_AES_ECB = 1
_AES_CBC = 2
_AES_BLOCK = 16
MAX_CCM_BYTES = 65535  # of message; a frame carries 1,024. Block numbers then fit two bytes for every nonce length.
MAX_CCM_ASSOCIATED_BYTES = 65279  # 0xFEFF: longer ones have another length field (RFC 3610, 2.2), nobody needs it

MAX_REQUEST_BYTES = 65536  # SP 800-90A, table 2: 2^19 bits for one request


class AuthenticationError(ValueError):
    """Sealed bytes that our key did not seal: drop them, nothing of them was opened."""


class RandomnessError(Exception):
    """The source of random numbers is broken or not ready: make no key and no signature with it."""


def equal(left: bytes, right: bytes) -> bool:
    """Whether two byte strings are equal, in a time that does not say where they differ."""
    difference = len(left) ^ len(right)
    for a, b in zip(left, right):  # noqa: B905 - MicroPython's zip has no `strict`; lengths are compared above
        difference |= a ^ b
    return difference == 0


# HMAC and HKDF ---------------------------------------------------------------------------------------------------


class Hmac:
    """HMAC-SHA-256 under one key.

    The two padded keys are kept: MicroPython's hash objects cannot be copied, so each message hashes its pads
    again, but nothing is padded twice.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = sha256(key).digest()
        padded = int.from_bytes(key + bytes(_BLOCK_BYTES - len(key)), "big")
        self._inner = (padded ^ _INNER_PAD).to_bytes(_BLOCK_BYTES, "big")
        self._outer = (padded ^ _OUTER_PAD).to_bytes(_BLOCK_BYTES, "big")

    def digest(self, *parts: bytes) -> bytes:
        """The 32 bytes of HMAC over the parts, one after the other."""
        inner = sha256(self._inner)
        for part in parts:
            inner.update(part)
        outer = sha256(self._outer)
        outer.update(inner.digest())
        return outer.digest()


def hkdf_extract(salt: bytes, secret: bytes) -> bytes:
    """RFC 5869, 2.2: a 32-byte pseudorandom key. An empty salt counts as 32 zero bytes."""
    return Hmac(salt).digest(secret)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, 2.3: `length` bytes (at most 8,160) from a pseudorandom key; ValueError if more are asked for."""
    if not 0 <= length <= 255 * HASH_BYTES:
        raise ValueError(f"HKDF gives at most {255 * HASH_BYTES} bytes, not {length}")
    hmac = Hmac(key)
    block = b""
    made = b""
    while len(made) < length:
        block = hmac.digest(block, info, bytes((len(made) // HASH_BYTES + 1,)))
        made += block
    return made[:length]


# AES-CCM ---------------------------------------------------------------------------------------------------------


def ccm_seal(key: bytes, nonce: bytes, message: bytes, associated: bytes = b"", tag_bytes: int = 8) -> bytes:
    """The encrypted message followed by its tag.

    key: 16 or 32 bytes; nonce: 7 to 13 bytes, never used twice under one key; tag: 4, 6 ... 16 bytes.
    The defaults with a 13-byte nonce are AES-CCM-16-64-128 (COSE 10). ValueError if a length is not one of these.
    """
    _check_ccm_lengths(key, nonce, len(message), associated, tag_bytes)
    stream = _ccm_stream(key, nonce, len(message))
    tag = _xor(_ccm_mac(key, nonce, message, associated, tag_bytes)[:tag_bytes], stream[:tag_bytes])
    return _xor(message, stream[_AES_BLOCK:]) + tag


def ccm_open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes = b"", tag_bytes: int = 8) -> bytes:
    """The message, or AuthenticationError; lengths as in `ccm_seal` (ValueError)."""
    length = len(sealed) - tag_bytes
    if length < 0:
        raise AuthenticationError(f"{len(sealed)} sealed bytes are shorter than their tag of {tag_bytes}")
    _check_ccm_lengths(key, nonce, length, associated, tag_bytes)
    stream = _ccm_stream(key, nonce, length)
    message = _xor(sealed[:length], stream[_AES_BLOCK:])
    tag = _xor(_ccm_mac(key, nonce, message, associated, tag_bytes)[:tag_bytes], stream[:tag_bytes])
    if not equal(tag, sealed[length:]):
        raise AuthenticationError("the tag does not belong to these bytes, this nonce and this key")
    return message


def _check_ccm_lengths(key: bytes, nonce: bytes, length: int, associated: bytes, tag_bytes: int) -> None:
    if len(key) not in (16, 32):
        raise ValueError(f"an AES key here has 16 or 32 bytes, not {len(key)}")
    if not 7 <= len(nonce) <= 13:
        raise ValueError(f"a CCM nonce has 7 to 13 bytes, not {len(nonce)}")
    if tag_bytes not in (4, 6, 8, 10, 12, 14, 16):
        raise ValueError(f"a CCM tag has 4, 6, 8, 10, 12, 14 or 16 bytes, not {tag_bytes}")
    if length > MAX_CCM_BYTES or len(associated) > MAX_CCM_ASSOCIATED_BYTES:
        raise ValueError(f"{length} bytes with {len(associated)} associated bytes are too many for one message")


def _ccm_mac(key: bytes, nonce: bytes, message: bytes, associated: bytes, tag_bytes: int) -> bytes:
    """RFC 3610, 2.2: the CBC-MAC, 16 bytes, not yet encrypted."""
    # cryptolib is not imported above: p256 is also tested on CPython, and needs only this file's Hmac there.
    from cryptolib import aes

    width = 15 - len(nonce)  # of the length field, called L in the RFC
    flags = 64 * (len(associated) > 0) + 8 * ((tag_bytes - 2) // 2) + width - 1
    blocks = bytearray((flags,)) + nonce + len(message).to_bytes(width, "big")
    if associated:
        blocks += len(associated).to_bytes(2, "big") + associated
        blocks += bytes(-len(blocks) % _AES_BLOCK)
    blocks += message
    blocks += bytes(-len(blocks) % _AES_BLOCK)
    # An object keeps its chaining state and works in one direction: a new one for each message.
    aes(key, _AES_CBC, bytes(_AES_BLOCK)).encrypt(blocks, blocks)
    return bytes(blocks[-_AES_BLOCK:])


def _ccm_stream(key: bytes, nonce: bytes, length: int) -> bytes:
    """RFC 3610, 2.3: S_0, S_1 ... for `length` bytes of message. One ECB call over all counter blocks."""
    from cryptolib import aes

    count = 1 + (length + _AES_BLOCK - 1) // _AES_BLOCK
    width = 15 - len(nonce)
    blocks = bytearray((bytes((width - 1,)) + nonce + bytes(width)) * count)
    for number in range(1, count):
        blocks[number * _AES_BLOCK + 14] = number >> 8
        blocks[number * _AES_BLOCK + 15] = number & 255
    aes(key, _AES_ECB).encrypt(blocks, blocks)
    return bytes(blocks)


def _xor(data: bytes, stream: bytes) -> bytes:
    """`data` xor the beginning of `stream`, as one long number: a loop over bytes costs ten times as much."""
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")


# Random numbers --------------------------------------------------------------------------------------------------


class HmacDrbg:
    """HMAC_DRBG with SHA-256 (SP 800-90A 10.1.2): the algorithm only; `Random` below decides what feeds it."""

    def __init__(self, seed: bytes) -> None:
        """seed: entropy, nonce and personalization, one after the other."""
        self._hmac = Hmac(bytes(HASH_BYTES))
        self._value = b"\x01" * HASH_BYTES
        self._update(seed)

    def reseed(self, entropy: bytes) -> None:
        """10.1.2.4. Additional input, if any, follows the entropy."""
        self._update(entropy)

    def generate(self, count: int, additional: bytes = b"") -> bytes:
        """10.1.2.5: `count` bytes; ValueError above 65,536."""
        if not 0 <= count <= MAX_REQUEST_BYTES:
            raise ValueError(f"one request gives at most {MAX_REQUEST_BYTES} random bytes, not {count}")
        if additional:
            self._update(additional)
        made = b""
        while len(made) < count:
            self._value = self._hmac.digest(self._value)
            made += self._value
        self._update(additional)
        return made[:count]

    def _update(self, data: bytes) -> None:
        for mark in (b"\x00", b"\x01") if data else (b"\x00",):
            self._hmac = Hmac(self._hmac.digest(self._value, mark, data))
            self._value = self._hmac.digest(self._value)


PROPORTION_WINDOW = 512  # samples, for samples of more than one bit (4.4.2)
START_UP_SAMPLES = 1024  # 4.3: the least that the tests must have seen before the first use
# Entropy that a test relies on, in bits for one sample -> (cut-off of repetition, cut-off of proportion).
# A sound source fails a test once in 2^30 times (SP 800-90B suggests 2^20 to 2^40):
# 4.4.1: 1 + ceil(30 / bits); 4.4.2: 1 + critbinom(512, 2^-bits, 1 - 2^-30). A test computes them again.
CUT_OFFS = {1: (31, 325), 4: (9, 71)}


class HealthTest:
    """The two tests of SP 800-90B 4.4 over one source; they run as long as the source is used.

    They find a source that stands still or favours one value. They cannot find a predictable one.
    """

    def __init__(self, name: str, entropy_bits: int) -> None:
        """name: for the message; entropy_bits: what is relied on for one sample, 1 or 4."""
        self._name = name
        self._repetition_limit, self._proportion_limit = CUT_OFFS[entropy_bits]
        self._last = -1
        self._repeated = 0
        self._counted = -1  # the window's first sample
        self._seen = PROPORTION_WINDOW  # a window begins with the next sample
        self._equal = 0

    def check(self, samples: "Iterable[int]") -> None:
        """Takes further samples; RandomnessError once one of the tests fails."""
        for sample in samples:
            self._repeated = self._repeated + 1 if sample == self._last else 1
            self._last = sample
            if self._seen == PROPORTION_WINDOW:
                self._counted = sample
                self._seen = self._equal = 0
            self._seen += 1
            self._equal += sample == self._counted
            if self._repeated >= self._repetition_limit:
                raise RandomnessError(f"{self._name} gave one value {self._repeated} times in a row")
            if self._equal >= self._proportion_limit:
                raise RandomnessError(f"{self._name} gave one value {self._equal} times in {self._seen} samples")


RESEED_AFTER_CALLS = 256  # far below the 2^48 of SP 800-90A: a state that leaked is worth little after that
RESEED_SAMPLES = 64
SEED_BYTES = 32


class Random:
    """Random bytes fit for keys on a board whose own generator is not (RP2040: a stirred PRNG).

    What is fed in: the seed stored by the boot before (the first one comes from enrolment), the boot count, the
    port's generator, the low bits of an open ADC input if there is one, and the chip's id. Any one of the secret
    ones being good is enough; a board without a stored seed rests on the generator and the noise alone.

    Order: make it; store `next_seed()` where the next boot finds it; then call it for bytes. Calls before that,
    and all calls after a failed health test, raise RandomnessError: a power cut must never bring a state back.
    """

    def __init__(
        self,
        stored_seed: bytes,
        boot_count: int,
        device_id: bytes,
        generator: "Callable[[int], bytes]",
        noise: "Callable[[], int] | None" = None,
    ) -> None:
        """stored_seed: 32 bytes, or none at the very first start; generator: `os.urandom`; noise: one sample of
        a noisy measurement, 0 to 255. ValueError for a seed of another length, RandomnessError if a source fails."""
        if len(stored_seed) not in (0, SEED_BYTES):
            raise ValueError(f"a stored seed has {SEED_BYTES} bytes, this one has {len(stored_seed)}")
        self._generator = generator
        self._noise = noise
        self._generator_test = HealthTest("the generator", 4)
        self._noise_test = HealthTest("the noise input", 1)
        self._calls = 0
        self._seed_taken = False
        self._failure = ""
        seed = sha256(b"laterne/random/1" + bytes((len(stored_seed),)) + stored_seed)
        seed.update(boot_count.to_bytes(8, "big") + bytes((len(device_id),)) + device_id)
        for _ in range(0, START_UP_SAMPLES, RESEED_SAMPLES):  # in parts: a board's heap stays small
            seed.update(self._samples(RESEED_SAMPLES))
        self._drbg = HmacDrbg(seed.digest())

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
        self._drbg.reseed(self._samples(RESEED_SAMPLES))
        self._calls = 0

    def _generate(self, count: int) -> bytes:
        if self._failure:
            raise RandomnessError(self._failure)
        if self._calls >= RESEED_AFTER_CALLS:
            self.reseed()
        self._calls += 1
        return self._drbg.generate(count)

    def _samples(self, count: int) -> bytes:
        """`count` tested samples of each source. A failure is for good: a broken source may look sound later."""
        try:
            samples = self._generator(count)
            if len(samples) != count:
                raise RandomnessError(f"the generator gave {len(samples)} bytes instead of {count}")
            self._generator_test.check(samples)
            if self._noise is not None:
                noise = bytes([self._noise() & 255 for _ in range(count)])
                self._noise_test.check(noise)
                samples += noise
        except RandomnessError as why:
            self._failure = str(why)
            raise
        return samples
