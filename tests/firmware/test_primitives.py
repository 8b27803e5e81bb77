"""What a board has beside P-256, judged by vectors of others, by `cryptography`, and with broken sources."""

import hashlib
import secrets
from collections.abc import Iterator
from fractions import Fraction
from math import comb
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from tests.firmware.micropython import ROOMY_HEAP, BoardError, MicroPython, evaluate
from tests.firmware.wycheproof import vectors


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with MicroPython("primitives_runner.py", heap=ROOMY_HEAP) as interpreter:
        yield interpreter


# HMAC and HKDF ---------------------------------------------------------------------------------------------------


def test_every_hmac_of_wycheproof_is_the_one_of_its_vector(board: MicroPython) -> None:
    tests = vectors("hmac_sha256_test.json")
    answers = board.ask_all({"do": "hmac", "key": test["key"], "message": test["msg"]} for test in tests)
    wrong = [
        (test["tcId"], test["comment"])
        for test, digest in zip(tests, answers, strict=True)
        if (digest[: test["tagSize"] // 4] == test["tag"]) is not (test["result"] == "valid")
    ]
    assert wrong == []


def test_every_derived_key_of_wycheproof_is_the_one_of_its_vector(board: MicroPython) -> None:
    tests = vectors("hkdf_sha256_test.json")
    answers = board.ask_all(
        {"do": "hkdf", "salt": test["salt"], "secret": test["ikm"], "info": test["info"], "size": test["size"]}
        for test in tests
    )
    wrong = [
        (test["tcId"], test["comment"], str(answer))
        for test, answer in zip(tests, answers, strict=True)
        if (answer.kind if isinstance(answer, BoardError) else answer)
        != (test["okm"] if test["result"] == "valid" else "ValueError")
    ]
    assert wrong == []


# AES-CCM ---------------------------------------------------------------------------------------------------------


def sealing(do: str, key: str, nonce: str, text: str, associated: str = "", tag_bytes: int = 8) -> dict[str, Any]:
    return {
        "do": do,
        "key": key,
        "nonce": nonce,
        "text": text,
        "associated": associated,
        "tag_bytes": tag_bytes,
    }


def test_every_sealed_message_of_wycheproof_is_opened_or_refused_as_its_vector_says(board: MicroPython) -> None:
    """Sizes that no board has are refused as such: AES-192, and nonces that CCM does not know."""
    wrong, sizes_refused = [], 0
    for test in vectors("aes_ccm_test.json"):
        common = (test["key"], test["iv"])
        rest = (test["aad"], test["tagSize"] // 8)
        opened, sealed = board.ask_all(
            (
                sealing("open", *common, test["ct"] + test["tag"], *rest),
                sealing("seal", *common, test["msg"], *rest),
            )
        )
        if test["keySize"] == 192 or not 56 <= test["ivSize"] <= 104:
            sizes_refused += 1
            right = [answer.kind for answer in (opened, sealed)] == ["ValueError", "ValueError"]
        elif test["result"] == "valid":
            right = (opened, sealed) == (test["msg"], test["ct"] + test["tag"])
        elif test["tagSize"] // 8 not in (4, 6, 8, 10, 12, 14, 16):
            right = opened.kind == "ValueError"
        else:
            right = opened.kind == "AuthenticationError" and sealed != test["ct"] + test["tag"]
        if not right:
            wrong.append((test["tcId"], test["comment"], str(opened), str(sealed)))
    assert wrong == []
    assert 0 < sizes_refused < 300


def test_the_first_packet_of_rfc_3610_is_sealed_as_printed_there(board: MicroPython) -> None:
    """Packet vector 1: 13 bytes of nonce, 8 of tag, as every session has them."""
    question = sealing(
        "seal",
        "C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF",
        "00000003020100A0A1A2A3A4A5",
        "08090A0B0C0D0E0F101112131415161718191A1B1C1D1E",
        "0001020304050607",
    )
    printed = "588C979A61C663D2F066D0C2C0F989806D5F6B61DAC384" + "17E8D12CFDF926E0"
    assert board.ask(question) == printed.lower()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 255, 1024, 5000])
@pytest.mark.parametrize("associated", [b"", b"header", bytes(300)])
def test_cryptography_opens_what_the_board_seals_and_seals_what_it_opens(
    board: MicroPython, size: int, associated: bytes
) -> None:
    key, nonce, message = secrets.token_bytes(16), secrets.token_bytes(13), secrets.token_bytes(size)
    sealed = AESCCM(key, tag_length=8).encrypt(nonce, message, associated)
    common = (key.hex(), nonce.hex())
    assert board.ask(sealing("seal", *common, message.hex(), associated.hex())) == sealed.hex()
    assert board.ask(sealing("open", *common, sealed.hex(), associated.hex())) == message.hex()


def test_a_flipped_bit_in_anything_that_was_sealed_is_refused(board: MicroPython) -> None:
    key, nonce = secrets.token_bytes(16), secrets.token_bytes(13)
    sealed = AESCCM(key, tag_length=8).encrypt(nonce, b"a message", b"a header")
    parts = [key, nonce, sealed, b"a header"]
    for part in range(4):
        for bit in range(0, 8 * len(parts[part]), 5):
            changed = list(parts)
            number = int.from_bytes(parts[part], "big") ^ 1 << bit
            changed[part] = number.to_bytes(len(parts[part]), "big")
            in_key, in_nonce, in_sealed, in_header = (value.hex() for value in changed)
            with pytest.raises(BoardError, match="AuthenticationError"):
                board.ask(sealing("open", in_key, in_nonce, in_sealed, in_header))


def test_fewer_bytes_than_a_tag_are_refused(board: MicroPython) -> None:
    with pytest.raises(BoardError, match="AuthenticationError"):
        board.ask(sealing("open", "00" * 16, "00" * 13, "00" * 7))


def test_equal_means_equal_in_length_and_in_every_byte(board: MicroPython) -> None:
    pairs = {
        ("", ""): True,
        ("00ff", "00ff"): True,
        ("00ff", "00fe"): False,
        ("01", "02"): False,
        ("00", "0000"): False,
    }
    answers = board.ask_all({"do": "equal", "left": left, "right": right} for left, right in pairs)
    assert answers == list(pairs.values())


# HMAC_DRBG -------------------------------------------------------------------------------------------------------

# NIST CAVP, drbgvectors (HMAC_DRBG.rsp, SHA-256): entropy, nonce, personalization; reseed; additional inputs of the
# two requests of 128 bytes, of which the second is compared.
CAVP = {
    "no reseed, count 0": (
        "ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488" + "659ba96c601dc69fc902940805ec0ca8",
        "",
        ("", ""),
        "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89"
        "d54fbb978a15b5c443c9ec21036d2460b6f73ebad0dc2aba6e624abf07745bc1"
        "07694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668"
        "961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8",
    ),
    "no reseed, personalization and additional input": (
        "5d3286bc53a258a53ba781e2c4dcd79a790e43bbe0e89fb3eed39086be34174b"
        "c5422294b7318952ace7055ab7570abf"
        "2dba094d008e150d51c4135bb2f03dcde9cbf3468a12908a1b025c120c985b9d",
        "",
        (
            "793a7ef8f6f0482beac542bb785c10f8b7b406a4de92667ab168ecc2cf7573c6",
            "2238cdb4e23d629fe0c2a83dd8d5144ce1a6229ef41dabe2a99ff722e510b530",
        ),
        "d04678198ae7e1aeb435b45291458ffde0891560748b43330eaf866b5a6385e7"
        "4c6fa5a5a44bdb284d436e98d244018d6acedcdfa2e9f499d8089e4db86ae89a"
        "6ab2d19cb705e2f048f97fb597f04106a1fa6a1416ad3d859118e079a0c319eb"
        "95686f4cbcce3b5101c7a0b010ef029c4ef6d06cdfac97efb9773891688c37cf",
    ),
    "reseeded, count 0": (
        "06032cd5eed33f39265f49ecb142c511da9aff2af71203bffaf34a9ca5bd9c0d" + "0e66f71edc43e42a45ad3c6fc6cdc4df",
        "01920a4e669ed3a85ae8a33b35a74ad7fb2a6bb4cf395ce00334a9c9a5a5d552",
        ("", ""),
        "76fc79fe9b50beccc991a11b5635783a83536add03c157fb30645e611c2898bb"
        "2b1bc215000209208cd506cb28da2a51bdb03826aaf2bd2335d576d519160842"
        "e7158ad0949d1a9ec3e66ea1b1a064b005de914eac2e9d4f2d72a8616a802254"
        "22918250ff66a41bd2f864a6a38cc5b6499dc43f7f2bd09e1e0f8f5885935124",
    ),
}


@pytest.mark.parametrize(("seed", "reseed", "additional", "expected"), CAVP.values(), ids=CAVP.keys())
def test_the_generator_gives_the_bytes_of_nist(
    board: MicroPython, seed: str, reseed: str, additional: tuple[str, str], expected: str
) -> None:
    question = {"do": "drbg", "seed": seed, "reseed": reseed, "additional": additional, "size": 128}
    assert board.ask(question) == expected


# Random ----------------------------------------------------------------------------------------------------------

START_UP_BYTES = 1024  # what is drawn, and tested, before the first use


def first_bytes(board: MicroPython, **inputs: Any) -> str:
    """The first 16 random bytes of a board that starts with these inputs; its generator is always the same."""
    board.ask({"do": "make random", **inputs})
    board.ask({"do": "next seed"})
    made: str = board.ask({"do": "random", "count": 16})
    return made


def test_each_input_changes_the_random_bytes_and_nothing_else_does(board: MicroPython) -> None:
    seed, other_seed = "11" * 32, "12" + "11" * 31
    starts: list[dict[str, Any]] = [
        {"seed": seed, "boot_count": 7},
        {"seed": other_seed, "boot_count": 7},
        {"seed": seed, "boot_count": 8},
        {"seed": seed, "boot_count": 7, "device_id": "e6614103e8"},
        {"seed": seed, "boot_count": 7, "noise": "lively"},
        {"seed": "", "boot_count": 7},
    ]
    made = [first_bytes(board, **start) for start in starts]
    assert len(set(made)) == len(starts)
    assert first_bytes(board, **starts[0]) == made[0]


def test_no_random_number_is_given_before_the_next_seed_was_taken(board: MicroPython) -> None:
    board.ask({"do": "make random"})
    with pytest.raises(BoardError, match="RandomnessError: no random numbers before the next seed"):
        board.ask({"do": "random", "count": 16})
    seed = board.ask({"do": "next seed"})
    made = board.ask({"do": "random", "count": 32})
    assert len(seed) == len(made) == 64
    assert made != seed


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("stands still", "9 times in a row"),
        ("favours one value", "71 times in"),
        ("too short", "63 bytes instead of 64"),
    ],
)
def test_a_broken_generator_is_found_at_the_start_and_while_it_is_used(
    board: MicroPython, behaviour: str, words: str
) -> None:
    with pytest.raises(BoardError, match=f"RandomnessError.*{words}"):
        board.ask({"do": "make random", "generator": behaviour})
    first_bytes(board, generator=behaviour, good_bytes=START_UP_BYTES)
    # A favoured value takes a window of 512 samples to be sure of, eight times 64.
    answers = board.ask_all([{"do": "reseed"}] * 8)
    assert isinstance(answers[-1], BoardError)
    assert answers[-1].kind == "RandomnessError"


