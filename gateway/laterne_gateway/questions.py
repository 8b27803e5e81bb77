"""Questions: what a board is asked, and what its answer means to the rest of the gateway.

Each question here returns how many seconds later the board is due again. Which one is next is the bus's to decide.
"""

import logging

from laterne_gateway.board_clock import BoardClock
from laterne_gateway.clock import Clock
from laterne_gateway.contact import ASK_TIMES, UNKNOWN_PAUSE_S, Asking, Contact
from laterne_gateway.exchange import Answer
from laterne_gateway.health import Health
from laterne_gateway.inbox import ACCEPTED, AWAITS_ROSTER, REFUSED, Inbox
from laterne_gateway.orders import Errand, Orders
from laterne_gateway.sessions import Sessions
from laterne_gateway.trusts import Telling
from laterne_gateway.updates import Updates
from laterne_protocol import credential, messages, report
from laterne_protocol.roster import Entry

log = logging.getLogger("laterne")

POLL_FLOOR_S = 0.2  # a board that says "due now" again and again is asked five times a second, not more
AFTER_DUE_S = 0.03  # the report is closed when it is due, then signed: 5 ms and more (design 11)
REFUSED_PAUSE_S = 1.0  # before a refused report is asked for again
NOT_STORED_PAUSE_S = 1.0  # while the disk is full each board is asked once a second
MAX_UNCOMMITTED = 64  # reports of one board on their way to the disk: 60 KiB, and one answer; then it waits
ORDER_FIRST_S = 4.0  # it is asked again for its order before that (orders.AGAIN_S)
UPDATE_BUSY_PAUSE_S = 0.25  # it judges the envelope, or signs a report: parts may come the moment that is done
TRUST_AGAIN_S = 2.0  # a board judges a trust for a second or two a signature; it is asked for its answer so often
TRUST_TIMES = 30  # then, or when it refuses, it is left alone for TRUST_REST_S
TRUST_REST_S = 3600.0
SESSIONS_SAID = 3  # a minute: who brings keys and trusts looks for the next one in the log


