"""Fresh entropy, tested: NIST SP 800-90B 4.4 over the port's generator and the noise of an analogue input.

It is loaded for the start and for each reseeding, and keeps nothing: what its tests have seen lies with `Random`, so
that they go on as long as the sources are used.

The generator must pass: without it no key is made and nothing is signed. The noise is an extra. All that is gathered
goes through a hash or HMAC_DRBG, so a source that stands still, or that somebody else drives, takes nothing away from
the others; leaving it out makes a board no worse than one without the pin. The other way round a shorted pin in a wet
lamp post would stop a board for ever. Signatures rest on less than keys: their nonces are derived from the
private key and the message as well (p256), so that even a guessed random number gives no key away.
"""

from hashlib import sha256

from laterne_firmware.randomness import SEED_BYTES, RandomnessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from laterne_firmware.randomness import Random

PROPORTION_WINDOW = 512  # samples, for samples of more than one bit (4.4.2)
START_UP_SAMPLES = 1024  # 4.3: the least that the tests must have seen before the first use
SAMPLES = 64  # of each source, whenever fresh ones are mixed in
# Entropy that a test relies on, in bits for one sample -> (cut-off of repetition, cut-off of proportion).
# A sound source fails a test once in 2^30 times (SP 800-90B suggests 2^20 to 2^40):
# 4.4.1: 1 + ceil(30 / bits); 4.4.2: 1 + critbinom(512, 2^-bits, 1 - 2^-30). A test computes them again.
CUT_OFFS = {1: (31, 325), 4: (9, 71)}


def first_seed(random: "Random", stored_seed: bytes, boot_count: int, device_id: bytes) -> bytes:
    """32 bytes of all that there is at a start; as Random's constructor."""
    if len(stored_seed) not in (0, SEED_BYTES):
        raise ValueError("a stored seed has %d bytes, this one has %d" % (SEED_BYTES, len(stored_seed)))
    seed = sha256(b"laterne/random/1" + bytes((len(stored_seed),)) + stored_seed)
    seed.update(boot_count.to_bytes(8, "big") + bytes((len(device_id),)) + device_id)
    for _ in range(0, START_UP_SAMPLES, SAMPLES):  # in parts: a board's heap stays small
        seed.update(fresh(random))
    return seed.digest()


def fresh(random: "Random") -> bytes:
    """64 tested samples of each source. RandomnessError when the generator fails; a noise that fails is left out."""
    samples = random.generator(SAMPLES)
    if len(samples) != SAMPLES:
        raise RandomnessError("the generator gave %d bytes instead of %d" % (len(samples), SAMPLES))
    random.tested[0] = check("the generator", 4, random.tested[0], samples)
    if random.noise is None:
        return samples
    noise = bytes([random.noise() & 255 for _ in range(SAMPLES)])
    try:
        random.tested[1] = check("the noise input", 1, random.tested[1], noise)
    except RandomnessError as why:
        random.noise = None
        random.log("random numbers are made without the noise input: %s" % why)
        return samples
    return samples + noise


def check(name: str, entropy_bits: int, tested: "tuple[int, ...]", samples: "Iterable[int]") -> "tuple[int, ...]":
    """What the two tests of 4.4 know after further samples of a source; RandomnessError once one of them fails.

    name: for the message. entropy_bits: what is relied on for one sample, 1 or 4. tested: what they knew, () at first.
    They find a source that stands still or favours one value. They cannot find a predictable one.
    """
    repetition_limit, proportion_limit = CUT_OFFS[entropy_bits]
    # The last sample and how often it came in a row; of the window the first sample, how many it has, how many alike.
    last, repeated, counted, seen, alike = tested or (-1, 0, -1, PROPORTION_WINDOW, 0)
    for sample in samples:
        repeated = repeated + 1 if sample == last else 1
        last = sample
        if seen == PROPORTION_WINDOW:
            counted = sample
            seen = alike = 0
        seen += 1
        alike += sample == counted
        if repeated >= repetition_limit:
            raise RandomnessError("%s gave one value %d times in a row" % (name, repeated))
        if alike >= proportion_limit:
            raise RandomnessError("%s gave one value %d times in %d samples" % (name, alike, seen))
    return last, repeated, counted, seen, alike
