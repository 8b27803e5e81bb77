"""With whom an enrolled board speaks: its sessions, and the handshakes that make them (protocol/README.md, 9 and 10).

What a frame for this board gets (`link` holds the table):

    the board is        in the clear (1)     handshake (2)        record (3)
    not enrolled        its answer           nothing              nothing
    enrolled            "in a session only"  see below            of a session it has: its answer, in a record
                                                                  of another one: the hint that it has none such

What is kept, all of it in RAM, so that a reset ends every session and no counter is ever used twice:

    session     carries messages, until its end or until the next one has proved itself
    following   made by a handshake, not used yet: its first record that opens makes it the session. Until then the
                former one goes on, because message_4 may have been lost and the gateway has no new keys
    question,   the last step that cost work, and what came of it: the same question gets the same answer, at no cost.
    answer      That is also how an answer that took longer than ANSWER_WITHIN_MS is given: a board is never late
    leaving     a newer trust that came in this session does not believe its gateway: still newer trusts may come in
                it, one version after the other; anything else ends it
    half        what message_3 needs of a handshake, as bytes, between message_1 and message_3: its modules leave memory
                after each message

Anybody on the line can make a board work for seconds: an introduction that it does not know and a message_1 cost one of
a Bucket, there is one piece of work at a time, and a new message_1 displaces a handshake only when that one has made no
step for HOLDS_MS. What is worked at runs as a task of its own, in steps. If there is no memory for it nothing is
answered, the work is undone, and the gateway will ask again.
"""

import asyncio
import gc
import select
import sys

from micropython import const

from laterne_firmware.identity import unload_arithmetic
from laterne_firmware.memory import unload
from laterne_firmware.supervisor import let_make_room, stepping
from laterne_protocol.report import digest
from laterne_protocol.session import SessionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.clock import Clock
    from laterne_firmware.identity import Identity
    from laterne_firmware.reports import Reporter
    from laterne_firmware.updating import Updating
    from laterne_protocol.session import Session

    # Release digest, why it is refused or 0, its envelope, SHA-256 of its index, size of that.
    Judged = tuple[bytes, int, bytes, bytes, int]

    # message_1; our connection; its ephemeral key, or why it is none; our own ephemeral key, private and public; what
    # that and our static key share with it; what it shares with the gateway's static key, or why that is none; our
    # static key.
    Half = tuple[bytes, bytes, bytes | ValueError, tuple[bytes, bytes], bytes, bytes, bytes | ValueError, bytes]

# Steps, the first byte of a handshake's frame: as in edhoc_responder, which is in memory for handshakes only.
MESSAGE_1, MESSAGE_3, INTRODUCTION, INTRODUCED = 1, 3, 6, 7
# Work of the same kind that comes in records, by the types of messages: a newer trust, an order, a receipt's arrival,
TRUST, ORDER, RECEIPT_ARRIVED = 20, 22, 24
UPDATE = 26  # the envelope of a release
BY_USB = 30  # an order that a technician brings

ANSWER_WITHIN_MS = 100  # of the question's last byte; later it waits for the same question
HOLDS_MS = 10000  # so long a handshake keeps others out after its last step
_FORGOTTEN_MS = const(40000)  # a gateway gives up after 30 s: then the modules leave memory
_LOOK_MS = const(20)
_USB_BYTES = const(256)  # looked at in a second: noise without an end costs no more
_LAST_WORDS_MS = const(3000)  # the gateway may ask for the last answer once more
# Free before any work begins: the most that it takes (README.md, "Memory"), and what all other tasks take meanwhile.
NEEDED_BYTES = 28 * 1024
AMPLE_BYTES = 56 * 1024  # with less an update rests meanwhile: what is free lies in pieces

