"""The same damaged bytes give the same verdict on CPython and on MicroPython."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import SOURCES, MicroPython
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
    "kind", ["message", "report", "credential", "possession", "gateway", "roster", "trust", "trust bundle", "sign1"]
)
def test_both_interpreters_judge_damaged_objects_alike(kind: str, answer: Callable[[Any], Any]) -> None:
    draw = source()
    whole = good(kind)
    inputs = [flipped(draw.choice(whole), draw) for _ in range(400)]
    inputs += [cbor.encode(damaged(cbor.decode(draw.choice(whole), tags=(18,)), draw)) for _ in range(400)]
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
