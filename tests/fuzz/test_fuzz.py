"""A minute of fuzzing in every test run; `make fuzz` goes on for as long as one likes (fuzz.py)."""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tests.fuzz import corpus, fuzz, mutate
from tests.fuzz.targets import DOMAINS, TARGETS, known_keys, known_payloads
from tests.protocol.cwt_opinion import judged
from tests.protocol.properties import source

from laterne_gateway import primitives
from laterne_protocol import cose, credential
from laterne_protocol.errors import SignatureError

# About a second each; by count, so that a run is the same one everywhere.
INPUTS = {
    "frame": 6000,
    "edhoc-board": 10_000,
    "edhoc-gateway": 6000,
    "record": 12_000,
    "envelope": 8000,
    "release-file": 8000,
}
INPUTS_OF_OTHERS = 20_000
# Where a stranger's bytes meet a state, or a decoder that all others rely on.
SECONDS = {"cbor": 3, "cose": 2, "edhoc-board": 3, "edhoc-gateway": 3, "record": 2}
SECONDS_OF_OTHERS = 1


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_raise_nothing_but_our_errors_and_break_no_promise(name: str, tmp_path: Path) -> None:
    target, seeds = TARGETS[name]
    seed = source().randrange(2**31)
    one = fuzz.watched(name, target, tmp_path, seed)
    count = INPUTS.get(name, INPUTS_OF_OTHERS)
    for data in itertools.islice(mutate.inputs(seeds(), random.Random(f"{name} {seed}")), count):
        one(data)


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_led_by_coverage_raise_nothing_but_our_errors_and_break_no_promise(name: str, tmp_path: Path) -> None:
    if fuzz.atheris_or_none() is None:
        if os.environ.get("CI") and sys.version_info < (3, 14):
            pytest.fail("atheris is missing, and in CI no fuzzer may be left out")
        pytest.skip("left out: there is no atheris here; the mutated inputs have been tried")
    seconds = str(SECONDS.get(name, SECONDS_OF_OTHERS))
    command = [sys.executable, str(fuzz.HERE), name, "--seconds", seconds, "--corpus", str(tmp_path), "--seed", "2026"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("name", TARGETS)
def test_a_corpus_has_inputs_that_are_taken_and_inputs_that_are_refused(name: str) -> None:
    target, seeds = TARGETS[name]
    verdicts = set()
    for seed in seeds():
        try:
            target(seed)
        except ValueError:
            verdicts.add("refused")
        else:
            verdicts.add("taken")
    # Frames and records are dropped, which is no error of the reader.
    assert verdicts == ({"taken"} if name in ("frame", "record") else {"taken", "refused"})


def test_what_breaks_a_promise_is_kept_and_named_with_its_seed_and_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(data: bytes) -> None:
        assert data != b"\x17"

    one = fuzz.watched("cbor", broken, tmp_path, 7)
    one(b"\x16")
    with pytest.raises(AssertionError):
        one(b"\x17")
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"\x17"
    assert f"seed 7: python tests/fuzz/fuzz.py cbor --input {kept}" in capsys.readouterr().out


def test_a_target_that_is_not_there_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        fuzz.main(["cobra"])
    assert end.value.code == 2
    assert "there are: cbor, frame" in capsys.readouterr().err


# Others' opinion ---------------------------------------------------------------------------------------------------

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Case = tuple[bytes, bytes, str]  # object, key, domain string


def believed(case: Case) -> bool:
    signed = cose.parse(case[0], corpus.MAX_SEED_BYTES)
    try:
        cose.verify(signed, case[2], lambda message, signature: primitives.valid(case[1], message, signature))
    except SignatureError:
        return False
    return True


def test_cwt_believes_every_object_that_we_believe() -> None:
    """Whatever is in it, under whatever domain string and either name of the algorithm: cwt sees the same payload."""
    draw = source()
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    cases = [
        (data, one, domain)
        for data in corpus.good("sign1")
        for one in sorted(known_keys())
        for domain in DOMAINS
        if believed((data, one, domain))
    ]
    assert len(cases) >= len(corpus.good("sign1"))
    payloads = mutate.inputs([payload for domain in DOMAINS for payload in sorted(known_payloads(domain))], draw)
    for payload in itertools.islice(payloads, 300):
        domain = draw.choice(DOMAINS)
        protected = cose.protected_header(credential.kid(key), draw.choice((cose.ESP256, cose.ES256)))
        message = cose.to_be_signed(domain, protected, payload)
        r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + draw.choice((s, ORDER - s)).to_bytes(32, "big")
        case = (cose.assemble(protected, payload, signature), key, domain)
        if believed(case):  # half of them: one of the two forms of s is ours
            cases.append(case)
    assert 50 < len(cases) < 300
    for case, verdict in zip(cases, judged(cases), strict=True):
        assert verdict == {"payload": cose.parse(case[0], corpus.MAX_SEED_BYTES).payload.hex()}, case[0].hex()
