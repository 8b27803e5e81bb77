"""protocol/vectors/*.json on both interpreters, and what keeps them true."""

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tests.firmware.micropython import SOURCES, MicroPython

from laterne_protocol import cbor, cose, frame
from laterne_protocol.errors import SignatureError

PROTOCOL = Path(__file__).parents[2] / "protocol"
VECTORS = PROTOCOL / "vectors"
RUNNER = Path(__file__).parent / "on_board" / "vectors_runner.py"
NAMES = [
    "cbor", "cose", "credential", "envelope", "frame", "gateway", "grant", "index", "messages", "order", "receipt",
    "report", "roster", "trust",
]  # fmt: skip


def load(path: Path) -> ModuleType:
    """A module that lies beside its data and not in a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    sys.path.insert(0, str(VECTORS))
    try:
        yield load(VECTORS / "generate.py")
    finally:
        sys.path.remove(str(VECTORS))


@pytest.fixture(scope="module")
def answer(generator: ModuleType) -> Callable[[Any], Any]:
    """The runner of this interpreter; the board's is the same file."""
    found: Callable[[Any], Any] = load(RUNNER).answer
    return found


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


def question(vector: dict[str, Any]) -> list[Any]:
    return [vector["kind"], vector["hex"], vector.get("more", {})]


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_generator_makes(name: str, generator: ModuleType) -> None:
    assert (VECTORS / f"{name}.json").read_text(encoding="utf-8") == generator.text_of(name)


def test_every_file_of_the_generator_is_run(generator: ModuleType) -> None:
    assert sorted(generator.FILES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cpython_reads_the_vectors_as_they_say(name: str, answer: Callable[[Any], Any]) -> None:
    for vector in vectors(name):
        assert json.loads(json.dumps(answer(question(vector)))) == vector["gives"], vector["name"]


@pytest.mark.parametrize("name", NAMES)
def test_micropython_reads_the_vectors_as_they_say(name: str) -> None:
    # The heap is that of a gateway: rosters, trust files and whole files of frames never come to a board.
    with MicroPython(RUNNER, heap="1M", sources=(*SOURCES, VECTORS)) as board:
        found = board.ask_all(map(question, vectors(name)))
    for vector, gives in zip(vectors(name), found, strict=True):
        assert gives == vector["gives"], vector["name"]


@pytest.mark.parametrize("name", ["messages", "credential", "gateway", "order", "cose", "envelope"])
def test_a_board_reads_what_it_may_be_sent_within_its_heap(name: str) -> None:
    # The reader is compiled here and carries all kinds of objects: a board loads compiled modules, and fewer.
    with MicroPython(RUNNER, heap="176K", sources=(*SOURCES, VECTORS)) as board:
        for vector in vectors(name):
            assert board.ask(question(vector)) == vector["gives"], vector["name"]


@pytest.mark.parametrize("name", NAMES)
def test_every_refused_vector_has_a_sentence_for_a_name_and_every_file_accepts_something(name: str) -> None:
    found = vectors(name)
    assert all(len(vector["name"]) > 3 for vector in found)
    assert any("refused" not in vector["gives"] for vector in found)


def good(key: bytes, message: bytes, signature: bytes) -> bool:
    point = ec.EllipticCurvePublicNumbers(
        int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big"), ec.SECP256R1()
    ).public_key()
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        point.verify(der, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


DOMAINS = {
    "a report": (cose.REPORT, "BOARD"),
    "a credential": (cose.CREDENTIAL, "ENROLMENT"),
    "a possession": (cose.POSSESSION, "BOARD"),
    "a roster": (cose.ROSTER, "ROSTER"),
    "a gateway": (cose.GATEWAY, "ROSTER"),
    "an order": (cose.ORDER, "OPERATOR"),
    "a receipt": (cose.RECEIPT, "BOARD"),
    "a grant": (cose.GRANT, "ENROLMENT"),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_an_object_verifies_under_its_own_domain_string_and_no_other(name: str, generator: ModuleType) -> None:
    (vector,) = [one for one in vectors("cose") if one["name"] == name]
    own, signer = DOMAINS[name]
    key = getattr(generator.making, signer).public
    signed = cose.parse(bytes.fromhex(vector["hex"]), cbor.MAX_BYTES)
    all_of_them = [getattr(cose, name) for name in dir(cose) if str(getattr(cose, name)).startswith("laterne/")]
    assert len(all_of_them) == 9
    for domain in all_of_them:
        try:
            taken = cose.verify(signed, domain, functools.partial(good, key))
        except SignatureError:
            assert domain != own
        else:
            assert domain == own
            assert taken == signed.payload


def test_the_signatures_of_the_trust_files_are_real() -> None:
    for vector in vectors("trust"):
        if vector["kind"] != "trust file":
            continue
        signed = cbor.decode(bytes.fromhex(vector["hex"]))
        assert isinstance(signed, list)
        for (key, _, _), one in zip(vector["more"]["good"], signed, strict=True):
            valid = functools.partial(good, bytes.fromhex(key))
            cose.verify(cose.parse(one, 16384), cose.TRUST, valid)


def test_the_hexdumps_of_the_specification_are_those_of_the_vectors(generator: ModuleType) -> None:
    text = (PROTOCOL / "README.md").read_text(encoding="utf-8")
    assert generator.hexdump.with_dumps(text) == text
    shown = {file for _, file, _, _ in generator.hexdump.BLOCK.findall(text)}
    assert shown == set(NAMES) - {"cbor"}
    assert text.count("<!-- vector:") == len(generator.hexdump.BLOCK.findall(text))


def test_a_frame_of_the_specification_is_made_from_the_message_beside_it() -> None:
    (hello,) = [one for one in vectors("messages") if one["name"] == "hello"]
    (framed,) = [one for one in vectors("frame") if one["name"] == "hello to whoever is there"]
    made = frame.Frame(frame.MESSAGE, frame.ANY_BOARD, frame.GATEWAY, bytes.fromhex(hello["hex"]))
    assert made.to_bytes().hex() == framed["hex"]
