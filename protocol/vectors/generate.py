"""Makes the vector files beside it: `python protocol/vectors/generate.py` writes them, the tests compare them.

Everything is deterministic: keys come from names, signatures follow RFC 6979. What RFC 8949 says is transcribed in
rfc8949.py, not computed. A vector is {"name", "kind", "hex", "gives"} and, where its kind needs it, "more"
(described.py).
"""

from __future__ import annotations  # messages.Message is for type checkers only

import binascii
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hexdump
import releases
import rfc8949
from making import (
    AGREE,
    BOARD,
    ENROLMENT,
    GATEWAY,
    NEXT,
    NEXT_AGREE,
    OPERATOR,
    ORDER,
    RELEASE,
    ROOTS,
    ROSTER,
    TECHNICIAN,
    Key,
    Vector,
    changed,
    put,
    vector,
)

from laterne_protocol import (
    cbor,
    cose,
    credential,
    frame,
    gateway_credential,
    grant,
    messages,
    order,
    receipt,
    report,
    roster,
    trust,
)

HERE = Path(__file__).parent
AUTHORITY = "Stadtwerke Musterstadt"


# --- what the objects are -------------------------------------------------------------------------------------------


def a_credential() -> credential.Credential:
    return credential.Credential(
        AUTHORITY, "LE-0007", 1_790_000_000, bytes(range(8)), BOARD.public, AGREE.public,
        credential.SOFTWARE, "pico", (1, 10),
    )  # fmt: skip


def a_possession() -> credential.Possession:
    return credential.Possession(bytes(range(16)), BOARD.public, AGREE.public, 0, "pico", bytes.fromhex("e66038b713"))


def signed_credential() -> bytes:
    return ENROLMENT.sign(cose.CREDENTIAL, a_credential().to_payload())


def column(channel: int, readings: list[tuple[int | None, int]], times: report.Times | None = None) -> report.Column:
    writer = report.ColumnWriter(channel)
    for value, flag in readings:
        writer.add(value, flag)
    return report.Column(channel, bytes(writer.packed), writer.quality, times)


def good(*values: int) -> list[tuple[int | None, int]]:
    return [(value, report.GOOD) for value in values]


def first_report() -> report.Report:
    """Three readings of two channels, twenty seconds apart: the example of the specification."""
    return report.Report(
        "LE-0007", 1, credential.digest(signed_credential()), 1, 60_050, (report.NEVER_SET, None, 0),
        report.times_of([20_000, 40_003, 60_001], 60_050),
        [column(1, good(2150, 2151, 2149)), column(3, good(101_325, 101_325, 101_324))], [],
    )  # fmt: skip


def second_report() -> report.Report:
    """Everything a report can hold: quality, a missing value, times of its own, gaps, a set clock, a cut, a release."""
    return report.Report(
        "LE-0007", 4, report.digest(first_report().to_payload()), 2, 121_000, (report.SET, 1_790_000_123_456, 12),
        report.times_of([61_000, 81_000, 101_000, 121_000], 121_000),
        [
            column(1, [(2150, report.GOOD), (None, report.MISSING), (None, report.MISSING), (-4000, report.SUSPECT)]),
            column(4, good(2**31 - 1, -(2**31)), report.times_of([61_000, 119_999], 121_000)),
            column(33, good(0, 0, 5), report.times_of([61_000, 61_777, 119_999], 121_000)),
        ],
        [[2, 2, report.DAMAGED], [3, 3, report.NUMBER_SKIPPED]],
        30_000, (A_RELEASE[:8], True),
    )  # fmt: skip


def empty_report() -> report.Report:
    return report.Report("LE-0007", 2, report.digest(first_report().to_payload()), 1, 120_050, (report.HELD, 0, 4000),
                         report.Times(0), [], [])  # fmt: skip


def longest_report() -> bytes:
    """As many readings as fit: 960 bytes, signed."""
    made = empty_report()
    for count in range(report.MAX_PAYLOAD_BYTES, 0, -1):
        made.times, made.columns = report.Times(120_000, 100, count), [column(2, good(*[5000] * count))]
        signed = BOARD.sign(cose.REPORT, made.to_payload())
        if len(signed) <= report.MAX_REPORT_BYTES:
            return signed
    raise AssertionError("no reading fits")