# The first byte of a question -> who works at it. What is not here is not for a board.
DONE_BY = {
    INTRODUCTION: "laterne_firmware.judging",
    MESSAGE_1: "laterne_firmware.handshakes",
    MESSAGE_3: "laterne_firmware.handshakes",
    TRUST: "laterne_firmware.judging",
    ORDER: "laterne_firmware.orders",
    RECEIPT_ARRIVED: "laterne_firmware.orders",
    UPDATE: "laterne_firmware.judging",
    BY_USB: "laterne_firmware.orders",
}

LOADED_MEANWHILE = (
    "laterne_firmware.handshakes",
    "laterne_firmware.multiplying",
    "laterne_firmware.introductions",
    "laterne_firmware.judging",
    "laterne_firmware.known_gateway",
    "laterne_firmware.orders",
    "laterne_firmware.usb_orders",
    "laterne_firmware.rotation",
    "laterne_firmware.decommission",
    "laterne_firmware.release_check",
    "laterne_firmware.release_orders",
    "laterne_firmware.ordered",
    "laterne_firmware.slots",
    "laterne_firmware.slot_check",
    "laterne_protocol.release_index",
    "laterne_firmware.executed",
    "laterne_firmware.first_keys",
    "laterne_protocol.edhoc_responder",
    "laterne_protocol.edhoc_keys",
    "laterne_protocol.edhoc_messages",
    "laterne_protocol.gateway_credential",
    "laterne_protocol.trust",
    "laterne_protocol.order",
    "laterne_protocol.receipt",
    "laterne_protocol.manifest",
    "laterne_protocol.credential",
    "laterne_protocol.public_keys",
    "laterne_protocol.cose",
)


UPDATING = ("laterne_firmware.updating", "laterne_firmware.ordered", "laterne_protocol.update_messages")


class Bucket:
    """Gives SIZE at once, and one more every REFILL_MS.

    Kept is one number: the moment at which it is full again. Each that is taken moves it on by REFILL_MS, and it can be
    at most SIZE of these ahead.
    """

    SIZE = 4
    REFILL_MS = 30000

    def __init__(self) -> None:
        self._full_ms = 0

    def take(self, now_ms: int) -> bool:
        """Whether there was one left, which is taken."""
        full_ms = max(self._full_ms, now_ms) + self.REFILL_MS
        if full_ms - now_ms > self.SIZE * self.REFILL_MS:
            return False
        self._full_ms = full_ms
        return True


