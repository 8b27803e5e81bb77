"""The bus: asks the boards of one line, one after the other. Nobody else ever starts on a line (protocol/README.md, 3).

Each board is a contact with a moment when it is due. The one that is due longest is asked next; so boards with a
backlog take turns, and one question after the other goes out while there is anything to fetch. A board that does not
answer is asked less and less often: dead boards must not eat the time of the living. A handshake takes a board
seconds: its link (sessions) says when its next step is due, and the others are asked in between.

What is asked next at an address:

    no session, none wanted     hello in the clear: is anybody there, must it be enrolled?
    a handshake step is due     that step
    an order for this board     the order, or that its receipt has arrived (orders)
    a session, board not known  hello in the session: which boot, which release, which trust?
    it can follow to a newer    that trust, until the board has judged it; it is polled meanwhile
        trust
    otherwise                   a poll in the session
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from laterne_gateway.backoff import Backoff
from laterne_gateway.board_clock import BoardClock
from laterne_gateway.clock import Clock
from laterne_gateway.exchange import Answer, Exchange
from laterne_gateway.health import Health
from laterne_gateway.inbox import ACCEPTED, AWAITS_ROSTER, REFUSED, Inbox
from laterne_gateway.orders import Errand, Orders
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.serial_line import LineLost, SerialLine
from laterne_gateway.sessions import Link, Sessions
from laterne_gateway.trusts import Held, Telling
from laterne_protocol import credential, frame, messages
from laterne_protocol.errors import MessageError
from laterne_protocol.frame import Frame
from laterne_protocol.roster import Entry
from laterne_protocol.session import Session

log = logging.getLogger("laterne")

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
TRUST_AGAIN_S = 2.0  # a board judges a trust for a second or two a signature; it is asked for its answer so often
TRUST_TIMES = 30  # then, or when it refuses, it is left alone for TRUST_REST_S
TRUST_REST_S = 3600.0
REOPEN_BASE_S, REOPEN_CAP_S = 0.5, 5.0  # an adapter that is plugged in again serves within 5 s


@dataclass
class Contact:
    """What we know of an address. due_s: monotonic. identified: the session in which the board has said who it is."""

    address: int
    link: Link
    silence: Backoff
    due_s: float = 0.0
    number: int = 0
    answers: bool = False
    known: tuple[str, bytes] | None = None  # board and kid that `clock` is of
    identified: Session | None = None
    greeted: Session | None = None  # the session whose opening has been said
    said: str = ""  # what was logged last: a thing is said when it changes
    clock: BoardClock = field(default_factory=BoardClock)
    held: Held | None = None  # the trust of the board that is identified
    trust_due_s: float = 0.0  # when it may be told a newer one
    told: int = 0  # how often it was told this one

    @property
    def next_s(self) -> float:
        """When the next question is due. Without a session there is nothing to ask while a handshake is under way."""
        if self.link.session is None and self.link.is_shaking:
            return self.link.due_s
        return min(self.due_s, self.link.due_s)


class Bus:
    def __init__(
        self,
        line: SerialLine,
        addresses: tuple[int, ...],
        roster: RosterKeeper,
        sessions: Sessions,
        inbox: Inbox,
        orders: Orders,
        clock: Clock,
        health: Health,
    ) -> None:
        self._line = line
        self._exchange = Exchange(line, clock, health)
        self._subject = f"line {line.name}"
        self._roster = roster
        self._sessions = sessions
        self._inbox = inbox
        self._orders = orders
        self._clock = clock
        self._health = health
        cap_s = max(SILENT_CAP_S, SILENT_CAP_A_BOARD_S * len(addresses))
        self._poll_within_s = max(POLL_WITHIN_S, POLL_WITHIN_A_BOARD_S * len(addresses))
        self._contacts = [
            Contact(address, sessions.link(line.name, address), Backoff(1.0, cap_s, floor_s=0.5))
            for address in addresses or (frame.ANY_BOARD,)
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
        """The roster or our credential has changed: boards that were turned away are asked again at once."""
        for contact in self._contacts:
            link = contact.link
            link.forgive()
            contact.trust_due_s = 0.0
            if link.entry is None or self._roster.entry(link.entry.board) is not link.entry:
                contact.due_s = 0.0
        self._line.stir()

    async def _ask_in_turn(self) -> None:
        for contact in self._contacts:
            # It may be another board that is plugged in now: a session tells, and its name is asked for again.
            contact.identified, contact.answers, contact.due_s = None, False, 0.0
        while True:
            contact = min(self._contacts, key=lambda one: one.next_s)
            pause_s = contact.next_s - self._clock.monotonic_s()
            if pause_s > 0:
                await self._line.rest(pause_s)
                continue  # woken or not: look again who is due
            await self._serve(contact)

    async def _serve(self, contact: Contact) -> None:
        link = contact.link
        refused = link.check_roster()  # the roster in force decides at each question
        if refused is not None:
            pause_s = self._turn_away(contact, refused)
        elif link.due_s <= self._clock.monotonic_s():
            await self._shake_hands(contact)
            return
        elif link.session is None or link.entry is None:
            pause_s = await self._greet(contact)
        elif (errand := self._orders.errand(link.entry.board)) is not None:
            # Before all else that is said in a session: a board whose keys we do not know yet has a receipt for us.
            pause_s = await self._carry(contact, link.entry, errand)
        elif contact.identified is not link.session:
            pause_s = await self._identify(contact, link.entry)
        elif (telling := self._to_be_told(contact)) is not None:
            pause_s = await self._tell_trust(contact, link.entry, telling)
        else:
            pause_s = await self._poll(contact, link.entry)
        contact.due_s = self._clock.monotonic_s() + pause_s

    async def _shake_hands(self, contact: Contact) -> None:
        link = contact.link
        answer = await self._exchange.ask(link.question, lambda received: link.take(received) or None, 1)
        if answer is None:
            link.unanswered()
        else:
            contact.answers = True
            contact.silence.reset()
        farewell = link.farewell_frame()
        if farewell is not None:
            self._exchange.tell(farewell)
        if not link.is_shaking:
            # Open: ask at once. Failed, and no older session to go on with: greet the board when it is time again.
            now_s = self._clock.monotonic_s()
            contact.due_s = now_s if link.session is not None else max(now_s, link.rests_until_s)

    async def _greet(self, contact: Contact) -> float:
        contact.number = (contact.number + 1) & 0xFF
        question = messages.Hello(contact.number)
        asked = Frame(frame.MESSAGE, contact.address, frame.GATEWAY, question.to_bytes())
        answer = await self._exchange.ask(
            lambda: asked,
            lambda received: self._plain(contact, received, messages.Identity),
            ASK_TIMES if contact.answers else 1,
        )
        if answer is None:
            return self._silent(contact)
        if isinstance(answer.what, messages.Refusal) and answer.what.reason == messages.SESSION_NEEDED:
            contact.answers = True
            contact.silence.reset()
            contact.link.call()
            return 0.0
        if not isinstance(answer.what, messages.Identity):
            return self._declined(contact, answer.what)
        if answer.what.board is None:
            return self._not_enrolled(contact)
        self._health.count(self._subject, "refused: enrolled, but speaks in the clear")
        self._say(contact, f"line {self._line.name}: a board answers without a session: bring it a newer release")
        return UNKNOWN_PAUSE_S

    async def _identify(self, contact: Contact, entry: Entry) -> float:
        session = contact.link.session
        answer = await self._ask(contact, messages.Hello, messages.Identity)
        if answer is None:
            return self._unanswered(contact)
        identity = answer.what
        if not isinstance(identity, messages.Identity):
            return self._declined(contact, identity)
        where = f"line {self._line.name}"
        if identity.board != entry.board:
            self._health.count(entry.board, "refused: speaks for another")
            self._health.alarm(
                entry.board, "speaks for another", f"{where}: it says in its session that it is {identity.board}"
            )
            return UNKNOWN_PAUSE_S
        if identity.kid != credential.kid(entry.sign_key):
            self._health.count(entry.board, "answers with another key")
            self._say(
                contact, f"{entry.board}: {where}: holds another key than the roster says: export the roster anew"
            )
            return UNKNOWN_PAUSE_S
        if contact.known != (entry.board, identity.kid):
            # Another board may count the same boot: its clock is another one all the same.
            contact.known, contact.clock = (entry.board, identity.kid), BoardClock()
        contact.identified, contact.held = session, identity.trust
        contact.answers = True
        contact.silence.reset()
        self._health.note(entry.board, "line", self._line.name)
        self._health.note(entry.board, "release", identity.release)
        self._health.note(entry.board, "model", identity.model)
        self._sessions.trusts.note(entry.board, identity.trust)
        self._say(contact, f"{entry.board}: {where}: answers, boot {identity.boot}, release {identity.release}")
        return 0.0

    async def _carry(self, contact: Contact, entry: Entry, errand: Errand) -> float:
        answer = await self._ask(
            contact, lambda number: messages.Enrolment(number, errand.step, errand.body), messages.Enrolment
        )
        if answer is None:
            return self._unanswered(contact)
        contact.answers = True
        contact.silence.reset()
        self._orders.answered(entry.board, errand, answer.what)
        return 0.0  # if the board is at it, polls go on meanwhile

    def _to_be_told(self, contact: Contact) -> Telling | None:
        if contact.trust_due_s > self._clock.monotonic_s():
            return None
        trusts = self._sessions.trusts
        # Not before we have a credential that is believed then: the board would forget us, and wait for one.
        if not self._sessions.identity.is_believed_under(trusts.newest.version):
            return None
        return trusts.next_for(contact.held)

    async def _tell_trust(self, contact: Contact, entry: Entry, telling: Telling) -> float:
        version, digest = telling.held
        answer = await self._ask(
            contact, lambda number: messages.Enrolment(number, messages.TRUST, telling.bundle), messages.Enrolment
        )
        contact.trust_due_s = self._clock.monotonic_s() + TRUST_AGAIN_S
        contact.told += 1
        if answer is None:
            return self._unanswered(contact)
        contact.answers = True
        said = answer.what
        if isinstance(said, messages.Enrolment) and (said.step, said.body) == (messages.TRUST_TAKEN, digest):
            contact.told, contact.trust_due_s, contact.held = 0, 0.0, telling.held
            contact.link.followed()
            self._health.count(entry.board, "trusts followed")
            self._health.clear(entry.board, "trust refused")
            self._sessions.trusts.note(entry.board, telling.held)
            log.info("%s: holds trust version %d now", entry.board, version)
        elif not isinstance(said, messages.Refusal) or said.reason != messages.NOT_READY or contact.told >= TRUST_TIMES:
            contact.told, contact.trust_due_s = 0, self._clock.monotonic_s() + TRUST_REST_S
            self._health.count(entry.board, "trusts refused")
            self._health.alarm(
                entry.board, "trust refused", f"it does not follow to trust version {version}: its console says why"
            )
        return 0.0  # it judges, or will not: polls go on

    async def _poll(self, contact: Contact, entry: Entry) -> float:
        if self._inbox.uncommitted(entry) >= MAX_UNCOMMITTED:
            return POLL_FLOOR_S
        now_s = self._clock.monotonic_s()
        acknowledged, after = self._inbox.acknowledged(entry), self._inbox.after(entry)
        time = contact.clock.time(now_s, self._clock.utc_ms())
        answer = await self._ask(
            contact, lambda number: messages.Poll(number, acknowledged, after, time), messages.ReportAnswer
        )
        if answer is None:
            return self._unanswered(contact)
        if not isinstance(answer.what, messages.ReportAnswer):
            return self._declined(contact, answer.what)
        if self._inbox.after(entry) < after:
            # A report before this answer could not be stored meanwhile (Inbox.after).
            self._health.count(entry.board, "answers dropped: not stored before")
            return POLL_FLOOR_S
        return self._answered(contact, entry, answer, answer.what)

    def _answered(
        self, contact: Contact, entry: Entry, answer: "Answer[messages.Message]", said: messages.ReportAnswer
    ) -> float:
        if contact.greeted is not contact.link.session:
            contact.greeted = contact.link.session
            self._health.note(entry.board, "session opened utc_ms", self._clock.utc_ms())
            log.info("%s: session opened, %d reports waiting", entry.board, said.waiting)
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
            if outcome == AWAITS_ROSTER:
                return UNKNOWN_PAUSE_S
            return REFUSED_PAUSE_S if outcome == REFUSED else self._poll_within_s
        return min(self._poll_within_s, max(POLL_FLOOR_S, said.due_ms / 1000 + AFTER_DUE_S))

    def _unanswered(self, contact: Contact) -> float:
        if contact.link.session is None:  # it was at its end
            return 0.0
        if contact.link.hinted:
            # Perhaps a stranger's word: the session stays until there is a new one.
            self._health.count(self._subject, "questions without answer")
            return self._poll_within_s
        return self._silent(contact)

    def _silent(self, contact: Contact) -> float:
        # Who answers next shakes hands first: it may be another board, or this one after a restart.
        entry = contact.link.entry
        if entry is not None:
            if contact.answers:
                self._say(contact, f"{entry.board}: line {self._line.name}: does not answer any more")
                self._health.count(entry.board, "fell silent")
            contact.link.drop("no answer")
        contact.answers = False
        self._health.count(self._subject, "questions without answer")
        return contact.silence.failed()

    def _declined(self, contact: Contact, message: object) -> float:
        reason = message.reason if isinstance(message, messages.Refusal) else 0
        if reason == messages.NOT_ENROLLED:
            return self._not_enrolled(contact)
        contact.answers = True
        self._health.count(self._subject, "questions declined")
        return BUSY_PAUSE_S

    def _not_enrolled(self, contact: Contact) -> float:
        self._health.count(self._subject, "not enrolled")
        self._say(contact, f"line {self._line.name}: a board that is not enrolled answers: laterne board enrol")
        return UNKNOWN_PAUSE_S

    def _turn_away(self, contact: Contact, board: str) -> float:
        if self._roster.entry(board) is not None:
            return 0.0  # its keys are others now: hands are shaken anew
        # Its reports stay on the board: nothing is acknowledged, nothing asked for.
        revoked = self._roster.is_revoked(board)
        self._health.count(self._subject, "refused: revoked board" if revoked else "refused: unknown board")
        remedy = "is revoked and not served" if revoked else "is not in the roster: enrol it and export the roster anew"
        self._say(contact, f"{board}: line {self._line.name}: {remedy}")
        return UNKNOWN_PAUSE_S

    def _say(self, contact: Contact, sentence: str) -> None:
        if contact.said != sentence:
            contact.said = sentence
            log.info("%s", sentence)

    async def _ask(
        self, contact: Contact, question: "Callable[[int], messages.Message]", expected: "type[messages.Message]"
    ) -> "Answer[messages.Message] | None":
        """Asks in the session. The answer, or None when there was none in time. Raises LineLost."""
        # A repeated question keeps its number, so that a late answer to the first one counts; the next has another.
        contact.number = (contact.number + 1) & 0xFF
        link, message = contact.link, question(contact.number).to_bytes()
        link.ask()

        def judge(received: Frame) -> "messages.Message | None":
            if received.kind == frame.MESSAGE:
                if received.payload == messages.HINT.to_bytes():
                    link.hint(received)
                return None
            opened = link.open(received) if received.kind == frame.RECORD else None
            return None if opened is None else self._message(contact, opened, expected)

        return await self._exchange.ask(
            lambda: None if link.session is None or link.hinted else link.seal(message),
            judge,
            ASK_TIMES if contact.answers else 1,
        )

    def _plain(
        self, contact: Contact, received: Frame, expected: "type[messages.Message]"
    ) -> "messages.Message | None":
        if received.kind != frame.MESSAGE or received.destination != frame.GATEWAY:
            return None
        if received.source == frame.GATEWAY or contact.address not in (received.source, frame.ANY_BOARD):
            return None
        return self._message(contact, received.payload, expected)

    def _message(
        self, contact: Contact, payload: bytes, expected: "type[messages.Message]"
    ) -> "messages.Message | None":
        """The message, if it answers the question under way."""
        try:
            message = messages.message_of(payload)
        except MessageError as why:
            self._health.count(self._subject, "messages malformed")
            log.debug("line %s: %s: %s", self._line.name, why, payload[:32].hex())
            return None
        if message.number != contact.number or not isinstance(message, (expected, messages.Refusal)):
            return None
        return message