def a_roster(former: bytes | None = None) -> roster.Roster:
    digest = credential.digest(signed_credential())
    return roster.Roster(
        "GW-01", 2 if former else 1, 1_790_000_000,
        [
            roster.Entry("LE-0007", BOARD.public, AGREE.public, 0, digest, roster.Post("Am_Markt-3", 537_000_000, -1)),
            roster.Entry("LE-0008", Key("8").public, Key("agree 8").public, 2, digest, roster.Post("P4")),
            roster.Entry("LE-0009", Key("9").public, Key("agree 9").public, 1, digest, None),
        ],
        [("LE-0003", BOARD.kid, "stolen in Grünau")] if former else [], former,
    )  # fmt: skip


def a_trust(version: int = 1, roots: list[Key] | None = None) -> trust.Trust:
    return trust.Trust(
        version, AUTHORITY, 2, [key.public for key in roots or ROOTS],
        {
            trust.ENROLMENT: [ENROLMENT.public], trust.RELEASE: [RELEASE[0].public, RELEASE[1].public],
            trust.ORDER: [OPERATOR.public], trust.ROSTER: [ROSTER.public],
        },
    )  # fmt: skip


def a_gateway() -> gateway_credential.GatewayCredential:
    return gateway_credential.GatewayCredential("GW-01", GATEWAY.public, (1, 10), 1_790_000_000)


def next_credential() -> bytes:
    claims = a_credential()
    claims.number, claims.sign_key, claims.agree_key = bytes(range(8, 16)), NEXT.public, NEXT_AGREE.public
    return ENROLMENT.sign(cose.CREDENTIAL, claims.to_payload())


RELEASE_DIGEST, UPDATE_NONCE = bytes(range(16)), bytes(range(8))


def orders() -> list[tuple[str, order.Order]]:
    """The orders of a rotation, of a decommission and of an update, as one board might get them."""
    return [
        ("rotate", order.Order("LE-0007", BOARD.kid, 1, order.ROTATE, None)),
        ("take", order.Order("LE-0007", BOARD.kid, 2, order.TAKE, next_credential())),
        ("decommission", order.Order("LE-0007", NEXT.kid, 3, order.DECOMMISSION, False)),
        (
            "decommission, reports may be given up",
            order.Order("LE-0007", NEXT.kid, 2**53 - 1, order.DECOMMISSION, True),
        ),
        ("stage a release", order.Order("LE-0007", NEXT.kid, 3, order.STAGE, [RELEASE_DIGEST, 7, UPDATE_NONCE])),
        (
            "arm a release",
            order.Order("LE-0007", NEXT.kid, 4, order.ARM, [RELEASE_DIGEST, UPDATE_NONCE, 1_795_330_800]),
        ),
        ("abandon a release", order.Order("LE-0007", NEXT.kid, 5, order.ABANDON, [RELEASE_DIGEST])),
    ]


def signed_order(number: int) -> bytes:
    return OPERATOR.sign(cose.ORDER, orders()[number][1].to_payload())


def receipts() -> list[tuple[str, receipt.Receipt]]:
    """What the board answers to these, and to one that comes again."""
    digests = [order.digest(signed_order(number)) for number in range(7)]
    proof = credential.Possession(digests[0], NEXT.public, NEXT_AGREE.public, 0, "pico", bytes.fromhex("e66038b713"))
    possession = NEXT.sign(cose.POSSESSION, proof.to_payload())
    return [
        ("next keys", receipt.Receipt("LE-0007", digests[0], receipt.DONE, None, 41, possession)),
        ("keys taken", receipt.Receipt("LE-0007", digests[1], receipt.DONE, None, 42, None)),
        ("out of service", receipt.Receipt("LE-0007", digests[3], receipt.DONE, None, 50, 48)),
        ("reports wait", receipt.Receipt("LE-0007", digests[2], receipt.REFUSED, receipt.REPORTS_WAIT, 50, None)),
        ("an old order", receipt.Receipt("LE-0007", digests[0], receipt.REFUSED, receipt.OLD, 0, None)),
        ("will fetch a release", receipt.Receipt("LE-0007", digests[4], receipt.DONE, None, 51, None)),
        ("not staged", receipt.Receipt("LE-0007", digests[5], receipt.REFUSED, receipt.NOT_STAGED, 52, None)),
        ("failed before", receipt.Receipt("LE-0007", digests[4], receipt.REFUSED, receipt.FAILED_BEFORE, 53, None)),
    ]


