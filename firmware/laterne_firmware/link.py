"""What this board answers to whom asks (protocol/README.md, 3). A repeated question gets its answer again."""

from laterne_firmware import RELEASE
from laterne_firmware.identity import TRUST
from laterne_firmware.memory import unload
from laterne_firmware.store import Record
from laterne_firmware.supervisor import is_working
from laterne_protocol import board_messages as messages
from laterne_protocol import cbor, frame
from laterne_protocol.errors import MessageError
from laterne_protocol.report import digest
from laterne_protocol.session import RecordError, SessionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.backlog import Backlog
    from laterne_firmware.clock import Clock
    from laterne_firmware.identity import Identity
    from laterne_firmware.reports import Reporter
    from laterne_firmware.sessions import Sessions
    from laterne_protocol.update_messages import Data, Update

    Beat = Callable[[], None]

# Where a message has its type: after the head of the array; above 23 in two bytes.
_TRUST_TYPE = bytes((messages.TRUST,))
_DATA_TYPE = bytes((24, messages.DATA))
_REPORTS_BYTES = 963  # of an answer's reports with their heads: the longest one takes as many (protocol/README.md, 3)
_ONE_BYTES = 120  # the shortest one


class Link:
    """about: protection tier, model, hardware id of this board. random: for signing the possession object. address: on
    the bus.

    sessions: set once the board is enrolled; None before.
    """

    def __init__(
        self,
        identity: "Identity",
        backlog: "Backlog",
        reporter: "Reporter",
        clock: "Clock",
        random: "Callable[[int], bytes]",
        log: "Callable[[str], None]",
        about: "tuple[int, str, bytes]",
        address: int,
    ) -> None:
        self._identity = identity
        self.backlog = backlog
        self._reporter = reporter
        self._clock = clock
        self._random = random
        self._log = log
        self.about = about
        self._address = address
        self.sessions: "Sessions | None" = None
        self._after = -1  # as the last poll had it, and what its answer had room for
        self._room = _REPORTS_BYTES

    async def answer(self, question: frame.Frame, now_ms: int, beat: "Beat") -> "tuple[int, bytes] | None":
        """Kind and payload that answer a frame which came at now_ms; None when there is no answer to give.

        None is counted by the line: the sender repeats what was damaged, and a stranger gets nothing.
        """
        work = ANSWERS.get((self.sessions is not None, question.kind))
        if work is None:
            return None
        try:
            return await work(self, question, now_ms, beat)
        except (MessageError, RecordError):
            return None
        except MemoryError:  # it is asked again; an update can wait
            if self.sessions is not None:
                self.sessions.make_room()
            return None

    # Frames, by what the board is ----------------------------------------------------------------------------------

    async def _in_the_clear(self, received: frame.Frame, now_ms: int, beat: "Beat") -> "tuple[int, bytes] | None":
        answer = await self._message(received.payload, now_ms, beat)
        return None if answer is None else (frame.MESSAGE, answer)

    async def _only_in_a_session(self, received: frame.Frame, now_ms: int, beat: "Beat") -> "tuple[int, bytes] | None":
        question = messages.question_of(received.payload)
        if question is None or received.payload[1:3] == _DATA_TYPE:
            return None
        # An answer with nothing in it of which a stranger learns who we are; `enrolled` holds a digest he must know.
        answer = messages.Refusal(question.number, messages.SESSION_NEEDED)  # type: messages.Refusal | messages.Enrolment
        if isinstance(question, messages.Enrolment) and self._is_ours(question):
            answer = self._enrolled(question)
        return frame.MESSAGE, answer.to_bytes()

    async def _handshake(self, received: frame.Frame, now_ms: int, beat: "Beat") -> "tuple[int, bytes] | None":
        assert self.sessions is not None
        answer = await self.sessions.step(received.payload, now_ms)
        return None if answer is None else (frame.HANDSHAKE, answer)

    async def _record(self, received: frame.Frame, now_ms: int, beat: "Beat") -> "tuple[int, bytes] | None":
        sessions = self.sessions
        assert sessions is not None
        header = frame.header(frame.RECORD, received.destination, received.source)
        try:
            message = sessions.open(header, received.payload, now_ms)
            if sessions.leaving and message[1:2] != _TRUST_TYPE:
                sessions.session = None
                raise SessionError("the gateway is not believed any more")
            answer = await self._message(message, now_ms, beat)
            if answer is None:
                return None
            header = frame.header(frame.RECORD, received.source, self._address)
            return frame.RECORD, sessions.seal(header, answer, now_ms)
        except SessionError:
            return frame.MESSAGE, messages.HINT.to_bytes()

    # Messages -------------------------------------------------------------------------------------------------------

    async def _message(self, payload: bytes, now_ms: int, beat: "Beat") -> "bytes | None":
        question = messages.question_of(payload)
        if isinstance(question, messages.Poll):
            return self._poll(question, now_ms)
        if isinstance(question, messages.Hello):
            return self._hello(question)
        if question is None:
            return None  # an answer of another board on the bus
        if not isinstance(question, messages.Enrolment):
            return self._update(question, now_ms)
        return (await self._enrolment(question, now_ms, beat)).to_bytes()

    def _hello(self, question: messages.Hello) -> bytes:
        identity = self._identity
        return messages.Identity(
            question.number,
            identity.board,
            identity.kid,
            self._clock.boot,
            "rescue" if identity.rescue else RELEASE,
            self.about[1],
            self._trust(),
        ).to_bytes()

    def _trust(self) -> "tuple[int, bytes] | None":
        # Asked for once in a session: it need not be in memory. Nobody is told in the clear.
        payload = Record(TRUST).load() if self.sessions is not None else None
        held = cbor.decode(payload) if payload else None
        return (held[1], digest(payload)) if payload and isinstance(held, dict) else None

    def _poll(self, question: messages.Poll, now_ms: int) -> bytes:
        backlog = self.backlog
        if self._identity.board is None:
            return messages.Refusal(question.number, messages.NOT_ENROLLED).to_bytes()
        if question.time is not None:
            boot, offset_ms, uncertainty_ms = question.time
            self._clock.take_over(boot, offset_ms, uncertainty_ms)
        if question.acknowledged is not None:
            backlog.acknowledge(question.acknowledged)
        after = question.after
        reports = []  # type: list[bytes]
        if after is not None:
            # Asked again: the answer was lost, or not taken. One report comes through where the line is too noisy for
            # more; with each that arrives there is room for twice as many.
            self._room = 0 if after == self._after else min(2 * self._room + _ONE_BYTES, _REPORTS_BYTES)
            self._after = after
            reports = backlog.oldest_after(after, self._room)
        boot, due_ms = self._clock.boot, self._reporter.due_ms()
        return messages.report_answer(question.number, boot, now_ms, due_ms, backlog.waiting, reports)

    def _update(self, question: "Update | Data", now_ms: int) -> "bytes | None":
        from laterne_protocol.update_messages import Data

        sessions = self.sessions
        if isinstance(question, Data):
            if sessions is not None and sessions.updating is not None:
                sessions.updating.take(question)
            return None
        if sessions is None:
            return messages.Refusal(question.number, messages.NOT_ENROLLED).to_bytes()
        if is_working():  # a signature, a handshake, or the envelope itself: memory holds one of these
            return messages.Refusal(question.number, messages.NOT_READY).to_bytes()
        updating = sessions.updating
        if updating is None:
            from laterne_firmware.updating import Updating

            updating = sessions.updating = Updating(sessions)
        answer = updating.answer(question, now_ms).to_bytes()
        if updating.is_idle:
            sessions.updating = None
            from laterne_firmware.sessions import UPDATING

            unload(*UPDATING)
        return answer

    async def _enrolment(
        self, question: messages.Enrolment, now_ms: int, beat: "Beat"
    ) -> "messages.Enrolment | messages.Refusal":
        identity = self._identity
        if self.sessions is None:
            if identity.kid is None:
                return messages.Refusal(question.number, messages.NOT_READY)
            if question.step > messages.TRUST:  # an order
                return messages.Refusal(question.number, messages.NOT_ENROLLED)
            from laterne_firmware import enrolment

            return await enrolment.answer(question, identity, self.about, self._random, self._log, beat)
        if question.step >= messages.TRUST:
            made = await self.sessions.told(question.step, question.body, now_ms)
            if made is None:
                return messages.Refusal(question.number, messages.NOT_READY)
            if not made:
                return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED)
            return messages.Enrolment(question.number, question.step + 1, made)
        # The same credential again is no error: the answer may have been lost.
        if self._is_ours(question):
            return self._enrolled(question)
        self._log("a second enrolment was refused")
        return messages.Refusal(question.number, messages.ALREADY_ENROLLED)

    def _is_ours(self, question: messages.Enrolment) -> bool:
        return question.step == messages.ENROL and digest(question.body) == self._identity.credential_digest

    def _enrolled(self, question: messages.Enrolment) -> messages.Enrolment:
        return messages.Enrolment(question.number, messages.ENROLLED, self._identity.credential_digest)


# (whether the board is enrolled, kind of frame) -> what answers it. Whatever is not here gets no answer.
ANSWERS = {
    (False, frame.MESSAGE): Link._in_the_clear,
    (True, frame.MESSAGE): Link._only_in_a_session,
    (True, frame.HANDSHAKE): Link._handshake,
    (True, frame.RECORD): Link._record,
}
