"""The bus: asks the boards of one line, one after the other. Nobody else ever starts on a line (protocol/README.md, 3).

Each board is a contact with a moment when it is due. The one that is due longest is asked next; so boards with a
backlog take turns, and one question after the other goes out while there is anything to fetch. A board that does not
answer is asked less and less often: dead boards must not eat the time of the living.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from laterne_gateway.backoff import Backoff
from laterne_gateway.board_clock import BoardClock
from laterne_gateway.clock import Clock
from laterne_gateway.health import Health
from laterne_gateway.inbox import ACCEPTED, REFUSED, Inbox
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.serial_line import LineLost, SerialLine
from laterne_protocol import credential, frame, messages
from laterne_protocol.errors import MessageError
from laterne_protocol.frame import Frame
from laterne_protocol.roster import Entry

log = logging.getLogger("laterne")

BITS_A_BYTE = 10  # 8N1: a start and a stop bit
BOARD_TURNS_ROUND_S = 0.45  # a board erases a flash block (RP2040: 45 ms typical, 400 ms at most) before it answers
ADAPTERS_S = 0.05  # FTDI holds back short data for 16 ms each way (facts/gateway.md, 10), and the scheduler's share
ASK_TIMES = 3  # of a board that has answered before; one that has not is asked once

# A board is heard at least this often: it shows that it lives, its clock is compared, and a report that closed early
# (full, or an event) is fetched. 32 boards on a bus: 5 s, a third of a line of 19,200 baud.
POLL_WITHIN_S, POLL_WITHIN_A_BOARD_S = 2.0, 0.16
POLL_FLOOR_S = 0.2  # a board that says "due now" again and again is asked five times a second, not more
AFTER_DUE_S = 0.03  # the report is closed when it is due, then signed: 5 ms and more (design 11)
REFUSED_PAUSE_S = 1.0  # before a refused report is asked for again
NOT_STORED_PAUSE_S = 1.0  # while the disk is full each board offers one report a second
BUSY_PAUSE_S = 1.0  # a board that says it is busy means seconds
UNKNOWN_PAUSE_S = 5.0  # a board that is not enrolled, or not in the roster
MAX_UNCOMMITTED = 64  # reports of one board on their way to the disk: 60 KiB; then the board waits for the commit
SILENT_CAP_S = 5.0  # how often a dead board alone on its line is asked
SILENT_CAP_A_BOARD_S = 2.0  # on a bus with n boards every 2n s: at 0.6 s each, 30 % of the line if all but one are dead
REOPEN_BASE_S, REOPEN_CAP_S = 0.5, 5.0  # an adapter that is plugged in again serves within 5 s


def answer_within_s(question_bytes: int, baud: int) -> float:
    """How long a question and the longest answer can take: bytes on the line, the board's turn-round, the adapters."""
    on_the_line = question_bytes + frame.MAX_FRAME_BYTES + len(frame.DELIMITER)
    return on_the_line * BITS_A_BYTE / baud + BOARD_TURNS_ROUND_S + ADAPTERS_S


@dataclass
class Contact:
    """What we know of the board at an address. board: its id once it has said hello. due_s: monotonic."""

    address: int
    silence: Backoff
    due_s: float = 0.0
    number: int = 0
    entry: Entry | None = None
    answers: bool = False
    known: tuple[str, bytes] | None = None  # board and kid that `clock` is of
    said: str = ""  # what was logged last: a thing is said when it changes
    clock: BoardClock = field(default_factory=BoardClock)


@dataclass(frozen=True)
class Answer:
    message: object
    asked_s: float
    answered_s: float
    repeated: bool