def test_a_generator_that_failed_once_is_never_trusted_again(board: MicroPython) -> None:
    first_bytes(board, generator="too short", good_bytes=START_UP_BYTES)
    with pytest.raises(BoardError, match="RandomnessError"):
        board.ask({"do": "reseed"})
    for _ in range(2):
        with pytest.raises(BoardError, match="RandomnessError: the generator gave 63 bytes"):
            board.ask({"do": "random", "count": 16})


def test_a_shorted_noise_input_is_left_out_and_said_once(board: MicroPython) -> None:
    """The first samples of it are refused, so that the board is one without noise from the beginning."""
    same = {"seed": "11" * 32, "boot_count": 7}
    made = first_bytes(board, **same, noise="constant")
    board.ask_all([{"do": "reseed"}] * 8)
    (line,) = board.ask({"do": "said"})
    assert line.startswith("random numbers are made without the noise input: the noise input gave one value 31 times")
    assert made == first_bytes(board, **same)


def test_fresh_samples_are_mixed_in_every_256_calls(board: MicroPython) -> None:
    """Seen by a generator that stands still once the start is over: the first fresh samples betray it."""
    first_bytes(board, generator="stands still", good_bytes=START_UP_BYTES)  # two calls
    assert len(set(board.ask_all({"do": "random", "count": 16} for _ in range(254)))) == 254
    with pytest.raises(BoardError, match="RandomnessError"):
        board.ask({"do": "random", "count": 16})


