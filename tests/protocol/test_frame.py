"""Frames on a line that loses, flips and invents bytes."""

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.properties import PROPERTY

from laterne_protocol.errors import FrameError
from laterne_protocol.frame import MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, MESSAGE, RECORD, Frame, FrameDecoder

PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.integers(0, MAX_PAYLOAD_BYTES).map(bytes),
    st.integers(0, MAX_PAYLOAD_BYTES).map(lambda size: b"\x01" * size),
    st.tuples(st.binary(max_size=8), st.integers(240, 510)).map(lambda pair: pair[0] + b"\xff" * pair[1] + pair[0]),
)
ADDRESSES = st.integers(0, 255)
FRAMES = st.builds(Frame, st.integers(0, 15), ADDRESSES, ADDRESSES, PAYLOADS)
SMALL = Frame(MESSAGE, 1, 0, b"\x00next\x00")


def parts(frame: Frame) -> tuple[int, int, int, bytes]:
    return frame.kind, frame.destination, frame.source, frame.payload


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@PROPERTY
@given(st.lists(FRAMES, max_size=4), st.lists(st.integers(0, 5000), max_size=12))
def test_frames_come_back_however_the_bytes_are_split(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(frame.to_bytes() for frame in frames)
    decoder = FrameDecoder()
    found = [frame for piece in split(data, cuts) for frame in decoder.feed(piece)]
    assert list(map(parts, found)) == list(map(parts, frames))
    assert decoder.damaged == decoder.unknown == 0


@PROPERTY
@given(st.binary(max_size=3000), st.lists(st.integers(0, 5000), max_size=12))
def test_any_bytes_in_any_split_give_the_same_frames_and_counts(data: bytes, cuts: list[int]) -> None:
    whole, pieces = FrameDecoder(), FrameDecoder()
    found = [frame for piece in split(data, cuts) for frame in pieces.feed(piece)]
    assert list(map(parts, whole.feed(data))) == list(map(parts, found))
    assert (whole.damaged, whole.overlong, whole.unknown) == (pieces.damaged, pieces.overlong, pieces.unknown)


@PROPERTY
@given(FRAMES)
def test_a_frame_holds_one_zero_its_last_byte_and_never_more_than_its_bound(frame: Frame) -> None:
    data = frame.to_bytes()
    assert data.index(0) == len(data) - 1 <= MAX_FRAME_BYTES


def after_damage(data: bytes, frames: list[Frame]) -> None:
    """No frame that was not sent, and the one after the next delimiter is there."""
    found = [parts(one) for one in FrameDecoder().feed(data + b"\x00" + SMALL.to_bytes())]
    assert found[-1] == parts(SMALL)
    sent = [parts(frame) for frame in frames]
    assert all(one in sent for one in found[:-1]), found


@pytest.mark.parametrize("payload", [b"", b"\x00\x01\x00", b"reading", bytes(300), b"\x01" * 260])
def test_no_flipped_lost_doubled_or_inserted_byte_makes_another_frame(payload: bytes) -> None:
    frame = Frame(RECORD, 0, 7, payload)
    data = frame.to_bytes()
    for at in range(len(data)):
        flips = range(1, 256) if len(data) < 30 else (1, 128, data[at], data[at] ^ 1)
        for flip in flips:
            if flip:
                after_damage(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], [frame])
        after_damage(data[:at] + data[at + 1 :], [frame])
        after_damage(data[:at] + data[at : at + 1] + data[at:], [frame])
        after_damage(data[:at] + b"\x00" + data[at:], [frame])


@PROPERTY
@given(st.lists(FRAMES, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_a_storm_makes_no_frame_and_ends_at_the_next_delimiter(frames: list[Frame], source: random.Random) -> None:
    data = bytearray(b"".join(frame.to_bytes() for frame in frames))
    for _ in range(source.randint(1, 20)):
        at = source.randrange(len(data))
        data[at : at + source.randint(0, 3)] = source.randbytes(source.randint(0, 3))
        if not data:
            break
    after_damage(bytes(data), frames)


def test_endless_bytes_without_a_delimiter_take_no_more_memory_than_a_frame() -> None:
    decoder = FrameDecoder()
    chunk = b"\x55" * 4096
    decoder.feed(chunk)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            assert decoder.feed(chunk) == []
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096
    assert peak - before < 64 * 1024
    assert list(map(parts, decoder.feed(b"\x00" + SMALL.to_bytes()))) == [parts(SMALL)]
    assert (decoder.damaged, decoder.overlong) == (1, 1)


def test_a_frame_for_which_there_was_no_memory_costs_that_frame_only() -> None:
    decoder = FrameDecoder()
    whole = SMALL.to_bytes()
    decoder.feed(whole[:4])
    decoder.forget()
    assert list(map(parts, decoder.feed(whole[4:] + whole))) == [parts(SMALL)]
    assert (decoder.damaged, decoder.overlong) == (1, 1)


def test_single_bytes_without_a_delimiter_are_kept_up_to_the_longest_frame() -> None:
    decoder = FrameDecoder()
    for _ in range(MAX_FRAME_BYTES):
        decoder.feed(b"\x01")
    assert decoder.feed(b"\x00") == []
    assert (decoder.damaged, decoder.overlong) == (1, 0)
    for _ in range(MAX_FRAME_BYTES + 1):
        decoder.feed(b"\x01")
    assert decoder.feed(b"\x00") == []
    assert (decoder.damaged, decoder.overlong) == (2, 1)


@pytest.mark.parametrize(
    "frame",
    [Frame(1, 0, 0, bytes(1025)), Frame(16, 0, 0, b""), Frame(1, 256, 0, b""), Frame(1, 0, -1, b"")],
)
def test_what_does_not_fit_into_a_frame_is_refused_at_the_sender(frame: Frame) -> None:
    with pytest.raises(FrameError):
        frame.to_bytes()
