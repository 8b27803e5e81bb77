"""A board's end of encoded blocks, written from protocol/README.md alone and not from the encoder."""

import zlib

BLOCK_BYTES = 4096


class BadBlock(Exception):
    """What a board refuses: it asks for the block again."""


def decoded(encoding: int, data: bytes, number: int, size: int, base: bytes | None) -> bytes:
    """The block with this number of an item of `size` bytes. Raises BadBlock."""
    if encoding not in (0, 1, 2, 3):
        raise BadBlock("no encoding of ours")
    if encoding & 1:
        inflate = zlib.decompressobj(10)  # zlib refuses a larger window than a board has
        try:
            data = inflate.decompress(data, BLOCK_BYTES + 1)
        except zlib.error as why:
            raise BadBlock(str(why)) from why
        if not inflate.eof or inflate.unused_data:
            raise BadBlock("no whole zlib stream")
    if encoding & 2:
        if base is None:
            raise BadBlock("a patch for what we do not have")
        data = patched(data, number, base)
    if len(data) != min(BLOCK_BYTES, size - BLOCK_BYTES * number):
        raise BadBlock(f"{len(data)} bytes")
    return data


def patched(steps: bytes, number: int, base: bytes) -> bytes:
    out = bytearray()
    at, place = BLOCK_BYTES * number, 0
    while place < len(steps):
        head, place = _varint(steps, place)
        count = head >> 1
        if count < 1 or len(out) + count > BLOCK_BYTES:
            raise BadBlock("a step of no bytes, or of too many")
        if head & 1:
            step, place = _varint(steps, place)
            at += -((step + 1) >> 1) if step & 1 else step >> 1
            if at < 0 or at + count > len(base):
                raise BadBlock("a copy from outside")
            out += base[at : at + count]
            at += count
        else:
            if place + count > len(steps):
                raise BadBlock("the literal ends early")
            out += steps[place : place + count]
            place += count
    return bytes(out)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in (0, 7, 14):
        if place >= len(data):
            raise BadBlock("the patch ends early")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise BadBlock("a number of more than 3 bytes")
