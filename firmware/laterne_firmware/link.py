"""What this board answers to whom asks (protocol/README.md, 3). A repeated question gets its answer again."""

from laterne_firmware import RELEASE
from laterne_protocol import board_messages as messages
from laterne_protocol.errors import MessageError
from laterne_protocol.report import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.backlog import Backlog
    from laterne_firmware.clock import Clock
    from laterne_firmware.identity import Identity
    from laterne_firmware.reports import Reporter


class Link:
    """about: protection tier, model, hardware id of this board. random: for signing the possession object."""

    def __init__(
        self,
        identity: "Identity",
        backlog: "Backlog",
        reporter: "Reporter",
        clock: "Clock",
        random: "Callable[[int], bytes]",
        log: "Callable[[str], None]",
        about: "tuple[int, str, bytes]",
    ) -> None:
        self._identity = identity
        self._backlog = backlog
        self._reporter = reporter
        self._clock = clock
        self._random = random
        self._log = log
        self._about = about

    async def answer(self, payload: bytes, now_ms: int, beat: "Callable[[], None]") -> "bytes | None":
        """The answer to a message that came at now_ms; None when there is none to give."""
        try:
            question = messages.question_of(payload)
        except MessageError:
            return None  # counted by the line; the sender repeats what was damaged, and a stranger gets nothing
        if isinstance(question, messages.Poll):
            return self._poll(question, now_ms)
        if isinstance(question, messages.Hello):
            return self._hello(question)
        if question is None:
            return None  # an answer of another board on the bus
        return (await self._enrolment(question, beat)).to_bytes()

    def _hello(self, question: messages.Hello) -> bytes:
        identity = self._identity
        return messages.Identity(
            question.number, identity.board, identity.kid, self._clock.boot, RELEASE, self._about[1]
        ).to_bytes()

    def _poll(self, question: messages.Poll, now_ms: int) -> bytes:
        backlog = self._backlog
        if self._identity.board is None:
            return messages.Refusal(question.number, messages.NOT_ENROLLED).to_bytes()
        if question.time is not None:
            boot, offset_ms, uncertainty_ms = question.time
            self._clock.take_over(boot, offset_ms, uncertainty_ms)
        if question.acknowledged is not None:
            backlog.acknowledge(question.acknowledged)
        body = None if question.after is None else backlog.oldest_after(question.after)
        return messages.ReportAnswer(
            question.number, self._clock.boot, now_ms, self._reporter.due_ms(), backlog.waiting, body
        ).to_bytes()

    async def _enrolment(
        self, question: messages.Enrolment, beat: "Callable[[], None]"
    ) -> "messages.Enrolment | messages.Refusal":
        identity = self._identity
        if identity.board is None:
            if identity.kid is None:
                return messages.Refusal(question.number, messages.NOT_READY)
            from laterne_firmware import enrolment

            return await enrolment.answer(question, identity, self._about, self._random, self._log, beat)
        # The same credential again is no error: the answer may have been lost.
        if question.step == messages.ENROL and digest(question.body) == identity.credential_digest:
            return messages.Enrolment(question.number, messages.ENROLLED, identity.credential_digest)
        self._log("a second enrolment was refused")
        return messages.Refusal(question.number, messages.ALREADY_ENROLLED)
