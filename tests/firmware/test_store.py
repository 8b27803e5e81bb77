"""Records and settings on flash survive what files can suffer: a record is whole or said to be damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import MicroPython

# Records ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(flash: MicroPython, tmp_path: Path) -> Callable[..., Any]:
    return lambda *steps: flash.ask({"folder": str(tmp_path), "record": steps})


def test_a_record_that_was_never_written_is_none(record: Callable[..., Any]) -> None:
    assert record(None) == [[None, False, False]]


def test_a_record_reads_back_what_was_saved_last(record: Callable[..., Any]) -> None:
    assert record("01", "0203", None) == [["0203", False, False]]


@pytest.mark.parametrize("harm", [b"", b"\xff" * 40, b"LTR1\x02\x00\x00\x00\x00\x00\x00\x00ab", None])
def test_either_copy_of_a_record_is_enough(record: Callable[..., Any], tmp_path: Path, harm: bytes | None) -> None:
    for ending, doubtful in ((".0", True), (".1", False)):
        record("0a0b")
        copy = tmp_path / f"rec{ending}"
        copy.unlink()
        if harm is not None:
            copy.write_bytes(harm)
        assert record(None) == [["0a0b", doubtful, False]]


def test_each_flipped_bit_of_a_record_is_seen(record: Callable[..., Any], tmp_path: Path) -> None:
    record("0a0b0c0d")
    whole = (tmp_path / "rec.0").read_bytes()
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        for ending in (".0", ".1"):
            (tmp_path / f"rec{ending}").write_bytes(flipped)
        assert record(None) == [[None, False, True]]


# Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, [60, 2500, 1, ""]),
        ('{"report_s": 5, "sample_ms": 200, "address": 32}', [5, 200, 32, ""]),
        ('{"report_s": 4}', [60, 2500, 1, "settings.json: report_s is not an integer in 5..3600, defaults are used"]),
        ('{"address": true}', [60, 2500, 1, "settings.json: address is not an integer in 1..32, defaults are used"]),
        ('{"speed": 1}', [60, 2500, 1, "settings.json has the unknown name 'speed', defaults are used"]),
        ("[1]", [60, 2500, 1, "settings.json is not a JSON object, defaults are used"]),
        ("{", [60, 2500, 1, "settings.json is not a JSON object, defaults are used"]),
        ("", [60, 2500, 1, "settings.json is not a JSON object, defaults are used"]),
    ],
)  # fmt: skip
def test_settings_are_used_only_when_all_are_right(
    flash: MicroPython, tmp_path: Path, content: str | None, expected: list[object]
) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    assert flash.ask({"folder": str(tmp_path), "settings": True}) == expected