class Bus:
    def __init__(
        self,
        line: SerialLine,
        addresses: tuple[int, ...],
        roster: RosterKeeper,
        inbox: Inbox,
        clock: Clock,
        health: Health,
    ) -> None:
        self._line = line
        self._subject = f"line {line.name}"
        self._roster = roster
        self._inbox = inbox
        self._clock = clock
        self._health = health
        cap_s = max(SILENT_CAP_S, SILENT_CAP_A_BOARD_S * len(addresses))
        self._poll_within_s = max(POLL_WITHIN_S, POLL_WITHIN_A_BOARD_S * len(addresses))
        self._contacts = [
            Contact(address, Backoff(1.0, cap_s, floor_s=0.5)) for address in addresses or (frame.ANY_BOARD,)
        ]

    async def run(self) -> None:
        """Asks for ever; ends when cancelled, with the port closed."""
        again = Backoff(REOPEN_BASE_S, REOPEN_CAP_S, floor_s=0.1)
        try:
            while True:
                opened_s = self._clock.monotonic_s()
                try:
                    await self._line.open()
                    self._health.note(self._subject, "open", True)
                    self._health.clear(self._subject, "port")
                    log.info("%s: open at %s, %d baud", self._subject, self._line.path, self._line.baud)
                    await self._ask_in_turn()
                except LineLost as why:
                    self._health.note(self._subject, "open", False)
                    self._health.count(self._subject, "lost")
                    self._health.alarm(self._subject, "port", f"{why}: check the plug and the path; it is tried again")
                await self._line.close()
                await asyncio.sleep(again.failed(self._clock.monotonic_s() - opened_s))
        finally:
            await self._line.close()

    def wake(self) -> None:
        """The roster has changed: boards that were turned away are asked again at once."""
        for contact in self._contacts:
            if contact.entry is None or self._roster.entry(contact.entry.board) is not contact.entry:
                contact.due_s = 0.0
        self._line.stir()

    async def _ask_in_turn(self) -> None:
        for contact in self._contacts:
            contact.entry, contact.due_s = None, 0.0  # it may be another board that is plugged in now
        while True:
            contact = min(self._contacts, key=lambda one: one.due_s)
            pause_s = contact.due_s - self._clock.monotonic_s()
            if pause_s > 0:
                await self._line.rest(pause_s)
                continue  # woken or not: look again who is due
            await self._serve(contact)

    async def _serve(self, contact: Contact) -> None:
        if contact.entry is not None:
            # The roster in force decides at each question.
            current = self._roster.entry(contact.entry.board)
            if current is None:
                self._turn_away(contact, contact.entry.board)
                return
            contact.entry = current
        pause_s = await (self._greet(contact) if contact.entry is None else self._poll(contact, contact.entry))
        contact.due_s = self._clock.monotonic_s() + pause_s

    async def _greet(self, contact: Contact) -> float:
        answer = await self._ask(contact, messages.Hello(contact.number), messages.Identity)
        if answer is None:
            return self._silent(contact)
        if not isinstance(answer.message, messages.Identity):
            return self._declined(contact, answer.message)
        identity = answer.message
        where = f"line {self._line.name}"
        if identity.board is None:
            self._say(contact, f"{where}: a board that is not enrolled answers: laterne board enrol")
            self._health.count(self._subject, "not enrolled")
            return UNKNOWN_PAUSE_S
        entry = self._roster.entry(identity.board)
        if entry is None:
            return self._turn_away(contact, identity.board)
        if identity.kid != credential.kid(entry.sign_key):
            # A hint, not a proof: it saves asking for what the inbox would refuse.
            self._health.count(entry.board, "answers with another key")
            self._say(
                contact, f"{entry.board}: {where}: holds another key than the roster says: export the roster anew"
            )
            return UNKNOWN_PAUSE_S
        if contact.known != (entry.board, identity.kid):
            # Another board may count the same boot: its clock is another one all the same.
            contact.known, contact.clock = (entry.board, identity.kid), BoardClock()
        contact.entry = entry
        contact.answers = True
        contact.silence.reset()
        self._health.note(entry.board, "line", self._line.name)
        self._health.note(entry.board, "release", identity.release)
        self._health.note(entry.board, "model", identity.model)
        self._say(contact, f"{entry.board}: {where}: answers, boot {identity.boot}, release {identity.release}")
        return 0.0

    async def _poll(self, contact: Contact, entry: Entry) -> float:
        if self._inbox.uncommitted(entry) >= MAX_UNCOMMITTED:
            return POLL_FLOOR_S
        now_s = self._clock.monotonic_s()
        after = self._inbox.after(entry)
        question = messages.Poll(
            contact.number,
            self._inbox.acknowledged(entry),
            after,
            contact.clock.time(now_s, self._clock.utc_ms()),
        )
        answer = await self._ask(contact, question, messages.ReportAnswer)
        if answer is None:
            return self._silent(contact)
        if not isinstance(answer.message, messages.ReportAnswer):
            return self._declined(contact, answer.message)
        if self._inbox.after(entry) < after:
            # A report before this answer could not be stored meanwhile (Inbox.after).
            self._health.count(entry.board, "answers dropped: not stored before")
            return POLL_FLOOR_S
        return self._answered(contact, entry, answer, answer.message)

    def _answered(self, contact: Contact, entry: Entry, answer: Answer, said: messages.ReportAnswer) -> float:
        contact.answers = True
        contact.silence.reset()
        if contact.clock.boot not in (None, said.boot):
            self._health.say(entry.board, "restarted", f"{entry.board}: restarted, boot {said.boot}")
            self._health.count(entry.board, "restarts")
        contact.clock.add(said.boot, said.ticks_ms, answer.asked_s, answer.answered_s, answer.repeated)
        self._health.note(entry.board, "waiting on the board", said.waiting)
        self._health.note(entry.board, "heard_utc_ms", self._clock.utc_ms())
        self._health.note(entry.board, "boot", said.boot)
        if said.report is not None:
            outcome = self._inbox.take(entry, said.report)
            if outcome == ACCEPTED:
                if self._inbox.failing:
                    return NOT_STORED_PAUSE_S
                return 0.0  # there may be more, and this one is acknowledged with the next question
            return REFUSED_PAUSE_S if outcome == REFUSED else self._poll_within_s
        return min(self._poll_within_s, max(POLL_FLOOR_S, said.due_ms / 1000 + AFTER_DUE_S))

    def _silent(self, contact: Contact) -> float:
        # Who answers next is asked for its name first: it may be another board.
        if contact.answers and contact.entry is not None:
            self._say(contact, f"{contact.entry.board}: line {self._line.name}: does not answer any more")
            self._health.count(contact.entry.board, "fell silent")
        contact.answers = False
        contact.entry = None
        self._health.count(self._subject, "questions without answer")
        return contact.silence.failed()

    def _declined(self, contact: Contact, message: object) -> float:
        reason = message.reason if isinstance(message, messages.Refusal) else 0
        if reason == messages.NOT_ENROLLED:
            self._say(contact, f"line {self._line.name}: a board that is not enrolled answers: laterne board enrol")
            contact.entry = None
            return UNKNOWN_PAUSE_S
        contact.answers = True
        self._health.count(self._subject, "questions declined")
        return BUSY_PAUSE_S

    def _turn_away(self, contact: Contact, board: str) -> float:
        # Its reports stay on the board: nothing is acknowledged, nothing asked for.
        revoked = self._roster.is_revoked(board)
        self._health.count(self._subject, "refused: revoked board" if revoked else "refused: unknown board")
        remedy = "is revoked and not served" if revoked else "is not in the roster: enrol it and export the roster anew"
        self._say(contact, f"{board}: line {self._line.name}: {remedy}")
        contact.entry = None
        contact.due_s = self._clock.monotonic_s() + UNKNOWN_PAUSE_S
        return UNKNOWN_PAUSE_S

    def _say(self, contact: Contact, sentence: str) -> None:
        if contact.said != sentence:
            contact.said = sentence
            log.info("%s", sentence)

    async def _ask(
        self, contact: Contact, question: messages.Hello | messages.Poll, expected: "type[messages.Message]"
    ) -> Answer | None:
        """The answer, or None when there was none in time. Raises LineLost."""
        # A repeated question keeps its number, so that a late answer to the first one counts; the next has another.
        contact.number = (contact.number + 1) & 0xFF
        data = Frame(frame.MESSAGE, contact.address, frame.GATEWAY, question.to_bytes()).to_bytes()
        for attempt in range(ASK_TIMES if contact.answers else 1):
            self._line.forget()
            # The zero ahead closes whatever noise the line has left in the board's decoder.
            self._line.write(frame.DELIMITER + data)
            asked_s = self._clock.monotonic_s()
            if attempt:
                self._health.count(self._subject, "questions repeated")
            else:
                first_s = asked_s
            until_s = asked_s + answer_within_s(len(data) + 1, self._line.baud)
            while (received := await self._line.frame(until_s)) is not None:
                message = self._message(contact, received[0])
                if message is None or message.number != question.number:
                    self._health.count(self._subject, "frames unasked")
                elif isinstance(message, (expected, messages.Refusal)):
                    return Answer(message, first_s, received[1], attempt > 0)
        return None

    def _message(self, contact: Contact, received: Frame) -> "messages.Message | None":
        if received.kind != frame.MESSAGE or received.destination != frame.GATEWAY:
            return None
        if received.source == frame.GATEWAY or contact.address not in (received.source, frame.ANY_BOARD):
            return None
        try:
            return messages.message_of(received.payload)
        except MessageError as why:
            self._health.count(self._subject, "messages malformed")
            log.debug("line %s: %s: %s", self._line.name, why, received.payload[:32].hex())
            return None
