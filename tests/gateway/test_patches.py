"""Blocks of an update: every encoding gives the block back, and a small change costs few bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.board_patches import BLOCK_BYTES, BadBlock, decoded, patched

from laterne_gateway.patches import Base, encoded, steps
from laterne_protocol.update_messages import PATCH, RAW, ZLIB

WORDS = random.Random(5).randbytes(3000)  # what does not deflate: patches only have these to win with


@st.composite
def versions(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two versions of a file, the newer made of pieces of the older and of new ones."""
    old = draw(st.binary(max_size=600)) + WORDS[: draw(st.integers(0, 3000))]
    old *= draw(st.integers(1, 5))
    pieces = [b""]
    for _ in range(draw(st.integers(0, 8))):
        start, count = draw(st.integers(0, len(old))), draw(st.integers(0, 2000))
        pieces.append(old[start : start + count])
        pieces.append(draw(st.binary(max_size=20)))
    return old, b"".join(pieces)


@given(versions())
def test_every_block_of_a_newer_version_comes_out_as_it_was(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    base = Base(old)
    for number in range(-(-len(new) // BLOCK_BYTES)):
        block = new[number * BLOCK_BYTES :][:BLOCK_BYTES]
        assert patched(steps(block, number, base), number, old) == block
        for against in (None, base):
            encoding, data = encoded(block, number, against)
            assert len(data) <= len(block)
            assert decoded(encoding, data, number, len(new), old if against else None) == block


def test_the_shortest_of_the_encodings_wins() -> None:
    noise, text = WORDS, b"a city's lamp posts " * 150
    assert encoded(noise, 0)[0] == RAW
    assert encoded(text, 0)[0] == ZLIB
    assert encoded(noise, 0, Base(noise))[0] == PATCH
    scattered = b"".join(noise[25 * n : 25 * n + 5] for n in range(120))
    assert encoded(scattered, 0, Base(noise))[0] == ZLIB | PATCH


def test_one_changed_byte_costs_less_than_thirty() -> None:
    changed = WORDS[:1500] + b"!" + WORDS[1501:]
    assert len(encoded(changed, 0, Base(WORDS))[1]) < 30


def test_what_moves_in_a_file_is_found_again_behind_its_first_block() -> None:
    old = random.Random(6).randbytes(12_000)
    new = b"sixteen more of it" + old
    assert len(encoded(new[4096:8192], 1, Base(old))[1]) < 20


@pytest.mark.timeout(20)
def test_a_file_of_one_byte_repeated_takes_no_time_to_search() -> None:
    """32 KiB of zeros against 32 KiB of zeros and a one in each 100: the search is bounded."""
    old = bytes(32_768)
    new = (bytes(99) + b"\x01") * 41
    assert patched(steps(new[:4096], 0, Base(old)), 0, old) == new[:4096]


def test_steps_are_what_the_specification_says() -> None:
    assert steps(b"abcdXYefgh", 0, Base(b"abcdefgh")) == bytes.fromhex("09000458590900")
    assert patched(bytes.fromhex("07000458590704"), 0, b"abcdefgh") == b"abcXYfgh"
    for outside in ("070c", "0701", "00", "0461", "04", "8080808001"):
        with pytest.raises(BadBlock):
            patched(bytes.fromhex(outside), 0, b"abcdefgh")
