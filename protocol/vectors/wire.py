"""Vectors of what crosses a line: encodings, frames, messages, and the form of what is signed (generate.py)."""

from __future__ import annotations  # messages.Message is for type checkers only

import binascii
from collections.abc import Callable
from typing import Any

import rfc8949
from making import (
    BOARD,
    ENROLMENT,
    ORDER,
    ROSTER,
    Vector,
    changed,
    put,
    vector,
)
from objects import (
    A_RELEASE,
    a_gateway,
    a_grant,
    a_possession,
    a_progress,
    a_roster,
    all_messages,
    an_identity,
    first_report,
    receipts,
    signed_credential,
    signed_order,
)

from laterne_protocol import (
    cbor,
    cose,
    frame,
    messages,
)


def cbor_vectors() -> list[Vector]:
    made = []
    for data, value in rfc8949.ACCEPTED:
        one = vector("RFC 8949, appendix A", "cbor", bytes.fromhex(data), tags=[])
        if one["gives"] != {"value": value, "again": True}:
            raise AssertionError(f"{data}: the RFC says {value}, we say {one['gives']}")
        made.append(one)
    for name, data, tags in rfc8949.REFUSED:
        one = vector(name, "cbor", bytes.fromhex(data), tags=tags)
        if one["gives"] != {"refused": "CborError"}:
            raise AssertionError(f"{name}: {data} is taken for {one['gives']}")
        made.append(one)
    for name, data, tags in rfc8949.ALSO_ACCEPTED:
        made.append(vector(name, "cbor", bytes.fromhex(data), tags=tags))
    return made


def frame_vectors() -> list[Vector]:
    made = []
    for size in (0, 1, 246, 247, 248, 253, 254, 255, 500, 501, 502, 508, 1024):
        for name, payload in (("zeros", bytes(size)), ("no zero", b"\x55" * size), ("counting", _counting(size))):
            whole = frame.Frame(frame.MESSAGE, frame.FIRST_BOARD, frame.FIRST_BOARD, payload).to_bytes()
            made.append(vector(f"{size} bytes, {name}", "frames", whole))
    whole = frame.Frame(frame.MESSAGE, frame.GATEWAY, 3, b"abc").to_bytes()
    other = frame.Frame(frame.RECORD, 3, frame.GATEWAY, b"xyz").to_bytes()
    full = _frame_that_ends_in_a_full_block()
    cut = bytes([whole[0] ^ 1]) + whole[1:]
    made += [
        vector(
            "hello to whoever is there",
            "frames",
            frame.Frame(frame.MESSAGE, frame.ANY_BOARD, frame.GATEWAY, messages.Hello(0).to_bytes()).to_bytes(),
        ),
        vector("two frames", "frames", whole + other),
        vector("zeros before, between and after", "frames", b"\0\0" + whole + b"\0" + other + b"\0"),
        vector("no delimiter yet", "frames", whole[:-1]),
        vector("the first byte is damaged, the next frame is whole", "frames", cut + other),
        vector("a lost delimiter costs two frames, not the third", "frames", whole[:-1] + other + whole),
        vector("a lost byte", "frames", whole[:3] + whole[4:] + other),
        vector("another version", "frames", _raw(b"\x21\x00\x01abc")),
        vector("a header cut short, its CRC right", "frames", _raw(b"\x11\x00")),
        vector("the CRC alone", "frames", _raw(b"")),
        vector("a wrong CRC", "frames", _stuffed(b"\x11\x00\x01abc" + bytes(4))),
        vector("a payload of 1025 bytes, its CRC right", "frames", _raw(b"\x11\x00\x01" + bytes(1025)) + other),
        vector("1037 bytes without a zero", "frames", b"\x01" * (frame.MAX_FRAME_BYTES + 1) + b"\0" + other),
        vector("ends in a full block", "frames", full),
        vector("the same in its other form", "frames", full[:-1] + b"\x01\x00" + other),
        vector("a block longer than the rest", "frames", b"\x09abc\0" + other),
    ]
    return made


def _counting(size: int) -> bytes:
    return (bytes(range(256)) * 5)[:size]


def _stuffed(plain: bytes) -> bytes:
    # A second, naive COBS encoder: byte by byte.
    out, block = bytearray(), bytearray()
    for position, byte in enumerate(plain):
        if byte:
            block.append(byte)
        if not byte or (len(block) == 254 and position + 1 < len(plain)):
            out += bytes([len(block) + 1]) + block
            block.clear()
    return bytes(out + bytes([len(block) + 1]) + block + b"\0")


def _raw(body: bytes) -> bytes:
    return _stuffed(body + binascii.crc32(body).to_bytes(4, "little"))


