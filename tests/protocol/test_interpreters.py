"""The same damaged bytes give the same verdict on CPython and on MicroPython."""

import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import SOURCES, BoardError, MicroPython
from tests.fuzz import handshakes, mutate
from tests.fuzz.corpus import of_vectors
from tests.protocol.edhoc_ends import End, Here, there, traced
from tests.protocol.properties import source
from tests.protocol.test_objects import damaged, flipped, good

from laterne_protocol import cbor

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
RUNNER = Path(__file__).parent / "on_board" / "vectors_runner.py"
AT_ONCE = 40


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    monkeypatch.syspath_prepend(str(VECTORS))
    sys.modules.pop("described", None)
    spec = importlib.util.spec_from_file_location("vectors_runner", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Any], Any] = module.answer
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "message",
        "report",
        "credential",
        "possession",
        "gateway",
        "grant",
        "order",
        "receipt",
        "roster",
        "trust",
        "trust bundle",
        "envelope",
        "index",
        "sign1",
    ],
)
def test_both_interpreters_judge_damaged_objects_alike(kind: str, answer: Callable[[Any], Any]) -> None:
    draw = source()
    whole = good(kind)
    inputs = [flipped(draw.choice(whole), draw) for _ in range(400)]
    inputs += [cbor.encode(damaged(cbor.decode(draw.choice(whole), tags=(18, 107)), draw)) for _ in range(400)]
    inputs += [draw.randbytes(draw.randrange(40)) for _ in range(200)]
    compare(kind, inputs, answer)


def test_both_interpreters_judge_damaged_cbor_and_texts_alike(answer: Callable[[Any], Any]) -> None:
    draw = source()
    texts = ["Straße", "水", "𐅑", "a\u0000b", "\ud7ff\ue000", "\U0010ffff"]
    inputs = []
    for _ in range(1000):
        value = [draw.choice(texts), {draw.choice(texts): draw.getrandbits(draw.choice([5, 8, 16, 32, 64]))}]
        inputs.append(flipped(cbor.encode(value), draw))
    for _ in range(1000):
        raw = draw.randbytes(draw.randint(1, 5))
        inputs.append(bytes([0x60 | len(raw)]) + bytes(byte | 0x80 if draw.random() < 0.8 else byte for byte in raw))
    compare("cbor", inputs, answer)


def test_both_interpreters_find_the_same_frames_in_noise(answer: Callable[[Any], Any]) -> None:
    draw = source()
    whole = [
        bytes.fromhex(one["hex"])
        for one in json.loads((VECTORS / "frame.json").read_text(encoding="utf-8"))["vectors"]
        if len(one["hex"]) < 600
    ]
    questions = [["frames", (flipped(draw.choice(whole), draw) + draw.choice(whole)).hex(), {}] for _ in range(300)]
    with MicroPython(RUNNER, heap="1M", sources=(*SOURCES, VECTORS)) as board:
        assert board.ask_all(questions) == [answer(question) for question in questions]


@pytest.mark.parametrize("kind", ["cbor", "message", "credential", "trust file"])
def test_both_interpreters_judge_what_the_fuzzers_try_alike(kind: str, answer: Callable[[Any], Any]) -> None:
    """Vectors that are refused are mutated here, too, and spliced, cut and doubled."""
    inputs = mutate.inputs(of_vectors("trust-file" if kind == "trust file" else kind), source())
    if kind == "trust file":  # no signature is good: all of it is read, none believed
        questions = [[kind, data.hex(), {"good": []}] for data in itertools.islice(inputs, 200)]
        with MicroPython(RUNNER, heap="1M", sources=(*SOURCES, VECTORS)) as board:
            assert board.ask_all(questions) == [answer(question) for question in questions]
        return
    compare(kind, [data[:1024] for data in itertools.islice(inputs, 600)], answer)