class Questions:
    """To the contacts of one line. poll_within_s: a board is heard at least this often."""

    def __init__(
        self,
        line: str,
        asking: Asking,
        poll_within_s: float,
        sessions: Sessions,
        inbox: Inbox,
        orders: Orders,
        updates: Updates,
        clock: Clock,
        health: Health,
    ) -> None:
        self._line = line
        self._subject = f"line {line}"
        self._asking = asking
        self._poll_within_s = poll_within_s
        self._sessions = sessions
        self._inbox = inbox
        self._orders = orders
        self._updates = updates
        self._clock = clock
        self._health = health

    async def greet(self, contact: Contact) -> float:
        """In the clear: is anybody there, and is it enrolled?"""
        answer = await self._asking.ask_plain(contact, messages.Hello, messages.Identity)
        if answer is None:
            return self._asking.silent(contact)
        if isinstance(answer.what, messages.Refusal) and answer.what.reason == messages.SESSION_NEEDED:
            contact.answers = True
            contact.silence.reset()
            contact.link.handshake.call()
            return 0.0
        if not isinstance(answer.what, messages.Identity):
            return self._asking.declined(contact, answer.what)
        if answer.what.board is None:
            return self._asking.not_enrolled(contact)
        self._health.count(self._subject, "refused: enrolled, but speaks in the clear")
        sentence = f"line {self._line}: a board answers without a session: bring it a newer release"
        self._asking.say(contact, "no session", sentence)
        return UNKNOWN_PAUSE_S

    async def identify(self, contact: Contact, entry: Entry) -> float:
        """In the session: who it says it is, which boot, which release, which trust."""
        session = contact.link.session
        answer = await self._asking.ask(contact, messages.Hello, messages.Identity)
        if answer is None:
            return self._asking.unanswered(contact)
        identity = answer.what
        if not isinstance(identity, messages.Identity):
            return self._asking.declined(contact, identity)
        where = f"line {self._line}"
        if identity.board != entry.board:
            self._health.count(entry.board, "refused: speaks for another")
            self._health.alarm(
                entry.board, "speaks for another", f"{where}: it says in its session that it is {identity.board}"
            )
            return UNKNOWN_PAUSE_S
        if identity.kid != credential.kid(entry.sign_key):
            self._health.count(entry.board, "answers with another key")
            sentence = f"{entry.board}: {where}: holds another key than the roster says: export the roster anew"
            self._asking.say(contact, "another key", sentence)
            return UNKNOWN_PAUSE_S
        if contact.known != (entry.board, identity.kid):
            # Another board may count the same boot: its clock is another one all the same.
            contact.known, contact.clock = (entry.board, identity.kid), BoardClock()
            contact.asked = contact.missed = 0
        contact.identified, contact.held, contact.boot = session, identity.trust, identity.boot
        contact.update_due_s = self._clock.monotonic_s()
        contact.answers = True
        contact.silence.reset()
        self._health.note(entry.board, "line", self._line)
        self._health.note(entry.board, "release", identity.release)
        self._health.note(entry.board, "model", identity.model)
        self._sessions.trusts.note(entry.board, identity.trust)
        sentence = f"{entry.board}: {where}: answers, boot {identity.boot}, release {identity.release}"
        self._asking.say(contact, "answers", sentence)
        return 0.0

    async def carry(self, contact: Contact, entry: Entry, errand: Errand) -> float:
        """An order for this board, or that its receipt has arrived."""
        answer = await self._asking.ask(
            contact, lambda number: messages.Enrolment(number, errand.step, errand.body), messages.Enrolment
        )
        if answer is None:
            return self._asking.unanswered(contact)
        contact.answers = True
        contact.silence.reset()
        self._orders.answered(entry.board, errand, answer.what)
        if isinstance(answer.what, messages.Enrolment):
            contact.update_due_s = self._clock.monotonic_s()  # the order may have been about its release
        else:
            # It works at the order, and has no memory for its update beside that.
            contact.update_due_s = max(contact.update_due_s, self._clock.monotonic_s() + ORDER_FIRST_S)
        return 0.0  # if the board is at it, polls go on meanwhile

    async def update(self, contact: Contact, entry: Entry, burst_bytes: int) -> float:
        """How far its update is, after parts of what it wanted, at most so many bytes of them."""
        session = contact.link.session
        assert session is not None
        told = self._updates.told(entry.board, session)
        # Whether the board lives is for polls to say: one with an older release does not know this question.
        answer = await self._asking.ask(
            contact,
            lambda number: messages.Update(number, told),
            messages.Progress,
            ahead=self._updates.ahead(entry.board, burst_bytes),
            times=ASK_TIMES if self._updates.has_answered(entry.board, session) else 1,
        )
        if answer is None:
            return self._updates.unheard(entry.board)
        contact.answers = True
        contact.silence.reset()
        self._updates.linked(entry.board, contact.asked, contact.missed)
        if not isinstance(answer.what, messages.Progress):
            self._health.count(self._subject, "questions declined")
            return UPDATE_BUSY_PAUSE_S
        return await self._updates.heard(entry.board, session, contact.boot, answer.what)

    def to_be_told(self, contact: Contact, now_s: float) -> Telling | None:
        """The trust that this board can follow to now, if there is one."""
        if contact.trust_due_s > now_s:
            return None
        trusts = self._sessions.trusts
        if contact.held is not None and contact.held[0] >= trusts.newest.version:
            return None  # as nearly always
        # Not before we have a credential that is believed then: the board would forget us, and wait for one.
        if not self._sessions.identity.is_believed_under(trusts.newest.version):
            return None
        return trusts.next_for(contact.held)

    async def tell_trust(self, contact: Contact, entry: Entry, telling: Telling) -> float:
        """That trust."""
        version, digest = telling.held
        answer = await self._asking.ask(
            contact, lambda number: messages.Enrolment(number, messages.TRUST, telling.bundle), messages.Enrolment
        )
        contact.trust_due_s = self._clock.monotonic_s() + TRUST_AGAIN_S
        contact.told += 1
        if answer is None:
            return self._asking.unanswered(contact)
        contact.answers = True
        said = answer.what
        if isinstance(said, messages.Enrolment) and (said.step, said.body) == (messages.TRUST_TAKEN, digest):
            contact.told, contact.trust_due_s, contact.held = 0, 0.0, telling.held
            contact.link.handshake.followed()
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

    async def poll(self, contact: Contact, entry: Entry, now_s: float) -> float:
        """What it has to report, and what we have on disk."""
        if self._inbox.uncommitted(entry) >= MAX_UNCOMMITTED:
            return POLL_FLOOR_S
        acknowledged, after = self._inbox.acknowledged(entry), self._inbox.after(entry)
        time = contact.clock.told(self._clock)
        answer = await self._asking.ask(
            contact, lambda number: messages.Poll(number, acknowledged, after, time), messages.ReportAnswer
        )
        if answer is None:
            return self._asking.unanswered(contact)
        if not isinstance(answer.what, messages.ReportAnswer):
            return self._asking.declined(contact, answer.what)
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
            opened = f"{entry.board}: session opened, {said.waiting} reports waiting"
            self._health.say(entry.board, "session opened", opened, times=SESSIONS_SAID)
        contact.answers = True
        contact.silence.reset()
        if contact.clock.boot not in (None, said.boot):
            self._health.say(entry.board, "restarted", f"{entry.board}: restarted, boot {said.boot}")
            self._health.count(entry.board, "restarts")
        contact.clock.add(said.boot, said.ticks_ms, answer.asked_s, answer.answered_s, answer.repeated)
        self._note_crystal(contact, entry)
        self._note_time(contact, said)
        self._health.note(entry.board, "waiting on the board", said.waiting)
        self._health.note(entry.board, "heard_utc_ms", self._clock.utc_ms())
        self._health.note(entry.board, "boot", said.boot)
        if said.reports:
            for body in said.reports:
                outcome = self._inbox.take(entry, body)
                if outcome != ACCEPTED:
                    break  # what is behind it follows nothing that we have: it is asked for again
            if outcome == ACCEPTED:
                if self._inbox.failing:
                    return NOT_STORED_PAUSE_S
                return 0.0  # there may be more, and this one is acknowledged with the next question
            if outcome == AWAITS_ROSTER:
                return UNKNOWN_PAUSE_S
            return REFUSED_PAUSE_S if outcome == REFUSED else self._poll_within_s
        return min(self._poll_within_s, max(POLL_FLOOR_S, said.due_ms / 1000 + AFTER_DUE_S))

    def _note_crystal(self, contact: Contact, entry: Entry) -> None:
        if contact.clock.is_off:
            self._health.alarm(
                entry.board,
                "clock",
                f"its clock and this machine's drift apart by more than {report.DRIFT_PPM} ppm: it is told no time; "
                "is this machine's clock being corrected, or are other boards right?",
            )
        else:
            self._health.clear(entry.board, "clock", "its clock is good enough again")

    def _note_time(self, contact: Contact, said: messages.ReportAnswer) -> None:
        told = contact.clock.told(self._clock)
        if told is None or contact.known is None:
            return
        moment = (said.ticks_ms, said.ticks_ms + told[1], told[2])
        jumped_ms = self._inbox.dates.learn(contact.known, said.boot, moment)
        if jumped_ms:
            # The crystals are compared by the monotonic clock: it is our UTC that has moved.
            self._health.count(contact.known[0], "clock set")
            self._health.say(
                "gateway",
                "clock",
                f"gateway: this machine's clock has been set, by {jumped_ms / 1000:+.1f} s as seen with "
                f"{contact.known[0]}: boards are told the new time, what they signed before keeps the old one",
                logging.WARNING,
            )