def _frame_that_ends_in_a_full_block() -> bytes:
    for count in range(1, 65536):
        payload = b"\x55" * 245 + count.to_bytes(2, "big")
        whole = frame.Frame(1, 1, 1, payload).to_bytes()
        if whole[0] == 255 and len(whole) == 256:
            return whole
    raise AssertionError("no such payload")


def message_vectors() -> list[Vector]:
    made = [vector(name, "message", message.to_bytes()) for name, message in all_messages()]
    poll = messages.Poll(2, 1, 1, (1, 1_790_000_000_000, 12)).to_bytes()
    answer = messages.ReportAnswer(3, 1, 60_200, 59_800, 0, []).to_bytes()
    identity = an_identity().to_bytes()
    progress = a_progress(1, (A_RELEASE, 2, 0, 8192, 0, 10, 0), 4096).to_bytes()
    wrong: list[tuple[str, object]] = [
        ("true is not the type 1", [True, 0]),
        ("an unknown type", [6, 0]),
        ("no number", [1]),
        ("number 256", [1, 256]),
        ("number true", [1, True]),
        ("a field too many", [1, 0, None]),
        ("not an array", {1: 0}),
        ("null instead of no reports", [4, 0, 1, 2, 3, 4, None]),
        ("a report that is in no array", [4, 0, 1, 2, 3, 4, b"r"]),
        ("an empty report behind another", [4, 0, 1, 2, 3, 4, [b"r", b""]]),
        ("9 reports", [4, 0, 1, 2, 3, 4, [b"r"] * 9]),
        ("reason 0", [5, 0, 0]),
        ("a nonce of 15 bytes", [16, 0, bytes(15)]),
        ("an empty credential", [18, 0, b""]),
        ("a credential of 513 bytes", [18, 0, bytes(513)]),
        ("a digest of 17 bytes", [19, 0, bytes(17)]),
        ("a trust bundle of 961 bytes", [20, 0, bytes(961)]),
        ("an empty trust bundle", [20, 0, b""]),
        ("a digest of taken trust of 15 bytes", [21, 0, bytes(15)]),
        ("an empty order", [22, 0, b""]),
        ("an order of 701 bytes", [22, 0, bytes(701)]),
        ("a receipt of 701 bytes", [23, 0, bytes(701)]),
        ("a digest of an arrived receipt of 15 bytes", [24, 0, bytes(15)]),
        ("an arrival noted without its digest", [25, 0]),
        ("a release digest of 15 bytes", [26, 0, bytes(15)]),
        ("an update that says nothing", [26, 0]),
        ("a part of nothing", [28, 0, 2, 0, 0, 1, 0, b""]),
        ("a part of 901 bytes", [28, 0, 2, 0, 0, 4096, 0, bytes(901)]),
        ("a part beyond its block", [28, 0, 2, 0, 0, 100, 50, bytes(51)]),
        ("a part that begins where its block ends", [28, 0, 2, 0, 0, 100, 100, b"a"]),
        ("a block of 4097 bytes", [28, 0, 2, 0, 0, 4097, 0, b"a"]),
        ("item 162", [28, 0, 162, 0, 0, 1, 0, b"a"]),
        ("block 8", [28, 0, 2, 8, 0, 1, 0, b"a"]),
        ("encoding 4", [28, 0, 2, 0, 4, 1, 0, b"a"]),
    ]
    made += [vector(name, "message", cbor.encode(value)) for name, value in wrong]
    changes: list[tuple[str, bytes, Callable[[Any], None]]] = [
        ("acknowledged: -1", poll, put(2, -1)),
        ("after: 2**53", poll, put(3, 2**53)),
        ("after: a text", poll, put(3, "1")),
        ("a time without its uncertainty", poll, put(4, [1, 2])),
        ("an offset beyond the year 9999", poll, put(4, 1, 253_402_300_800_000)),
        ("boot count 2**32", answer, put(2, 2**32)),
        ("ticks of 2**53", answer, put(3, 2**53)),
        ("due in 2**32 ms", answer, put(4, 2**32)),
        ("waiting: true", answer, put(5, True)),
        ("an empty report", answer, put(6, [b""])),
        ("a report of 961 bytes", answer, put(6, [bytes(961)])),
        ("a board id with a slash", identity, put(2, "LE/7")),
        ("a board id with a dot in front", identity, put(2, ".7")),
        ("an empty board id", identity, put(2, "")),
        ("a board id of 33 characters", identity, put(2, "a" * 33)),
        ("a kid of 7 bytes", identity, put(3, bytes(7))),
        ("a release with an escape sequence", identity, put(5, "\x1b[2J")),
        ("a model with a control character of Latin-1", identity, put(6, "pico\x85")),
        ("an empty model", identity, put(6, "")),
        ("a held trust of version 0", identity, put(7, 0, 0)),
        ("a held trust whose digest has 15 bytes", identity, put(7, 1, bytes(15))),
        ("a held trust without its digest", identity, put(7, [1])),
        ("an identity that says nothing of a trust", identity, lambda items: items.pop()),
        ("phase 7", progress, put(2, 7)),
        ("item 162 is wanted", progress, put(3, 1, 162)),
        ("a window of 512 bytes", progress, put(3, 5, 9)),
        ("a window of 64 KiB", progress, put(3, 5, 16)),
        ("more before the block than a window holds", progress, put(3, 6, 1025)),
        ("a credit of 4097 bytes", progress, put(4, 4097)),
        ("a nonce of 7 bytes", progress, put(5, 3, bytes(7))),
        ("a result of code 0", progress, put(5, 5, [0, A_RELEASE])),
        ("a result with a third item", progress, put(5, 5, [1, A_RELEASE, 0])),
    ]
    made += [vector(name, "message", changed(data, change)) for name, data, change in changes]
    made.append(vector("a thousand empty arrays", "message", b"\x99\x03\xe5" + b"\x80" * 997))
    made.append(vector("more than 1000 bytes", "message", bytes.fromhex("8300005903e5") + bytes(997)))
    made.append(vector("no bytes", "message", b""))
    return made


