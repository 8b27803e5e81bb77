"""Deterministic CBOR (RFC 8949, 4.2.1) of the small subset that laterne uses; the decoder is strict.

The subset (protocol/README.md, 1): integers of 64 bits, byte and text strings, arrays, maps with integer or
text keys, false, true, null, and the tags that the caller lists. One value has exactly one encoding: what
decode() accepts, encode() gives back byte for byte. There are no floats, no indefinite lengths and no
undefined, because no message of ours needs them and each is a way to say one thing twice.

Bounds: MAX_DEPTH levels, and the caller's limits of bytes and of items, all checked before anything is believed. A
length is compared with the bytes that are there before memory is taken for it; items are counted because each may
cost 64 times its byte in RAM: a thousand empty arrays fit into one frame.
"""

from laterne_protocol.errors import CborError

MAX_DEPTH = 8  # deepest object of ours: a roster, 5 levels
MAX_BYTES = 65536  # the largest object, a roster of 256 boards
MAX_ITEMS = 4096  # of the same: 256 boards with their posts, 11 items each, and 256 revoked ones, 4 each

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FALSE, _TRUE, _NULL = 0xF4, 0xF5, 0xF6


class Tag:
    """A tagged value, such as Tag(18, [...]) for a COSE_Sign1."""

    def __init__(self, number: int, value: object) -> None:
        self.number = number
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tag) and self.number == other.number and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return "Tag(%d, %r)" % (self.number, self.value)