def a_grant() -> grant.Grant:
    return grant.Grant(
        bytes(range(8)), AUTHORITY, "M. Lindqvist", TECHNICIAN.public, "Gr\u00fcnau, north of the canal",
        ["LE-0101:LE-0125", "LE-9*", "LE-7"], ["Am_Markt-*"], 25, (1_790_000_000, 1_790_604_800), (1, 10),
    )  # fmt: skip


def a_bundle() -> bytes:
    payload = a_trust().to_payload()
    return trust.pack(trust.trust_file([key.sign(cose.TRUST, payload) for key in ROOTS[:2]]))


def an_identity() -> messages.Identity:
    held = (1, trust.digest(a_trust().to_payload()))
    return messages.Identity(255, "LE-0007", BOARD.kid, 12, "0.1.0", "pico", held)


def all_messages() -> list[tuple[str, messages.Message]]:
    """One of each, and the corners of those that have some."""
    signed = BOARD.sign(cose.REPORT, first_report().to_payload())
    longest = messages.ReportAnswer(255, 2**32 - 1, 2**53 - 1, 2**32 - 1, 2**32 - 1, longest_report())
    return [
        ("hello", messages.Hello(0)),
        ("identity of a blank board", messages.Identity(0, None, None, 1, "0.1.0", "pico")),
        ("identity of an enrolled board", an_identity()),
        ("first poll of a gateway", messages.Poll(1, None, 0)),
        ("poll that acknowledges and tells the time", messages.Poll(2, 1, 1, (1, 1_790_000_000_000, 12))),
        ("poll that only acknowledges", messages.Poll(3, 7, None)),
        ("report", messages.ReportAnswer(2, 1, 60_100, 59_900, 1, signed)),
        ("nothing to report", messages.ReportAnswer(3, 1, 60_200, 59_800, 0, None)),
        ("the longest message", longest),
        ("refusal", messages.Refusal(4, messages.NOT_ENROLLED)),
        ("prove", messages.Enrolment(5, messages.PROVE, bytes(range(16)))),
        (
            "possession",
            messages.Enrolment(5, messages.POSSESSION, BOARD.sign(cose.POSSESSION, a_possession().to_payload())),
        ),
        ("enrol", messages.Enrolment(6, messages.ENROL, signed_credential())),
        ("enrolled", messages.Enrolment(6, messages.ENROLLED, credential.digest(signed_credential()))),
        ("whom to believe", messages.Enrolment(7, messages.TRUST, a_bundle())),
        ("trust taken", messages.Enrolment(7, messages.TRUST_TAKEN, trust.digest(a_trust().to_payload()))),
        ("order", messages.Enrolment(8, messages.ORDER, signed_order(1))),
        (
            "receipt",
            messages.Enrolment(8, messages.RECEIPT, BOARD.sign(cose.RECEIPT, receipts()[0][1].to_payload())),
        ),
        ("receipt arrived", messages.Enrolment(9, messages.RECEIPT_ARRIVED, bytes(range(16)))),
        ("arrival noted", messages.Enrolment(9, messages.ARRIVAL_NOTED, bytes(range(16)))),
        ("no such session", messages.HINT),
        ("how far is your update?", messages.Update(10)),
        ("this release was heard to be healthy", messages.Update(11, A_RELEASE)),
        ("nothing under way", a_progress()),
        ("the first part of a file is wanted", a_progress(1, (A_RELEASE, 2, 0, 8192, 0), 4096)),
        ("the rest of a block is wanted", a_progress(1, (A_RELEASE, 161, 32767, 1, 1800), 2296)),
        ("working", a_progress(2, (A_RELEASE, 1, 0, 300, 0))),
        (
            "in a rescue after a roll-back",
            messages.Progress(255, 6, None, 0, None, 0, 2**53 - 1, bytes(8), *ROLLED_BACK),
        ),
        ("the only part of a block", messages.Data(12, 0, 0, 3, 0, 3, 0, b"abc")),
        ("the longest part", messages.Data(255, 161, 32767, 8192, 2, 4096, 3196, bytes(900))),
    ]