def cose_vectors() -> list[Vector]:
    payload = first_report().to_payload()
    whole = BOARD.sign(cose.REPORT, payload)
    parts = cose.parse(whole, 960)
    s = int.from_bytes(parts.signature[32:], "big")
    high = parts.signature[:32] + (ORDER - s).to_bytes(32, "big")

    def sign1(name: str, value: object) -> Vector:
        return vector(name, "sign1", cbor.encode(value), domain=cose.REPORT)

    def tagged(*four: object) -> cbor.Tag:
        return cbor.Tag(18, list(four))

    protected, signature = parts.protected, parts.signature
    header: list[tuple[str, dict[object, object]]] = [
        ("no kid", {1: -9}),
        ("no algorithm", {4: BOARD.kid}),
        ("algorithm ES384", {1: -35, 4: BOARD.kid}),
        ("a kid of 7 bytes", {1: -9, 4: bytes(7)}),
        ("a third header", {1: -9, 2: [4], 4: BOARD.kid}),
    ]
    return [
        vector("a report", "sign1", whole, domain=cose.REPORT),
        vector("the same as a credential: other bytes are signed", "sign1", whole, domain=cose.CREDENTIAL),
        vector("with the former name of the algorithm", "sign1", BOARD.sign(cose.REPORT, payload, cose.ES256),
               domain=cose.REPORT),
        vector("a credential", "sign1", signed_credential(), domain=cose.CREDENTIAL),
        vector("a possession", "sign1", BOARD.sign(cose.POSSESSION, a_possession().to_payload()),
               domain=cose.POSSESSION),
        vector("a roster", "sign1", ROSTER.sign(cose.ROSTER, a_roster().to_payload()), domain=cose.ROSTER),
        vector("a gateway", "sign1", ROSTER.sign(cose.GATEWAY, a_gateway().to_payload()), domain=cose.GATEWAY),
        vector("an order", "sign1", signed_order(1), domain=cose.ORDER),
        vector("a receipt", "sign1", BOARD.sign(cose.RECEIPT, receipts()[0][1].to_payload()), domain=cose.RECEIPT),
        vector("a grant", "sign1", ENROLMENT.sign(cose.GRANT, a_grant().to_payload()), domain=cose.GRANT),
        sign1("the high-s form of a good signature", tagged(protected, {}, payload, high)),
        sign1("no tag", [protected, {}, payload, signature]),
        sign1("five parts", tagged(protected, {}, payload, signature, None)),
        sign1("an unprotected kid", tagged(protected, {4: BOARD.kid}, payload, signature)),
        sign1("a detached payload", tagged(protected, {}, None, signature)),
        sign1("a signature of 63 bytes", tagged(protected, {}, payload, signature[1:])),
        sign1("an empty protected header", tagged(b"", {}, payload, signature)),
        sign1("a header that is not deterministic", tagged(bytes.fromhex("a204480102030405060708") + b"\1\x28", {},
                                                             payload, signature)),
        *[sign1(name, tagged(cbor.encode(value), {}, payload, signature)) for name, value in header],
        vector("a byte after the end", "sign1", whole + b"\0", domain=cose.REPORT),
    ]  # fmt: skip
