"""Messages: what the gateway asks and what a board answers (protocol/README.md, 3).

A board needs half of it, `board_messages`: the messages themselves, and how questions are read. Here is the whole.
"""

from laterne_protocol import fields
from laterne_protocol.board_messages import (
    ALREADY_ENROLLED,
    ARRIVAL_NOTED,
    CREDENTIAL_REFUSED,
    DATA,
    ENROL,
    ENROLLED,
    HINT,
    IDENTITY,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_ITEMS,
    NOT_ENROLLED,
    NOT_READY,
    ORDER,
    POSSESSION,
    PROGRESS,
    PROVE,
    RECEIPT,
    RECEIPT_ARRIVED,
    REFUSAL,
    REPORT,
    SESSION_NEEDED,
    TRUST,
    TRUST_TAKEN,
    UPDATE,
    Enrolment,
    Hello,
    Identity,
    Poll,
    Refusal,
    items_of,
    question_in,
    report_answer,
)
from laterne_protocol.errors import CborError, MessageError, ObjectError
from laterne_protocol.report import MAX_REPORT_BYTES
from laterne_protocol.update_messages import (
    IDLE,
    LEAST_WINDOW_BITS,
    MAX_BLOCK_BYTES,
    MAX_CODE_BYTES,
    MAX_ITEM,
    MAX_START,
    NONCE_BYTES,
    RESCUE,
    Data,
    Progress,
    Update,
    digest_of,
)

__all__ = (
    "ALREADY_ENROLLED",
    "ARRIVAL_NOTED",
    "CREDENTIAL_REFUSED",
    "DATA",
    "ENROL",
    "ENROLLED",
    "HINT",
    "MAX_ANSWER_ITEMS",
    "MAX_MESSAGE_BYTES",
    "MAX_MESSAGE_ITEMS",
    "MAX_RELEASE_BYTES",
    "MAX_REPORTS",
    "NOT_ENROLLED",
    "NOT_READY",
    "ORDER",
    "POSSESSION",
    "PROGRESS",
    "PROVE",
    "RECEIPT",
    "RECEIPT_ARRIVED",
    "REFUSALS",
    "SESSION_NEEDED",
    "TRUST",
    "TRUST_TAKEN",
    "UPDATE",
    "Data",
    "Enrolment",
    "Hello",
    "Identity",
    "Poll",
    "Progress",
    "Refusal",
    "ReportAnswer",
    "Update",
    "message_of",
)

MAX_ANSWER_ITEMS = 21  # a progress: 6, the 7 of what is wanted, 6 about the board and the 2 of its last result
MAX_WINDOW_BITS = 15  # RFC 1951 knows no larger one
MAX_REPORTS = 8  # in an answer; the shortest report there can be has 118 bytes: 7 fit into a frame
MAX_RELEASE_BYTES = 32

REFUSALS = {
    ALREADY_ENROLLED: "the board is enrolled already",
    NOT_ENROLLED: "the board is not enrolled yet",
    CREDENTIAL_REFUSED: "the credential, the trust or the order is not one for this board",
    NOT_READY: "the board is busy with something that takes seconds, or is asked too early: ask again",
    SESSION_NEEDED: "the board is enrolled and answers in a session only",
}


class ReportAnswer:
    """Board: my answer to a poll.

    boot, ticks_ms: the board's boot count and milliseconds since that boot when it began this answer.
    due_ms: until its open report is expected to close. waiting: reports in its backlog, these included.
    reports: the signed bytes of the oldest reports after the one asked for, in order, as many as this message holds.
    """

    def __init__(
        self,
        number: int,
        boot: int,
        ticks_ms: int,
        due_ms: int,
        waiting: int,
        reports: "list[bytes]",
    ) -> None:
        self.number = number
        self.boot = boot
        self.ticks_ms = ticks_ms
        self.due_ms = due_ms
        self.waiting = waiting
        self.reports = reports

    def to_bytes(self) -> bytes:
        return report_answer(self.number, self.boot, self.ticks_ms, self.due_ms, self.waiting, self.reports)


if False:  # for type checkers: MicroPython has no unions
    Message = Hello | Identity | Poll | ReportAnswer | Refusal | Enrolment | Update | Progress | Data


