"""Our CBOR against cbor2, and against everything that is not ours."""

import random
from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.protocol.properties import PROPERTY, THOROUGH

from laterne_protocol import cbor
from laterne_protocol.errors import CborError

INTEGERS = st.one_of(
    st.integers(-(2**64), 2**64 - 1),
    st.sampled_from([sign * 2**bits + off for bits in (0, 5, 8, 16, 32, 53) for off in (-1, 0, 1) for sign in (1, -1)]),
)
KEYS = st.one_of(INTEGERS, st.text(max_size=6))
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, st.binary(max_size=300), st.text(max_size=30))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(KEYS, inner, max_size=5),
        st.builds(cbor.Tag, st.just(18), inner),
    ),
    max_leaves=25,
)


def for_cbor2(value: Any) -> Any:
    """The same value in cbor2's terms, dictionaries in order of their encoded keys."""
    if isinstance(value, cbor.Tag):
        return cbor2.CBORTag(value.number, for_cbor2(value.value))
    if isinstance(value, list):
        return [for_cbor2(item) for item in value]
    if isinstance(value, dict):
        return {key: for_cbor2(value[key]) for key in sorted(value, key=cbor2.dumps)}
    return value


def depth(value: Any) -> int:
    if isinstance(value, cbor.Tag):
        return 1 + depth(value.value)
    if isinstance(value, (list, dict)):
        inside = value if isinstance(value, list) else [*value, *value.values()]
        return 1 + max(map(depth, inside)) if inside else 0
    return 0


def taken(data: bytes) -> Any:
    """The value, or CborError itself; anything else that is raised fails the test."""
    try:
        return cbor.decode(data, tags=(18,))
    except CborError:
        return CborError


def fits(value: Any) -> bool:
    return depth(value) <= cbor.MAX_DEPTH


@PROPERTY
@given(VALUES)
def test_a_value_has_the_encoding_that_cbor2_calls_canonical(value: Any) -> None:
    assume(fits(value))
    assert cbor.encode(value) == cbor2.dumps(for_cbor2(value))


@PROPERTY
@given(VALUES)
def test_what_was_encoded_is_decoded(value: Any) -> None:
    assume(fits(value))
    assert repr(cbor.decode(cbor.encode(value), tags=(18,))) == repr(in_order(value))


def in_order(value: Any) -> Any:
    if isinstance(value, cbor.Tag):
        return cbor.Tag(value.number, in_order(value.value))
    if isinstance(value, list):
        return [in_order(item) for item in value]
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=cbor.encode)}
    return value


def check_taken(data: bytes) -> None:
    value = taken(data)
    if value is CborError:
        return
    assert cbor.encode(value) == data
    assert repr(for_cbor2(value)) == repr(with_lists(cbor2.loads(data)))


def with_lists(value: Any) -> Any:
    """cbor2 reads an array within a tag as a tuple, and a map as a frozendict."""
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, with_lists(value.value))
    if isinstance(value, (list, tuple)):
        return [with_lists(item) for item in value]
    if isinstance(value, Mapping):
        return {key: with_lists(value[key]) for key in value}
    return value


@THOROUGH
@given(st.binary(max_size=40))
@example(bytes.fromhex("d81200"))
def test_of_random_bytes_only_what_encode_gives_back_is_taken(data: bytes) -> None:
    check_taken(data)


@THOROUGH
@given(VALUES, st.randoms(use_true_random=False))
def test_of_damaged_encodings_only_what_encode_gives_back_is_taken(value: Any, source: random.Random) -> None:
    assume(fits(value))
    data = bytearray(cbor.encode(value))
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(data) + 1)
        match source.randrange(4):
            case 0:
                data[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                data[at:at] = bytes([source.randrange(256)])
            case 2:
                del data[at : at + source.randint(1, 3)]
            case _:
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << source.randrange(8)])
    check_taken(bytes(data))


def test_every_number_at_a_border_has_one_head() -> None:
    for number in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1):
        heads = [bytes([major | number]) for major in (0, 0x20) if number < 24]
        for major in (0, 0x20):
            for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
                if number < 1 << (8 * size):
                    heads.append(bytes([major | info]) + number.to_bytes(size, "big"))
        assert [taken(head) for head in heads if taken(head) is not CborError] == [number, -1 - number]


@pytest.mark.parametrize(
    "value", [1.5, object(), {b"a": 1}, {True: 1}, {None: 1}, {(1,): 1}, 2**64, -(2**64) - 1, "\ud800", {1}, [[1.0]]]
)
def test_what_is_not_of_the_subset_is_not_encoded(value: object) -> None:
    with pytest.raises(CborError):
        cbor.encode(value)


def test_nine_levels_are_not_encoded() -> None:
    value: object = 0
    for _ in range(cbor.MAX_DEPTH):
        value = [value]
    assert cbor.decode(cbor.encode(value)) == value
    for deeper in ([value], {1: value}, cbor.Tag(18, value)):
        with pytest.raises(CborError, match="levels"):
            cbor.encode(deeper)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_tag_beyond_64_bits_is_not_encoded(number: int) -> None:
    with pytest.raises(CborError):
        cbor.encode(cbor.Tag(number, None))


def test_more_bytes_than_the_caller_reads_are_refused_unread() -> None:
    assert cbor.decode(b"\x42ab", 3) == b"ab"
    with pytest.raises(CborError, match="at most 2"):
        cbor.decode(b"\x42ab", 2)


def test_items_are_counted_in_all_arrays_and_maps_together() -> None:
    value = [[1, 2], {3: [4]}]
    assert cbor.decode(cbor.encode(value), max_items=6) == value
    with pytest.raises(CborError, match="more items"):
        cbor.decode(cbor.encode(value), max_items=5)


def test_a_sequence_is_read_value_by_value() -> None:
    data = cbor.encode([1]) + cbor.encode("x")
    assert cbor.decode_first(data) == ([1], 2)
    assert cbor.decode_first(data, 2) == ("x", 4)
    with pytest.raises(CborError):
        cbor.decode_first(data, 4)


def test_a_tag_is_taken_only_where_the_caller_lists_it() -> None:
    assert cbor.decode(b"\xd2\x01", tags=(18,)) == cbor.Tag(18, 1)
    for tags in ((), (17,)):
        with pytest.raises(CborError, match="tag 18"):
            cbor.decode(b"\xd2\x01", tags=tags)