def encode(value: object) -> bytes:
    """The one encoding of a value.

    value: None, bool, int in -2**64..2**64-1, bytes, str, list, tuple, dict with int or str keys, Tag.
    Raises CborError for anything else: a mistake in our own code or a value out of range.
    """
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def _encode(value: object, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CborError("more than %d levels" % MAX_DEPTH)
    if value is None:
        out.append(_NULL)
    elif value is True:
        out.append(_TRUE)
    elif value is False:
        out.append(_FALSE)
    elif isinstance(value, int):
        if value >= 0:
            _head(_UINT, value, out)
        else:
            _head(_NINT, -1 - value, out)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _head(_BYTES, len(value), out)
        out.extend(value)
    elif isinstance(value, str):
        try:
            text = value.encode()
        except UnicodeError:  # CPython, for a surrogate; MicroPython encodes it and _check_utf8() finds it
            raise CborError("text that is not UTF-8")
        _check_utf8(text)
        _head(_TEXT, len(text), out)
        out.extend(text)
    elif isinstance(value, (list, tuple)):
        _head(_ARRAY, len(value), out)
        for item in value:
            _encode(item, out, depth + 1)
    elif isinstance(value, dict):
        _encode_map(value, out, depth)
    elif isinstance(value, Tag) and value.number >= 0:
        _head(_TAG, value.number, out)
        _encode(value.value, out, depth + 1)
    else:
        raise CborError("no CBOR of ours for a %s" % type(value).__name__)


def _encode_map(value: "dict[object, object]", out: bytearray, depth: int) -> None:
    # RFC 8949, 4.2.1: keys in bytewise order of their encodings. MicroPython's dicts have no order of their own.
    pairs = []
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise CborError("a map key must be an integer or a text")
        pairs.append((encode(key), value[key]))
    pairs.sort(key=_first)
    _head(_MAP, len(pairs), out)
    for encoded, item in pairs:
        out.extend(encoded)
        _encode(item, out, depth + 1)


def _first(pair: "tuple[bytes, object]") -> bytes:
    return pair[0]


def _head(major: int, number: int, out: bytearray) -> None:
    major <<= 5
    if number < 24:
        out.append(major | number)
        return
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            out.append(major | info)
            out.extend(number.to_bytes(size, "big"))
            return
    raise CborError("an integer beyond 64 bits")


def decode(
    data: "bytes | bytearray | memoryview",
    max_bytes: int = MAX_BYTES,
    tags: "tuple[int, ...]" = (),
    max_items: int = MAX_ITEMS,
) -> object:
    """The value that these bytes are, all of them.

    max_bytes: more than this is refused unread. tags: the tag numbers that may occur, anywhere. max_items: more
    items in arrays, and pairs in maps, than this are refused before they are read.
    Raises CborError: not the one encoding of a value of our subset, or bytes after it.
    """
    value, end = decode_first(data, 0, max_bytes, tags, max_items)
    if end != len(data):
        raise CborError("%d bytes after the end" % (len(data) - end))
    return value


def decode_first(
    data: "bytes | bytearray | memoryview",
    start: int = 0,
    max_bytes: int = MAX_BYTES,
    tags: "tuple[int, ...]" = (),
    max_items: int = MAX_ITEMS,
) -> "tuple[object, int]":
    """The value that begins at `start`, and where it ends: for CBOR sequences (RFC 8742). Raises as decode()."""
    if start == 0 and len(data) > max_bytes:
        raise CborError("%d bytes, at most %d are read" % (len(data), max_bytes))
    return _decode(bytes(data), start, min(len(data), start + max_bytes), _Allowed(tags, max_items), 0)


class _Allowed:
    """What one call of decode() may still meet."""

    def __init__(self, tags: "tuple[int, ...]", items: int) -> None:
        self.tags = tags
        self.items = items


def _decode(data: bytes, at: int, end: int, allowed: _Allowed, depth: int) -> "tuple[object, int]":
    if depth > MAX_DEPTH:
        raise CborError("more than %d levels" % MAX_DEPTH)
    if at >= end:
        raise CborError("the end is missing")
    initial = data[at]
    if initial < 24:  # nine items of ten: a small integer is its own head
        return initial, at + 1
    major = initial >> 5
    if major == _SIMPLE:
        if initial == _NULL:
            return None, at + 1
        if initial == _TRUE:
            return True, at + 1
        if initial == _FALSE:
            return False, at + 1
        raise CborError("0x%02x: floats and other simple values are not ours" % initial)
    number = initial & 0x1F
    at += 1
    if number > 23:
        number, at = _long_head(data, at, end, number)
    if major == _UINT:
        return number, at
    if major == _NINT:
        return -1 - number, at
    if major == _TAG:
        if number not in allowed.tags:
            raise CborError("tag %d does not belong here" % number)
        value, at = _decode(data, at, end, allowed, depth + 1)
        return Tag(number, value), at
    # Strings, arrays, maps: an item has at least one byte, so the length is bounded before it is believed.
    if number > end - at:
        raise CborError("longer than the data")
    if major == _BYTES:
        return data[at : at + number], at + number
    if major == _TEXT:
        text = data[at : at + number]
        _check_utf8(text)
        return text.decode(), at + number
    allowed.items -= number
    if allowed.items < 0:
        raise CborError("more items than are read")
    if major == _ARRAY:
        items = []
        for _ in range(number):
            value, at = _decode(data, at, end, allowed, depth + 1)
            items.append(value)
        return items, at
    return _decode_map(data, at, end, allowed, depth, number)


def _long_head(data: bytes, at: int, end: int, info: int) -> "tuple[int, int]":
    if info > 27:
        raise CborError("indefinite or reserved length")
    size = 1 << (info - 24)
    if at + size > end:
        raise CborError("the end is missing")
    number = int.from_bytes(data[at : at + size], "big")
    # RFC 8949, 4.2.1: the shortest head that holds the number.
    if number < 24 or (size > 1 and number < 1 << (4 * size)):
        raise CborError("a number longer than it needs to be")
    return number, at + size


def _decode_map(data: bytes, at: int, end: int, allowed: _Allowed, depth: int, pairs: int) -> "tuple[object, int]":
    value = {}  # type: dict[object, object]
    former = b""
    for _ in range(pairs):
        begin = at
        if at < end and data[at] >> 5 not in (_UINT, _NINT, _TEXT):
            raise CborError("a map key must be an integer or a text")
        key, at = _decode(data, at, end, allowed, depth + 1)
        encoded = data[begin:at]
        if encoded <= former:
            raise CborError("map keys out of order or twice")
        former = encoded
        value[key], at = _decode(data, at, end, allowed, depth + 1)
    return value, at


def _check_utf8(text: bytes) -> None:
    # MicroPython's decode() takes overlong forms, surrogates and numbers beyond 0x10ffff, so both
    # interpreters are held to RFC 3629, 4 here. Our texts are ASCII nearly always, and max() is quick on both.
    if not text or max(text) < 0x80:
        return
    at = 0
    size = len(text)
    while at < size:
        first = text[at]
        if first < 0x80:
            at += 1
            continue
        if 0xC2 <= first <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= first <= 0xEF:
            more, low, high = 2, 0xA0 if first == 0xE0 else 0x80, 0x9F if first == 0xED else 0xBF
        elif 0xF0 <= first <= 0xF4:
            more, low, high = 3, 0x90 if first == 0xF0 else 0x80, 0x8F if first == 0xF4 else 0xBF
        else:
            raise CborError("text that is not UTF-8")
        if at + more >= size or not low <= text[at + 1] <= high:
            raise CborError("text that is not UTF-8")
        for following in text[at + 2 : at + 1 + more]:
            if following & 0xC0 != 0x80:
                raise CborError("text that is not UTF-8")
        at += 1 + more