def handshake_questions(draw: random.Random) -> list[dict[str, Any]]:
    """Messages to both ends of RFC 9529's trace: a stranger's, and plaintexts that a peer sealed with its keys."""
    m1, m2, m3 = handshakes.M1.hex(), handshakes.M2.hex(), handshakes.M3.hex()
    board, gateway = {"do": "refusal", "make": traced("responder")}, {"do": "refusal", "make": traced("initiator")}
    first = itertools.islice(mutate.inputs([data[1:] for data in handshakes.seeds_for_the_board()[:-4]], draw), 250)
    questions = [{**board, "messages": [[1, message.hex()]]} for message in first]
    plain_2 = [data[1:] for data in handshakes.seeds_for_the_gateway() if data[:1] == b"\x02"]
    plain_3 = [data[1:] for data in handshakes.seeds_for_the_board() if data[:1] == b"\x02"]
    for message in (m2, flipped(handshakes.M2, draw).hex(), *sealed(handshakes.sealed_2, plain_2, draw)):
        questions.append({**gateway, "messages": [[0, ""], [2, message]]})
    for message in (m3, flipped(handshakes.M3, draw).hex(), *sealed(handshakes.sealed_3, plain_3, draw)):
        questions.append({**board, "messages": [[1, m1], [3, message]]})
    return questions


def sealed(seal: Callable[[bytes], bytes], seeds: list[bytes], draw: random.Random) -> list[str]:
    return [seal(plaintext[:200]).hex() for plaintext in itertools.islice(mutate.inputs(seeds, draw), 40)]


def test_both_interpreters_judge_the_messages_of_a_handshake_alike() -> None:
    questions = handshake_questions(source())
    here = Here()
    with there() as end:
        on_board = end.ask_all(questions)
    for question, verdict in zip(questions, on_board, strict=True):
        assert verdict == here.ask(question), question["messages"]
    assert {"", "EdhocError"} <= set(on_board) <= {"", "EdhocError", "MessageError"}


def test_both_interpreters_open_the_same_records_in_any_order() -> None:
    draw = source()
    header = handshakes.HEADER
    opened = 0
    with there() as end:
        here = Here()
        for _ in range(12):
            sender = session_of_the_trace(Here(), "initiator", 0)
            session_of_the_trace(end, "responder", 1)
            session_of_the_trace(here, "responder", 1)
            genuine = [sealed_by(sender, header, bytes(number)) for number in range(45)]
            for _ in range(60):
                record = draw.choice(genuine)
                changed = flipped(record, draw) if draw.random() < 0.25 else record
                question = {"do": "open", "header": header.hex(), "record": changed.hex()}
                answers = [answer_or_error(one, question) for one in (end, here)]
                assert answers[0] == answers[1], changed.hex()
                opened += answers[0] not in ("RecordError", "SessionError")
    assert opened > 100


def session_of_the_trace(end: End, role: str, sender: int) -> End:
    """The end with a session of the trace's handshake: the same keys in every run."""
    end.ask(traced(role))
    trace = handshakes.M1, handshakes.M2, handshakes.M3, handshakes.M4
    steps = [(0, b""), (2, trace[1]), (4, trace[3])] if role == "initiator" else [(1, trace[0]), (3, trace[2])]
    for step, message in steps:
        end.ask({"do": "take", "step": step, "message": message.hex()})
    end.ask({"do": "open_session", "sender": sender, "address": handshakes.HEADER[1]})
    return end


def sealed_by(end: End, header: bytes, message: bytes) -> bytes:
    return bytes.fromhex(end.ask({"do": "seal", "header": header.hex(), "message": message.hex()}))


def answer_or_error(end: End, question: dict[str, Any]) -> str:
    try:
        answer: str = end.ask(question)
    except BoardError as why:
        return why.kind
    return answer


def compare(kind: str, inputs: list[bytes], answer: Callable[[Any], Any]) -> None:
    verdicts: list[str] = []
    with MicroPython(RUNNER, heap="1M", sources=(*SOURCES, VECTORS)) as board:
        for first in range(0, len(inputs), AT_ONCE):
            batch = [data.hex() for data in inputs[first : first + AT_ONCE]]
            verdicts += board.ask({"verdicts": kind, "hex": batch})
    ours = answer({"verdicts": kind, "hex": [data.hex() for data in inputs]})
    for data, on_board, here in zip(inputs, verdicts, ours, strict=True):
        assert on_board == here, f"{kind} {data.hex()}"
        assert here != "another form", f"{kind} {data.hex()}"
    assert "" in verdicts or kind == "cbor"