A_RELEASE = bytes(range(16, 32))
ROLLED_BACK = (A_RELEASE, (2, A_RELEASE))


def a_progress(
    phase: int = 0, wanted: tuple[bytes, int, int, int, int] | None = None, credit: int = 0
) -> messages.Progress:
    return messages.Progress(10, phase, wanted, credit, bytes(range(16)), 7, 5, bytes(range(8)))


# --- the files ------------------------------------------------------------------------------------------------------


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
    answer = messages.ReportAnswer(3, 1, 60_200, 59_800, 0, None).to_bytes()
    identity = an_identity().to_bytes()
    progress = a_progress(1, (A_RELEASE, 2, 0, 8192, 0), 4096).to_bytes()
    wrong: list[tuple[str, object]] = [
        ("true is not the type 1", [True, 0]),
        ("an unknown type", [6, 0]),
        ("no number", [1]),
        ("number 256", [1, 256]),
        ("number true", [1, True]),
        ("a field too many", [1, 0, None]),
        ("not an array", {1: 0}),
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
        ("an empty report", answer, put(6, b"")),
        ("a report of 961 bytes", answer, put(6, bytes(961))),
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


def report_vectors() -> list[Vector]:
    whole = second_report().to_payload()
    made = [
        vector("a first report", "report", first_report().to_payload()),
        vector("everything a report can hold", "report", whole),
        vector("an empty report", "report", empty_report().to_payload()),
    ]
    step = report.Report("a", 1, bytes(16), 0, 0, (0, None, 0), report.Times(0, 0, 1), [column(0, good(-1))], [])
    made.append(vector("the smallest report with a reading", "report", step.to_payload()))

    def drop(key: int) -> Callable[[Any], None]:
        def change(value: Any) -> None:
            del value[key]

        return change

    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("no board id", drop(1)),
        ("a key 10", put(10, 0)),
        ("a text key", put("board", 0)),
        ("sequence 0", put(2, 0)),
        ("sequence 2**53", put(2, 2**53)),
        ("a predecessor of 15 bytes", put(3, bytes(15))),
        ("boot count 2**32", put(4, 0, 2**32)),
        ("closing time -1", put(4, 1, -1)),
        ("clock state 3", put(5, 0, 3)),
        ("never set, and yet a time", put(5, 0, 0)),
        ("set, and no time", put(5, 1, None)),
        ("a time beyond the year 9999", put(5, 1, 253_402_300_800_000)),
        ("no column", put(6, 1, [])),
        ("channel 65536", put(6, 1, 0, 0, 65536)),
        ("two columns of one channel", put(6, 1, 1, 0, 1)),
        ("quality 1, which is left out", put(6, 1, 0, 2, 0, 2, 1)),
        ("quality 5", put(6, 1, 0, 2, 0, 2, 5)),
        ("quality of no reading", put(6, 1, 0, 2, 0, 1, 0)),
        ("quality that overlaps", put(6, 1, 0, 2, 1, 0, 2)),
        ("an empty quality that could be left out", put(6, 1, 0, 2, [])),
        ("quality for readings that are not there", put(6, 1, 0, 2, 1, 1, 2)),
        ("fewer values than times", put(6, 1, 0, 1, b"\x02\x02\x02")),
        ("more values than times", put(6, 1, 0, 1, b"\x02\x02\x02\x02\x02")),
        ("a value beyond 32 bits", put(6, 1, 0, 1, b"\xfe\xff\xff\xff\x0f\x02\x00\x00")),
        ("a value longer than it needs to be", put(6, 1, 0, 1, b"\x80\x00\x02\x02\x02")),
        ("a value of six bytes", put(6, 1, 0, 1, b"\x80\x80\x80\x80\x80\x01\x00\x00\x00")),
        ("the end of a value is missing", put(6, 1, 0, 1, b"\x02\x02\x02\x82")),
        ("a reading after the closing, on the grid", put(6, 0, 1, 20_001)),
        ("a reading after the closing, by differences", put(6, 1, 2, 3, 0, 58_998)),
        ("no gap", put(7, [])),
        ("a gap that ends before it begins", put(7, 1, 0, 4)),
        ("a gap that holds its own report", put(7, 1, 1, 4)),
        ("gaps out of order", put(7, 0, 0, 3)),
        ("gaps that overlap", put(7, 0, 1, 3)),
        ("a gap without a reason", put(7, 0, 2, 0)),
        ("a cut that took nothing", put(8, 0)),
        ("a cut of 2**32", put(8, 2**32)),
        ("a release of 16 bytes", put(9, 0, A_RELEASE)),
        ("a release that is neither tried nor not", put(9, 1, 1)),
        ("a release and no word about a trial", put(9, [A_RELEASE[:8]])),
    ]
    return made + [vector(name, "report", changed(whole, change)) for name, change in changes]


