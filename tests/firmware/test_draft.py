"""The draft of the open report: a start finds what the one before has left, or says what may be lost with it."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from laterne_protocol import cbor, report_reading

SEGMENT = 64  # reports in a segment file

Live = Callable[..., dict[str, Any]]


def test_a_start_finds_the_draft_that_the_start_before_has_left(live: Live) -> None:
    assert live(["append", 2], ["draft", 0])["draft"] is None
    found = live()
    payload, boot = found["draft"]
    made = report_reading.report_of(bytes.fromhex(payload))
    assert (made.sequence, made.boot, boot) == (3, 1, 1)
    assert made.previous.hex() == found["head"]


def test_the_draft_of_the_very_first_report_follows_the_credential(live: Live) -> None:
    live(["draft", 0])
    found = live()
    assert report_reading.report_of(bytes.fromhex(found["draft"][0])).previous == bytes(16)
    assert found["cut_ms"] == 30_000


def test_the_newest_of_two_drafts_counts(live: Live) -> None:
    live(["append", 1], ["draft", 0], ["append", 1], ["draft", 0])
    assert report_reading.report_of(bytes.fromhex(live()["draft"][0])).sequence == 3


@pytest.mark.parametrize("after", [["draft", 0], ["draft", 1], ["draft", -1]])
def test_a_draft_whose_number_is_not_the_next_one_is_none(live: Live, after: list[object]) -> None:
    """It was signed and appended, and may be at the platform by now; or its number is skipped."""
    live(["append", 3], after, *([["append", 1]] if after[1] == 0 else []))
    assert live()["draft"] is None


def test_a_damaged_draft_costs_its_readings_and_says_so(live: Live, tmp_path: Path) -> None:
    live(["append", 2], ["draft", 0])
    whole = (tmp_path / "log" / "open").read_bytes()
    harms = (b"", whole[:3], whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], bytes(2000))
    for starts, harm in enumerate(harms, 1):
        (tmp_path / "log" / "open").write_bytes(harm)
        found = live()
        assert found["draft"] is None
        assert found["next"] == 3
        assert found["cut_ms"] == 30_000 * starts + 60_000  # the whole report may be gone, not its end only


def test_a_draft_of_a_former_enrolment_is_left_alone_and_its_readings_are_said_to_be_lost(live: Live) -> None:
    live(["append", 1], ["draft", 0])
    found = live(board="LE-0002")
    assert (found["draft"], found["cut_ms"]) == (None, 90_000)


def test_an_old_draft_costs_nothing(live: Live) -> None:
    live(["append", 1], ["draft", 0], ["append", 1])
    assert live()["cut_ms"] == 30_000


def test_a_draft_after_damage_that_skips_numbers_is_none(live: Live, tmp_path: Path) -> None:
    """Number 4 may have been offered: nothing else may be signed under it."""
    live(["append", 3], ["draft", 0])
    (segment,) = (file for file in (tmp_path / "log").iterdir() if len(file.name) == 8)
    segment.write_bytes(segment.read_bytes() + b"\xa7")
    found = live()
    assert found["next"] > 4
    assert found["draft"] is None


def test_readings_that_each_start_may_have_taken_with_it_are_counted_until_a_report_states_them(live: Live) -> None:
    assert live(enrolled=False)["cut_ms"] == 0  # a board without a name takes no readings
    assert live()["cut_ms"] == 30_000  # it may have been enrolled in the start before, and have taken some
    live(["append", 1])
    assert live()["cut_ms"] == 30_000
    assert live()["cut_ms"] == 60_000
    live(["append", 1])
    assert live()["cut_ms"] == 30_000


def test_what_starts_without_end_may_have_cost_still_fits_into_a_report(live: Live, tmp_path: Path) -> None:
    live(["append", 1])
    for copy in tmp_path.glob("st.*"):
        body = cbor.encode([1_000_000, 1 + SEGMENT, []])
        copy.write_bytes(struct.pack("<4sII", b"LTR1", len(body), crc32(body)) + body)
    assert live()["cut_ms"] == (1 << 32) - 1
