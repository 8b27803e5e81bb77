"""Messages as a board needs them: it reads questions and writes answers (protocol/README.md, 3).

One question, one answer: a board never speaks unasked, on any line. Each question has a number, which the answer
repeats, so that a late answer is not taken for another. A message is a CBOR array whose first item is its type. How
the answers are read stands in `messages`; those of an update stand in `update_messages`, which is in memory for these.
"""

from laterne_protocol import cbor, fields
from laterne_protocol.errors import CborError, MessageError, ObjectError

MAX_MESSAGE_BYTES = 1000  # a frame's payload less what a record adds
MAX_MESSAGE_ITEMS = 11  # a poll: 5 and the 3 of its time; the rest is room. It bounds what a stranger makes us hold

HELLO, IDENTITY, POLL, REPORT, REFUSAL = 1, 2, 3, 4, 5
PROVE, POSSESSION, ENROL, ENROLLED, TRUST, TRUST_TAKEN = 16, 17, 18, 19, 20, 21  # steps of an enrolment
ORDER, RECEIPT, RECEIPT_ARRIVED, ARRIVAL_NOTED = 22, 23, 24, 25  # of an order; TRUST and these: the answer is one more
UPDATE, PROGRESS, DATA = 26, 27, 28  # of an update (update_messages)

# Why a board refuses a question.
ALREADY_ENROLLED, NOT_ENROLLED, CREDENTIAL_REFUSED, NOT_READY, SESSION_NEEDED = 1, 2, 3, 4, 5


class Hello:
    """Gateway or technician: who is there? number: 0..255, repeated in the answer (in every question)."""

    def __init__(self, number: int) -> None:
        self.number = number

    def to_bytes(self) -> bytes:
        return cbor.encode([HELLO, self.number])


class Identity:
    """Board: who I am.

    board: its id, or None before enrolment. kid: of its signing key, 8 bytes, or None while there is none.
    boot: how often it has started. release: of the firmware. model: of the hardware. trust: version and digest of the
    trust that it holds, as (version, 16 bytes), or None when there is none to tell.
    """

    def __init__(
        self,
        number: int,
        board: "str | None",
        kid: "bytes | None",
        boot: int,
        release: str,
        model: str,
        trust: "tuple[int, bytes] | None" = None,
    ) -> None:
        self.number = number
        self.board = board
        self.kid = kid
        self.boot = boot
        self.release = release
        self.model = model
        self.trust = trust

    def to_bytes(self) -> bytes:
        trust = None if self.trust is None else [self.trust[0], self.trust[1]]
        return cbor.encode([IDENTITY, self.number, self.board, self.kid, self.boot, self.release, self.model, trust])


class Poll:
    """Gateway: what I have, what I want, what time it is.

    acknowledged: reports up to this sequence are on the gateway's disk, the board forgets them; None: forget nothing.
    after: give me the oldest reports whose sequences are greater; None: give me none.
    time: (boot, offset_ms, uncertainty_ms): UTC milliseconds = milliseconds since that boot + offset;
    None: I do not know.
    """

    def __init__(
        self, number: int, acknowledged: "int | None", after: "int | None", time: "tuple[int, int, int] | None" = None
    ) -> None:
        self.number = number
        self.acknowledged = acknowledged
        self.after = after
        self.time = time

    def to_bytes(self) -> bytes:
        time = None if self.time is None else [self.time[0], self.time[1], self.time[2]]
        return cbor.encode([POLL, self.number, self.acknowledged, self.after, time])


def report_answer(number: int, boot: int, ticks_ms: int, due_ms: int, waiting: int, reports: "list[bytes]") -> bytes:
    """A board's answer to a poll: the bytes of a messages.ReportAnswer. A class of it would be memory on a board."""
    return cbor.encode([REPORT, number, boot, ticks_ms, due_ms, waiting, reports])