def credential_vectors() -> list[Vector]:
    whole, proof = a_credential().to_payload(), a_possession().to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a board id with a space", put(2, "LE 7")),
        ("issued after the year 9999", put(6, 253_402_300_800)),
        ("a number of 7 bytes", put(7, bytes(7))),
        ("a key of another type", put(8, 1, 1, 1)),
        ("a key of another curve", put(8, 1, -1, 2)),
        ("a key whose type is true", put(8, 1, 1, True)),
        ("an x of 31 bytes", put(-65537, -2, bytes(31))),
        ("a key with a kid of its own", put(-65537, 2, bytes(8))),
        ("tier 3", put(-65538, 3)),
        ("a model of 33 bytes", put(-65539, "m" * 33)),
        ("an epoch range that runs backwards", put(-65540, [2, 1])),
        ("a claim that is not ours", put(4, 0)),
    ]
    return [
        vector("credential", "credential", whole),
        *[vector(name, "credential", changed(whole, change)) for name, change in changes],
        vector("possession", "possession", proof),
        vector("a possession without a nonce", "possession", changed(proof, put(1, b""))),
        vector("a possession without a hardware id", "possession", changed(proof, put(6, b""))),
    ]


def gateway_vectors() -> list[Vector]:
    whole = a_gateway().to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a gateway id with a slash", put(1, "GW/1")),
        ("no gateway id", put(1, None)),
        ("a key of another curve", put(2, -1, 2)),
        ("a y of 33 bytes", put(2, -3, bytes(33))),
        ("a key with a kid of its own", put(2, 2, bytes(8))),
        ("trust version 0", put(3, 0, 0)),
        ("versions that run backwards", put(3, [2, 1])),
        ("three versions", put(3, [1, 2, 3])),
        ("issued after the year 9999", put(4, 253_402_300_800)),
        ("a field that is not ours", put(5, 0)),
    ]
    return [
        vector("gateway credential", "gateway", whole),
        *[vector(name, "gateway", changed(whole, change)) for name, change in changes],
        vector("a board's credential", "gateway", a_credential().to_payload()),
    ]