def test_a_stored_seed_of_a_wrong_length_is_refused(board: MicroPython) -> None:
    with pytest.raises(BoardError, match="ValueError: a stored seed has 32 bytes, this one has 31"):
        board.ask({"do": "make random", "seed": "00" * 31})


def test_the_limits_of_the_health_tests_are_those_of_sp_800_90b() -> None:
    """Computed exactly: C = 1 + ceil(30 / H), and C = 1 + critbinom(512, 2^-H, 1 - 2^-30)."""
    limits = evaluate("sorted(CUT_OFFS.items())", "from laterne_firmware.entropy import CUT_OFFS")
    assert [bits for bits, _ in limits] == [1, 4]
    for bits, (repetition, proportion) in limits:
        chance, below, successes = Fraction(1, 2**bits), Fraction(0), -1
        while below < 1 - Fraction(1, 2**30):
            successes += 1
            below += comb(512, successes) * chance**successes * (1 - chance) ** (512 - successes)
        assert (repetition, proportion) == (1 + -(-30 // bits), 1 + successes)


def test_a_sound_source_passes_for_a_long_time() -> None:
    """100,000 bytes of SHA-256 in counter mode, always the same ones."""
    setup = """
from hashlib import sha256
from laterne_firmware.entropy import check
tested = ()
for number in range(3125):
    tested = check("sound", 4, tested, sha256(number.to_bytes(4, "big")).digest())
"""
    assert evaluate("tested[3]", setup) == 100_000 % 512
    assert hashlib.sha256((0).to_bytes(4, "big")).digest()[0] != 0