class Refusal:
    """Board: I will not, because. reason: 1..255, a key of messages.REFUSALS.

    HINT, in the clear: the answer to a record of a session that the board does not have, whose number it cannot read.
    """

    def __init__(self, number: int, reason: int) -> None:
        self.number = number
        self.reason = reason

    def to_bytes(self) -> bytes:
        return cbor.encode([REFUSAL, self.number, self.reason])


HINT = Refusal(0, SESSION_NEEDED)


class Enrolment:
    """One step of an enrolment, or of an order; each carries one string of bytes.

    PROVE, technician: a fresh nonce of 16 bytes, prove over it that you hold your keys. POSSESSION, board: a COSE_Sign1
    under laterne/possession/1. ENROL, technician: the credential, a COSE_Sign1 under laterne/credential/1.
    ENROLLED, board: the credential is on my flash, its digest of 16 bytes. TRUST, technician: whom to believe, a trust
    bundle (trust.pack). TRUST_TAKEN, board: it is on my flash, the digest of its payload, 16 bytes.
    ORDER, gateway: a COSE_Sign1 under laterne/order/1. RECEIPT, board: one under laterne/receipt/1. RECEIPT_ARRIVED,
    gateway: the broker has the receipt with this digest, 16 bytes. ARRIVAL_NOTED, board: I know, the same digest.
    """

    def __init__(self, number: int, step: int, body: bytes) -> None:
        self.number = number
        self.step = step
        self.body = body

    def to_bytes(self) -> bytes:
        return cbor.encode([self.step, self.number, self.body])


if False:  # for type checkers: MicroPython has no unions
    from laterne_protocol.update_messages import Data, Update

    Question = Hello | Poll | Enrolment | Update | Data


def question_of(payload: bytes) -> "Question | None":
    """The question in a frame's payload; None for what asks nothing, such as another board's answer on the bus.

    Raises MessageError and nothing else: it comes from a stranger.
    """
    try:
        return question_in(items_of(payload))
    except (CborError, ObjectError) as why:
        raise MessageError(str(why))


def items_of(payload: bytes, max_items: int = MAX_MESSAGE_ITEMS) -> "list[object]":
    """The items of a message: its type, its number, and what belongs to them. Raises CborError or ObjectError."""
    return fields.array(cbor.decode(payload, MAX_MESSAGE_BYTES, (), max_items), "message", 2, 9)


def question_in(items: "list[object]") -> "Question | None":
    """As question_of(), but raises ObjectError."""
    kind = fields.integer(items[0], "type", 0, 255)
    number = fields.integer(items[1], "number", 0, 255)
    size = len(items)
    if kind == POLL and size == 5:
        return Poll(number, _optional(items[2], "acknowledged"), _optional(items[3], "after"), _time_of(items[4]))
    if kind == HELLO and size == 2:
        return Hello(number)
    if kind == PROVE and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "nonce", fields.DIGEST_BYTES))
    if kind == ENROL and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "credential", 1, fields.MAX_CREDENTIAL_BYTES))
    if kind == TRUST and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "trust bundle", 1, fields.MAX_TRUST_BUNDLE_BYTES))
    if kind == ORDER and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "order", 1, fields.MAX_ORDER_BYTES))
    if kind == RECEIPT_ARRIVED and size == 3:
        return Enrolment(number, kind, fields.byte_string(items[2], "digest", fields.DIGEST_BYTES))
    if kind == UPDATE or kind == DATA:
        from laterne_protocol import update_messages

        return update_messages.question_in(kind, number, items)
    return None


def _optional(value: object, name: str) -> "int | None":
    return None if value is None else fields.integer(value, name)


def _time_of(value: object) -> "tuple[int, int, int] | None":
    if value is None:
        return None
    boot, offset, uncertainty = fields.array(value, "time", 3, 3)
    # UTC - milliseconds since boot, never negative: no board of ours started before 1970.
    return (
        fields.integer(boot, "boot count", 0, fields.MAX_UINT32),
        fields.integer(offset, "offset", 0, fields.MAX_UTC_MS),
        fields.integer(uncertainty, "uncertainty", 0, fields.MAX_UINT32),
    )
