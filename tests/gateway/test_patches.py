"""Blocks of an update: every encoding gives the content back, and a small change costs few bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.board_patches import BadBlock, Window, decoded, patched
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_releases import contents, release

from laterne_gateway.blocks import MAX_CODES, Blocks, Want
from laterne_gateway.patches import Base, Portion, encoded, steps
from laterne_gateway.releases import Release
from laterne_protocol.update_messages import DEFLATED, PATCH, RAW

WORDS = random.Random(5).randbytes(3000)  # what does not deflate: patches only have these to win with
PIECE_BYTES = 4096


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


@given(versions(), versions(), st.booleans())
def test_every_block_of_newer_versions_comes_out_as_it_was(
    first: tuple[bytes, bytes], second: tuple[bytes, bytes], has_base: bool
) -> None:
    """Of the last part of one file, and of the first of the one behind it, which the board may not have."""
    (old, new), (other_old, other_new) = first, second
    start = len(new) // 2
    bases = [old, other_old if has_base else None]
    portions = [
        Portion(content, at, None if base is None else Base(base))
        for content, at, base in zip((new[start:], other_new[:PIECE_BYTES]), (start, 0), bases, strict=True)
    ]
    whole = b"".join(portion.content for portion in portions)
    places = [(len(portion.content), portion.start, base) for portion, base in zip(portions, bases, strict=True)]
    for portion, (count, at, base) in zip(portions, places, strict=True):
        made = steps(portion)
        assert patched(made, 0, count, at, base) == (portion.content, len(made))
    encoding, data = encoded(portions)
    assert len(data) <= len(whole)
    assert b"".join(decoded(encoding, data, places)) == whole


def test_the_shortest_of_the_encodings_wins() -> None:
    noise, text = WORDS, b"a city's lamp posts " * 150
    assert encoded([Portion(noise)])[0] == RAW
    assert encoded([Portion(text)])[0] == DEFLATED
    assert encoded([Portion(noise, 0, Base(noise))])[0] == PATCH
    scattered = b"".join(noise[25 * n : 25 * n + 5] for n in range(120))
    assert encoded([Portion(scattered, 0, Base(noise))])[0] == DEFLATED | PATCH


def test_one_changed_byte_costs_less_than_thirty() -> None:
    changed = WORDS[:1500] + b"!" + WORDS[1501:]
    assert len(encoded([Portion(changed, 0, Base(WORDS))])[1]) < 30


def test_what_moves_in_a_file_is_found_again_in_the_middle_of_it() -> None:
    old = random.Random(6).randbytes(12_000)
    new = b"sixteen more of it" + old
    assert len(encoded([Portion(new[4096:8192], 4096, Base(old))])[1]) < 20


@pytest.mark.timeout(20)
def test_a_file_of_one_byte_repeated_takes_no_time_to_search() -> None:
    """32 KiB of zeros against 32 KiB of zeros and a one in each 100: the search is bounded."""
    old = bytes(32_768)
    new = ((bytes(99) + b"\x01") * 41)[:4096]
    made = steps(Portion(new, 0, Base(old)))
    assert patched(made, 0, len(new), 0, old) == (new, len(made))


def test_steps_are_what_the_specification_says() -> None:
    assert steps(Portion(b"abcdXYefgh", 0, Base(b"abcdefgh"))) == bytes.fromhex("09000458590900")
    assert patched(bytes.fromhex("07000458590704"), 0, 8, 0, b"abcdefgh") == (b"abcXYfgh", 7)
    for outside in ("070c", "0701", "00", "0461", "04", "8080808001"):
        with pytest.raises(BadBlock):
            patched(bytes.fromhex(outside), 0, 8, 0, b"abcdefgh")


def test_deflated_blocks_are_what_the_specification_says() -> None:
    window = Window(10)
    assert window.more(bytes.fromhex("ca49cc2d5000 000000ffff"), 5) == b"lamp "
    assert window.more(bytes.fromhex("ca011105f9c52500 000000ffff"), 9) == b"lamp post"


@pytest.mark.parametrize("room", [200, 1024, 4096])
def test_a_block_holds_as_much_content_as_its_code_has_room_for(room: int) -> None:
    """All content of a release, one block behind the other; few of them leave a fifth of the room."""
    made = Release(release(FakeAuthority(), contents(files=9, size=1500)))
    whole = b"".join(made.items[2:])
    blocks, got, roomy = Blocks(), b"", 0
    while len(got) < len(whole):
        item, start = 2, len(got)
        while start >= len(made.items[item]):
            item, start = item + 1, start - len(made.items[item])
        code = blocks.code(made, Want(item, start, 8192, room))
        assert code.of == (made.digest, item, start)
        assert len(code.data) <= room
        content = whole[len(got) :][: code.size]
        assert decoded(code.encoding, code.data, [(code.size, start, None)]) == [content]
        got += content
        roomy += len(code.data) < room * 0.8
    assert roomy <= 2


@pytest.mark.parametrize(("bits", "room"), [(10, 200), (12, 4096), (15, 1024)])
def test_blocks_that_go_on_with_each_other_come_out_as_they_were(bits: int, room: int) -> None:
    """Now and then the board has lost its window; the next block then goes on with nothing."""
    made = Release(release(FakeAuthority(), contents(files=9, size=1500)))
    whole, blocks, got, window, alone = b"".join(made.items[2:]), Blocks(), b"", Window(bits), 0
    while len(got) < len(whole):
        item, start = 2, len(got)
        while start >= len(made.items[item]):
            item, start = item + 1, start - len(made.items[item])
        if len(got) > len(whole) // 2 > window.held:
            window = Window(bits)
        behind = min(window.held, 1 << bits)
        code = blocks.code(made, Want(item, start, 8192, room, bits=bits, behind=behind))
        assert code.encoding == DEFLATED
        assert len(code.data) <= room
        (content,) = decoded(code.encoding, code.data, [(code.size, start, None)], window)
        assert content == whole[len(got) :][: code.size]
        got += content
        alone += len(encoded([Portion(content)])[1])
    sent = sum(len(code.data) for code in blocks._codes.values())
    assert len(blocks._codes) == MAX_CODES or sent < alone


@pytest.mark.parametrize(("item", "size"), [(0, 1024), (1, 8192)])
def test_envelope_and_index_end_where_they_end(item: int, size: int) -> None:
    made = Release(release(FakeAuthority()))
    code = Blocks().code(made, Want(item, 0, size, size))
    assert code.size == len(made.items[item])
    assert item or code.encoding == RAW