class Sessions:
    """random: for keys. log: a line for the technician. address: of this board on its bus. reporter, about: what orders
    act on, and what a board says of itself beside its keys (Link).

    session, following, responder: see above. stepped_ms: last step of the handshake that is not yet used, None when
    there is none. gateway_digest, gateway_kid: of the gateway that is known, digest of its credential and kid of its
    agreement key, empty when there is none. begun: handshakes for which a message_1 was worked at. unserved: questions
    that the bucket left without an answer. out_of_memory: pieces of work that ended for lack of memory.
    formerly: whether the next handshake is made with the former agreement key, while there is one. ended: this start is
    to end when the answer has gone out. nonce: what the next order about a release must repeat, 8 bytes. updating: of
    the release that was ordered, while there is one; it may leave memory at any time, and leaves here what is costly
    to find again. judged: what came of the release's envelope, or of its install. staged: release, slot that is whole,
    SHA-256 of its index, sequence. blocks: of the release that were received since it was ordered, or since the start.
    begun_again: how often its install has found no memory since then.
    floor: of a board that has lost the record of it (`floors`), else 0.
    """

    def __init__(
        self,
        identity: "Identity",
        clock: "Clock",
        random: "Callable[[int], bytes]",
        log: "Callable[[str], None]",
        address: int,
        reporter: "Reporter",
        about: "tuple[int, str, bytes]",
    ) -> None:
        from laterne_firmware import known_gateway

        self.identity = identity
        self.clock = clock
        self.random = random
        self.log = log
        self.address = address
        self.reporter = reporter
        self.about = about
        self.formerly = True
        self.ended = False
        self.nonce = random(8)
        self.updating: "Updating | None" = None
        self.judged = None  # type: Judged | None
        self.staged = None  # type: tuple[bytes, str, bytes, int] | None
        self.blocks = 0
        self.begun_again = 0
        self.floor = 0
        known = known_gateway.load()
        self.gateway_digest = known.digest if known else b""
        self.gateway_kid = known.kid if known else b""
        self.session: "Session | None" = None
        self.following: "Session | None" = None
        self.leaving = False
        self._question = b""
        self._answer = None  # type: bytes | None
        self._working = False  # at the question
        self.half: "Half | None" = None
        self.stepped_ms = None  # type: int | None
        self._bucket = Bucket()
        self._usb = select.poll()
        self._usb.register(sys.stdin, select.POLLIN)
        self._usb_bucket = Bucket()
        self._look_at_usb = False
        self.begun = 0
        self.unserved = 0
        self.out_of_memory = 0
        self._unload()
        let_make_room(self.make_room)

    # Records --------------------------------------------------------------------------------------------------------

    def open(self, header: bytes, record: bytes, now_ms: int) -> bytes:
        """The message in a record. RecordError: drop it. SessionError: we have no such session, say so."""
        following = self.following
        if following is not None and record[:1] == following.connection:
            message = following.open(header, record, now_ms)
            self.session, self.following, self.leaving = following, None, False
            if not self._working:  # at something newer: run() has yet to read what, and its answer has yet to be given
                self._question, self._answer, self.stepped_ms = b"", None, None
            return message
        current = self.session
        if current is None or record[:1] != current.connection:
            raise SessionError("a record of a session that is not here")
        try:
            return current.open(header, record, now_ms)
        except SessionError:
            self.session = None
            raise

    def seal(self, header: bytes, message: bytes, now_ms: int) -> bytes:
        """The record of an answer, in the session of the question. SessionError: it has just ended."""
        if self.session is None:
            raise SessionError("the session ended while its question was worked at")
        return self.session.seal(header, message, now_ms)

    # Questions that cost work -----------------------------------------------------------------------------------------

    async def step(self, payload: bytes, now_ms: int) -> "bytes | None":
        """The answer to a step of a handshake that came at now_ms; None when there is none, or none yet."""
        if payload[:1] == bytes((INTRODUCTION,)) and self._knows(payload[1:]):
            return bytes((INTRODUCED,)) + self.gateway_kid
        if payload[:1] >= bytes((TRUST,)):
            return None  # work, but no step of a handshake
        return await self._worked_out(payload, now_ms)

    async def told(self, step: int, body: bytes, now_ms: int) -> "bytes | None":
        """What came in a record and costs work: a trust, an order, that a receipt has arrived, The answer's
        body: the digest of the trust that is stored then, the receipt, the same digest; empty when it is refused.

        None: not yet known, to be asked again.
        """
        return await self._worked_out(bytes((step,)) + body, now_ms)

    async def _worked_out(self, question: bytes, now_ms: int) -> "bytes | None":
        if question != self._question and not self._begin(question, now_ms):
            return None
        clock = self.clock
        while self._working and clock.now_ms() - now_ms < ANSWER_WITHIN_MS:
            await asyncio.sleep_ms(5)
        return None if self._working or clock.now_ms() - now_ms > ANSWER_WITHIN_MS else self._answer

    def judge(self, body: bytes, now_ms: int) -> None:
        """Lets an envelope be judged (release_check), now or when this is called again. What comes of it: judged."""
        self._begin(bytes((UPDATE,)) + body, now_ms)

    def _knows(self, credential: bytes) -> bool:
        return digest(credential) == self.gateway_digest

    def _begin(self, question: bytes, now_ms: int) -> bool:
        step = question[0]
        if self._working or step not in DONE_BY:
            return False
        if step == MESSAGE_3:
            if self.half is None:
                return False
        else:
            if self.stepped_ms is not None and now_ms - self.stepped_ms < HOLDS_MS:
                return False
            if step == MESSAGE_1 and not self.gateway_digest:
                return False  # it could end in nothing but a refusal
            if step < TRUST and not self._bucket.take(now_ms):  # the others come from a gateway that we know
                self.unserved += 1
                if self.unserved == 1 or not self.unserved % 1000:
                    self.log("%d handshakes were asked for too often and not answered" % self.unserved)
                return False
            self.half = self.stepped_ms = None
        self._question, self._answer = question, None
        self._working = True
        return True

    def each_second(self) -> None:
        """A handshake that its gateway has given up leaves memory; run() looks at USB."""
        self._look_at_usb = True
        stepped_ms = self.stepped_ms
        if stepped_ms is not None and not self._working and self.clock.now_ms() - stepped_ms > _FORGOTTEN_MS:
            self._forget_handshake()

    def _forget_handshake(self) -> None:
        self._question, self._answer = b"", None
        self.half = None
        self.stepped_ms = None
        self._unload()

    def _unload(self) -> None:
        unload(*LOADED_MEANWHILE)

    def begin_updating_anew(self) -> None:
        """An order has changed what is to be fetched."""
        if self.updating is not None:
            self.updating.rest()
        self.updating = self.judged = self.staged = None
        self.blocks = self.begun_again = 0
        unload(*UPDATING)

    def make_room(self) -> None:
        """If memory is short, what can be begun again leaves it."""
        if self.updating is not None and gc.mem_free() < AMPLE_BYTES:
            self.updating.rest()
            self.updating = None
            unload(*UPDATING)

    # The work, a task of its own --------------------------------------------------------------------------------------

    async def run(self, beat: "Callable[[], None]") -> None:
        """Works at what was asked until this start is to end. beat: called at every step."""
        while not self.ended:
            beat()
            if self._working:
                await self._work(beat)
                self._working = False
            elif self._look_at_usb:
                self._look_at_usb = False
                try:
                    await self._hear_usb(beat)
                except MemoryError:
                    self.log("no memory for what came by USB")
            await asyncio.sleep_ms(_LOOK_MS)
        await asyncio.sleep_ms(_LAST_WORDS_MS)

    async def _hear_usb(self, beat: "Callable[[], None]") -> None:
        """Bytes ahead of a zero are nothing of ours. From there on it costs memory: the bucket comes first."""
        for _ in range(_USB_BYTES):
            if not self._usb.poll(0):
                return
            if sys.stdin.buffer.read(1) == b"\x00":
                break
        else:
            return
        if not self._usb_bucket.take(self.clock.now_ms()):
            return
        from laterne_firmware import usb_orders

        question = await usb_orders.question(self._usb, beat)
        unload("laterne_firmware.usb_orders")
        if question and self._begin(question, self.clock.now_ms()):
            await self._work(beat)
            self._working = False
            if self._answer:
                self.log("answer %d %s" % (question[0], self._answer.hex()))

    async def _work(self, beat: "Callable[[], None]") -> None:
        # Work is refused here, and only here, when memory does not suffice: before it begins, or in the middle.
        try:
            self._answer = await stepping(self._steps(), beat)
            self._unload()
        except MemoryError:
            self._forget_handshake()
            self.reporter.hold = self.identity.silent or self.identity.rescue
            self.out_of_memory += 1
            self.log("no memory for a handshake, %d bytes are free" % gc.mem_free())

    def _steps(self) -> "Generator[int | None, None, bytes | None]":
        unload_arithmetic()
        if gc.mem_free() < NEEDED_BYTES:
            raise MemoryError
        module = __import__(DONE_BY[self._question[0]], None, None, ("work",))
        return (yield from module.work(self, self._question[0], self._question[1:]))  # type: ignore[no-any-return]  # a module by its name
