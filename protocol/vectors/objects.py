"""What the objects in the vectors are: boards, reports, orders and whatever else is signed, by keys made from names."""

from __future__ import annotations  # messages.Message is for type checkers only

from making import (
    AGREE,
    BOARD,
    ENROLMENT,
    GATEWAY,
    NEXT,
    NEXT_AGREE,
    OPERATOR,
    RELEASE,
    ROOTS,
    ROSTER,
    TECHNICIAN,
    Key,
)

from laterne_protocol import (
    cose,
    credential,
    gateway_credential,
    grant,
    messages,
    order,
    receipt,
    report,
    roster,
    trust,
)

AUTHORITY = "Stadtwerke Musterstadt"


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
    longest = messages.ReportAnswer(255, 2**32 - 1, 2**53 - 1, 2**32 - 1, 2**32 - 1, [longest_report()])
    return [
        ("hello", messages.Hello(0)),
        ("identity of a blank board", messages.Identity(0, None, None, 1, "0.1.0", "pico")),
        ("identity of an enrolled board", an_identity()),
        ("first poll of a gateway", messages.Poll(1, None, 0)),
        ("poll that acknowledges and tells the time", messages.Poll(2, 1, 1, (1, 1_790_000_000_000, 12))),
        ("poll that only acknowledges", messages.Poll(3, 7, None)),
        ("report", messages.ReportAnswer(2, 1, 60_100, 59_900, 1, [signed])),
        ("reports that follow one another", messages.ReportAnswer(2, 1, 60_100, 59_900, 3, [signed, signed, signed])),
        ("nothing to report", messages.ReportAnswer(3, 1, 60_200, 59_800, 0, [])),
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
        ("the first part of a file is wanted", a_progress(1, (A_RELEASE, 2, 0, 8192, 0, 10, 0), 4096)),
        ("the rest of a block is wanted", a_progress(1, (A_RELEASE, 161, 32767, 1, 1800, 15, 32768), 2296)),
        (
            "a block that goes on with the one before is wanted",
            a_progress(1, (A_RELEASE, 9, 1200, 5000, 0, 12, 4096), 4096),
        ),
        ("working", a_progress(2, (A_RELEASE, 1, 0, 300, 0, 10, 0))),
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
    phase: int = 0,
    wanted: tuple[bytes, int, int, int, int, int, int] | None = None,
    credit: int = 0,
) -> messages.Progress:
    return messages.Progress(10, phase, wanted, credit, bytes(range(16)), 7, 5, bytes(range(8)))