def order_vectors() -> list[Vector]:
    rotate, take, decommission = (one.to_payload() for _, one in orders()[:3])
    stage, arm, abandon = (one.to_payload() for _, one in orders()[4:])
    changes: list[tuple[str, bytes, Callable[[Any], None]]] = [
        ("a board id with a slash", rotate, put(1, "LE/7")),
        ("a kid of 7 bytes", rotate, put(2, bytes(7))),
        ("counter 0", rotate, put(3, 0)),
        ("counter 2**53", rotate, put(3, 2**53)),
        ("counter true", rotate, put(3, True)),
        ("action 0", rotate, put(4, 0)),
        ("action 7", rotate, put(4, 7)),
        ("an order to stage nothing", rotate, put(4, 4)),
        ("an order to abandon nothing", rotate, put(4, 6)),
        ("stage with a digest of 32 bytes", stage, put(5, 0, bytes(32))),
        ("stage with sequence -1", stage, put(5, 1, -1)),
        ("stage with a nonce of 7 bytes", stage, put(5, 2, bytes(7))),
        ("stage with two arguments", stage, put(5, [RELEASE_DIGEST, 7])),
        ("stage with what belongs to arm", arm, put(4, 4)),
        ("arm with what belongs to stage", stage, put(4, 5)),
        ("arm with a nonce of 9 bytes", arm, put(5, 1, bytes(9))),
        ("arm with no end", arm, put(5, 2, None)),
        ("arm until the year 10000", arm, put(5, 2, 253_402_300_800)),
        ("abandon with a digest and more", abandon, put(5, [RELEASE_DIGEST, 0])),
        ("abandon with a digest of 15 bytes", abandon, put(5, 0, bytes(15))),
        ("an argument where none belongs", rotate, put(5, False)),
        ("no credential to take", take, put(5, None)),
        ("an empty credential to take", take, put(5, b"")),
        ("a credential of 513 bytes", take, put(5, bytes(513))),
        ("reports given up: 1", decommission, put(5, 1)),
        ("reports given up: null", decommission, put(5, None)),
        ("a field that is not ours", rotate, put(6, None)),
    ]
    return [
        *[vector(name, "order", one.to_payload()) for name, one in orders()],
        *[vector(name, "order", changed(data, change)) for name, data, change in changes],
        vector("a receipt", "order", receipts()[0][1].to_payload()),
    ]


def receipt_vectors() -> list[Vector]:
    made = {name: one.to_payload() for name, one in receipts()}
    done, refused, last = made["next keys"], made["reports wait"], made["out of service"]
    changes: list[tuple[str, bytes, Callable[[Any], None]]] = [
        ("no board id", done, put(1, None)),
        ("a digest of 32 bytes", done, put(2, bytes(32))),
        ("outcome 2", done, put(3, 2)),
        ("outcome true", refused, put(3, True)),
        ("done, and yet a reason", done, put(4, receipt.OLD)),
        ("refused for no reason", refused, put(4, None)),
        ("reason 0", refused, put(4, 0)),
        ("reason 256", refused, put(4, 256)),
        ("a reason that is not known yet", refused, put(4, 255)),
        ("sequence -1", done, put(5, -1)),
        ("a refused order with a result", refused, put(6, 50)),
        ("next keys of no byte", done, put(6, b"")),
        ("next keys of 513 bytes", done, put(6, bytes(513))),
        ("acknowledged beyond the last report", last, put(6, 51)),
        ("acknowledged: true", last, put(6, True)),
        ("a field that is not ours", done, put(7, None)),
    ]
    return [
        *[vector(name, "receipt", data) for name, data in made.items()],
        *[vector(name, "receipt", changed(data, change)) for name, data, change in changes],
        vector("an order", "receipt", orders()[0][1].to_payload()),
    ]


