"""A release file in parts at the broker: they come together again, and a head out of bounds is refused."""

from hashlib import sha256

import pytest

from laterne_protocol import cbor, release_parts
from laterne_protocol.errors import WireError
from laterne_protocol.release_parts import MAX_PART_BYTES, MAX_PARTS, MAX_WHOLE_BYTES


@pytest.mark.parametrize("size", [1, MAX_PART_BYTES, MAX_PART_BYTES + 1, MAX_WHOLE_BYTES])
def test_parts_make_the_whole_again_and_their_head_says_so(size: int) -> None:
    whole = bytes(range(256)) * (size // 256) + bytes(size % 256)
    head, *parts = release_parts.parts_of(whole)
    assert b"".join(parts) == whole
    assert release_parts.head_of(head) == (len(parts), size, sha256(whole).digest())
    assert max(map(len, parts)) <= MAX_PART_BYTES


@pytest.mark.parametrize(
    "head",
    [
        [0, 1, bytes(32)],
        [MAX_PARTS + 1, 1, bytes(32)],
        [1, 0, bytes(32)],
        [1, MAX_WHOLE_BYTES + 1, bytes(32)],
        [1, 1, bytes(31)],
        [1, 1],
        "no head",
    ],
)
def test_a_head_out_of_bounds_is_refused(head: object) -> None:
    with pytest.raises(WireError):
        release_parts.head_of(cbor.encode(head))


def test_topics_are_of_one_release_of_one_tenant() -> None:
    assert release_parts.topic("testingen", bytes(range(16)), 3) == (
        "laterne/v1/testingen/release/000102030405060708090a0b0c0d0e0f/3"
    )