def message_of(payload: bytes) -> "Message":
    """The message in a frame's payload. Raises MessageError and nothing else: it comes from a stranger."""
    try:
        items = items_of(payload, MAX_ANSWER_ITEMS)
        found = question_in(items) or _answer_in(items)
    except (CborError, ObjectError) as why:
        raise MessageError(str(why))
    if found is None:
        raise MessageError("not a message of ours")
    return found


def _answer_in(items: "list[object]") -> "Identity | ReportAnswer | Refusal | Enrolment | Progress | None":
    kind = fields.integer(items[0], "type", 0, 255)
    number = fields.integer(items[1], "number", 0, 255)
    size = len(items)
    if kind == REPORT and size == 7:
        return ReportAnswer(
            number,
            fields.integer(items[2], "boot count", 0, fields.MAX_UINT32),
            fields.integer(items[3], "ticks"),
            fields.integer(items[4], "due", 0, fields.MAX_UINT32),
            fields.integer(items[5], "waiting", 0, fields.MAX_UINT32),
            [
                fields.byte_string(one, "report", 1, MAX_REPORT_BYTES)
                for one in fields.array(items[6], "reports", 0, MAX_REPORTS)
            ],
        )
    if kind == IDENTITY and size == 8:
        return Identity(
            number,
            None if items[2] is None else fields.board_id(items[2]),
            None if items[3] is None else fields.byte_string(items[3], "kid", 8),
            fields.integer(items[4], "boot count", 0, fields.MAX_UINT32),
            fields.text(items[5], "release", MAX_RELEASE_BYTES),
            fields.text(items[6], "model", fields.MAX_MODEL_BYTES),
            _trust_of(items[7]),
        )
    if kind == REFUSAL and size == 3:
        return Refusal(number, fields.integer(items[2], "reason", 1, 255))
    if kind in (ENROLLED, TRUST_TAKEN, ARRIVAL_NOTED) and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "digest", fields.DIGEST_BYTES))
    if kind == POSSESSION and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "possession", 1, fields.MAX_CREDENTIAL_BYTES))
    if kind == RECEIPT and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "receipt", 1, fields.MAX_RECEIPT_BYTES))
    if kind == PROGRESS:
        return _progress_in(number, items)
    return None


def _trust_of(value: object) -> "tuple[int, bytes] | None":
    if value is None:
        return None
    version, digest = fields.array(value, "trust", 2, 2)
    return fields.integer(version, "trust version", 1), fields.byte_string(digest, "digest", fields.DIGEST_BYTES)


def _progress_in(number: int, items: "list[object]") -> "Progress | None":
    if len(items) != 6:
        return None
    running, sequence, floor, nonce, staged, result = fields.array(items[5], "about", 6, 6)
    return Progress(
        number,
        fields.integer(items[2], "phase", IDLE, RESCUE),
        _wanted(items[3]),
        fields.integer(items[4], "credit", 0, MAX_CODE_BYTES),
        digest_of(running),
        fields.integer(sequence, "sequence"),
        fields.integer(floor, "floor"),
        fields.byte_string(nonce, "nonce", NONCE_BYTES),
        digest_of(staged),
        _result(result),
    )


def _wanted(value: object) -> "tuple[bytes, int, int, int, int, int, int] | None":
    if value is None:
        return None
    digest, item, start, most, have, window, behind = fields.array(value, "wanted", 7, 7)
    bits = fields.integer(window, "window", LEAST_WINDOW_BITS, MAX_WINDOW_BITS)
    return (
        fields.byte_string(digest, "release digest", fields.DIGEST_BYTES),
        fields.integer(item, "item", 0, MAX_ITEM),
        fields.integer(start, "start", 0, MAX_START),
        fields.integer(most, "most", 1, MAX_BLOCK_BYTES),
        fields.integer(have, "have", 0, MAX_CODE_BYTES),
        bits,
        fields.integer(behind, "behind", 0, 1 << bits),
    )


def _result(value: object) -> "tuple[int, bytes] | None":
    if value is None:
        return None
    code, digest = fields.array(value, "result", 2, 2)
    return fields.integer(code, "result code", 1, 255), fields.byte_string(digest, "digest", fields.DIGEST_BYTES)