def grant_vectors() -> list[Vector]:
    whole = a_grant().to_payload()
    at, post = 1_790_000_000, "Am_Markt-3"
    asked = [
        ["LE-0101", post, at], ["LE-0125", post, at], ["LE-0126", post, at], ["LE-0100", post, at],
        ["LE-00101", post, at], ["LE-011", post, at], ["LF-0101", post, at], ["LE-01.1", post, at],
        ["LE-9", post, at], ["LE-9x", post, at], ["LE-8", post, at], ["LE-7", post, at], ["LE-77", post, at],
        ["LE-7", "Am_Markt-", at], ["LE-7", "Am_Hafen-3", at], ["LE-7", None, at],
        ["LE-7", post, at - 1], ["LE-7", post, 1_790_604_800], ["LE-7", post, 1_790_604_801],
    ]  # fmt: skip
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a number of 7 bytes", put(1, bytes(7))),
        ("an authority of 65 bytes", put(2, "a" * 65)),
        ("no technician", put(3, "")),
        ("a technician with a control character", put(3, "M\x1b[2J")),
        ("a key of another curve", put(4, -1, 2)),
        ("a key with a kid of its own", put(4, 2, bytes(8))),
        ("no site", put(5, None)),
        ("no board ids", put(6, [])),
        ("nine patterns of board ids", put(6, ["*"] * 9)),
        ("an empty pattern", put(6, 0, "")),
        ("a pattern with a star inside", put(6, 0, "LE*7")),
        ("a pattern of two stars", put(6, 0, "**")),
        ("a pattern with a space", put(6, 0, "LE 7*")),
        ("a pattern of 33 characters and a star", put(6, 0, "a" * 33 + "*")),
        ("a range that counts down", put(6, 0, "LE-0125:LE-0101")),
        ("a range of two stems", put(6, 0, "LE-0101:LF-0125")),
        ("a range of two lengths", put(6, 0, "LE-1:LE-10")),
        ("a range without a number", put(6, 0, "LE:LE")),
        ("a range of three", put(6, 0, "LE-1:LE-2:LE-3")),
        ("a range without an end", put(6, 0, "LE-1:")),
        ("a pattern of posts that is none", put(7, 0, 3)),
        ("no board", put(8, 0)),
        ("1001 boards", put(8, 1001)),
        ("a number of boards that is true", put(8, True)),
        ("a time that runs backwards", put(9, [2, 1])),
        ("an end after the year 9999", put(9, 1, 253_402_300_800)),
        ("trust version 0", put(10, 0, 0)),
        ("versions that run backwards", put(10, [2, 1])),
        ("a field that is not ours", put(11, 0)),
    ]
    return [
        vector("grant", "grant", whole, asked=asked),
        vector("a grant for any board anywhere", "grant", changed(changed(whole, put(6, ["*"])), put(7, [])),
               asked=[["LE-7", None, at], ["x", "y", at]]),
        *[vector(name, "grant", changed(whole, change)) for name, change in changes],
        vector("a gateway's credential", "grant", a_gateway().to_payload()),
    ]  # fmt: skip


def roster_vectors() -> list[Vector]:
    first = a_roster().to_payload()
    whole = a_roster(roster.digest(first)).to_payload()
    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a board twice", put(4, 1, 0, "LE-0007")),
        ("a latitude beyond the pole", put(4, 0, 5, 1, 900_000_001)),
        ("a longitude beyond the antimeridian", put(4, 0, 5, 2, -1_800_000_001)),
        ("a latitude alone", put(4, 0, 5, 2, None)),
        ("a key of 63 bytes", put(4, 0, 1, bytes(63))),
        ("257 boards", put(4, [[f"B{number}", bytes(64), bytes(64), 0, bytes(16), None] for number in range(257)])),
        ("a reason of 65 bytes", put(5, 0, 2, "r" * 65)),
        ("a former roster of 16 bytes", put(6, bytes(16))),
    ]
    made = a_roster()
    made.entries[0].former = (
        roster.Former(Key("before").public, bytes(16), 0), roster.Former(Key("until").public, bytes(range(16)), 41),
    )  # fmt: skip
    rotated = made.to_payload()
    changes_of_former: list[tuple[str, Callable[[Any], None]]] = [
        ("an empty list of former keys", put(4, 0, 6, [])),
        ("former keys: null", put(4, 0, 6, None)),
        ("three former keys", put(4, 0, 6, [[Key(name).public, bytes(16), 5] for name in "abc"])),
        ("a former key that another board has", put(4, 0, 6, 0, 0, Key("9").public)),
        ("a former key that is the present one", put(4, 0, 6, 1, 0, BOARD.public)),
        ("former keys out of order", put(4, 0, 6, 0, 2, 42)),
        ("a former key without its last report", put(4, 0, 6, 0, [Key("before").public, bytes(16)])),
        ("a former key of 63 bytes", put(4, 0, 6, 0, 0, bytes(63))),
    ]
    return [
        vector("a first roster", "roster", first),
        vector("the next one", "roster", whole),
        vector("a board whose keys were rotated twice", "roster", rotated),
        *[vector(name, "roster", changed(rotated, change)) for name, change in changes_of_former],
        *[vector(name, "roster", changed(whole, change)) for name, change in changes],
    ]


def trust_vectors() -> list[Vector]:
    whole = a_trust().to_payload()
    fourth = Key("root 4")
    next_one = a_trust(2, [ROOTS[1], ROOTS[2], fourth]).to_payload()
    other = a_trust(1, [ROOTS[0], ROOTS[1], fourth]).to_payload()

    def file(name: str, payload: bytes, signers: list[Key], former: bytes | None = None) -> Vector:
        signed = [key.sign(cose.TRUST, payload) for key in signers]
        good = []
        for key, one in zip(signers, signed, strict=True):
            parts = cose.parse(one, trust.MAX_TRUST_BYTES)
            message = cose.to_be_signed(cose.TRUST, parts.protected, parts.payload)
            good.append([key.public.hex(), hashlib.sha256(message).hexdigest(), parts.signature.hex()])
        more: dict[str, Any] = {"good": good}
        if former is not None:
            more["former"] = former.hex()
        return vector(name, "trust file", trust.trust_file(signed), **more)

    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("version 0", put(1, 0)),
        ("a threshold of no root", put(3, 0)),
        ("a threshold above the roots", put(3, 4)),
        ("a root twice", put(4, 1, ROOTS[0].public)),
        ("a role without a key", put(5, "order", [])),
        ("a role that is not ours", put(5, "mayor", [ROOTS[0].public])),
        ("two release keys must sign", put(6, 2)),
        ("one release key, said though it goes without saying", put(6, 1)),
        ("more release keys than there are", put(6, 3)),
    ]
    bundles: list[tuple[str, Callable[[Any], None]]] = [
        ("a bundle without signatures", put(1, [])),
        ("a bundle of nine signatures", put(1, [[bytes(8), bytes(64)]] * 9)),
        ("a bundle whose kid has 7 bytes", put(1, 0, 0, bytes(7))),
        ("a bundle whose signature has 63 bytes", put(1, 1, 1, bytes(63))),
        ("a bundle of an empty trust", put(0, b"")),
        ("a bundle that holds a list", put(0, [])),
    ]
    return [
        vector("trust", "trust", whole),
        *[vector(name, "trust", changed(whole, change)) for name, change in changes],
        file("two of three roots", whole, ROOTS[:2]),
        file("one root of two needed", whole, ROOTS[:1]),
        file("one root twice", whole, [ROOTS[0], ROOTS[0]]),
        file("a stranger beside one root", whole, [ROOTS[0], fourth]),
        file("the same again", whole, ROOTS[1:], whole),
        file("a root replaced, signed by old and new", next_one, [ROOTS[1], ROOTS[2]], whole),
        file("the new roots alone", next_one, [ROOTS[2], fourth], whole),
        file("an older version", whole, ROOTS[:2], next_one),
        file("another content of the same version", other, ROOTS[:2], whole),
        vector("trust bundle", "trust bundle", a_bundle()),
        *[vector(name, "trust bundle", changed(a_bundle(), change)) for name, change in bundles],
    ]


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


FILES: dict[str, tuple[str, Callable[[], list[Vector]]]] = {
    "cbor": ("protocol/README.md, 1; accepted ones from RFC 8949, appendix A", cbor_vectors),
    "frame": ("protocol/README.md, 2", frame_vectors),
    "messages": ("protocol/README.md, 3", message_vectors),
    "cose": ("protocol/README.md, 4", cose_vectors),
    "credential": ("protocol/README.md, 5", credential_vectors),
    "gateway": ("protocol/README.md, 5.4", gateway_vectors),
    "order": ("protocol/README.md, 12", order_vectors),
    "receipt": ("protocol/README.md, 12", receipt_vectors),
    "grant": ("protocol/README.md, 5.5", grant_vectors),
    "report": ("protocol/README.md, 6", report_vectors),
    "roster": ("protocol/README.md, 7", roster_vectors),
    "trust": ("protocol/README.md, 8", trust_vectors),
    "envelope": ("protocol/README.md, 11", releases.envelope_vectors),
    "index": ("protocol/README.md, 11.3", releases.index_vectors),
}


def text_of(name: str) -> str:
    """What stands in the file NAME.json."""
    about, vectors = FILES[name]
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, sort_keys=True) for one in vectors())
    return f'{{"about": {json.dumps(about)}, "vectors": [\n{lines}\n]}}\n'


def main() -> None:
    """Writes all files, and the hexdumps of the specification."""
    for name in FILES:
        (HERE / f"{name}.json").write_text(text_of(name), encoding="utf-8")
    readme = HERE.parent / "README.md"
    readme.write_text(hexdump.with_dumps(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
