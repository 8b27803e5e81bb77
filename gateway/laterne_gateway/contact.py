"""Contacts: what we know of an address on a line, and how it is asked.

Asking here has rules for every question: it has a number, it is repeated, a late or unasked answer counts for nothing,
and no answer at all means something. What is asked, and what an answer means, is questions.py.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from laterne_gateway.backoff import Backoff
from laterne_gateway.board_clock import BoardClock
from laterne_gateway.exchange import Answer, Exchange
from laterne_gateway.health import Health
from laterne_gateway.sessions import Link
from laterne_gateway.trusts import Held
from laterne_protocol import frame, messages
from laterne_protocol.errors import MessageError
from laterne_protocol.frame import Frame
from laterne_protocol.session import Session

log = logging.getLogger("laterne")

ASK_TIMES = 3  # of a board that has answered before; one that has not is asked once
BUSY_PAUSE_S = 1.0  # a board that says it is busy means seconds
UNKNOWN_PAUSE_S = 5.0  # a board that is not enrolled, or not in the roster


TRUST_FIRST_S = 1.0  # longer than the next repetition of the trust takes to be asked


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
    boot: int = 0  # as it said when it was identified
    update_due_s: float = math.inf  # when it is asked how far its update is
    asked: int = 0  # questions in sessions with this board
    missed: int = 0  # of these, the ones that had to be repeated, or had no answer at all

    def next_s(self) -> float:
        """When the next question is due, but for its update.

        Without a session there is nothing to ask while a handshake is under way.
        """
        if self.link.session is None and self.link.handshake.is_under_way:
            return self.link.handshake.due_s
        return min(self.due_s, self.link.handshake.due_s)

    def next_update_s(self) -> float:
        """When it is to be asked how far its update is: in a session in which it has said who it is.

        Not while it judges a trust: if that one ends the session, anything but the trust again would end it at once.
        """
        is_known = self.link.session is not None and self.identified is self.link.session
        if not is_known:
            return math.inf
        return max(self.update_due_s, self.trust_due_s + TRUST_FIRST_S) if self.told else self.update_due_s


class Asking:
    """Asks the contacts of one line. The pauses that it returns are seconds until the next question is due.

    poll_within_s: a board is heard at least this often.
    """

    def __init__(self, line: str, exchange: Exchange, poll_within_s: float, health: Health) -> None:
        self._line = line
        self._exchange = exchange
        self._poll_within_s = poll_within_s
        self._health = health
        self._subject = f"line {line}"

    async def ask(
        self,
        contact: Contact,
        question: "Callable[[int], messages.Message]",
        expected: "type[messages.Message]",
        *,
        ahead: "Sequence[messages.Message]" = (),
        times: int | None = None,
    ) -> "Answer[messages.Message] | None":
        """Asks in the session. The answer, or None when there was none in time. Raises LineLost.

        ahead: messages without an answer, sent once before it. times: how often it is asked, if not as usual.
        """
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

        sealed = [link.seal(one.to_bytes()) for one in ahead if link.session is not None]
        answer: Answer[messages.Message] | None = await self._exchange.ask(
            lambda: None if link.session is None or link.hinted else link.seal(message),
            judge,
            times or (ASK_TIMES if contact.answers else 1),
            b"".join(frame.DELIMITER + one.to_bytes() for one in sealed if one is not None),
        )
        contact.asked += 1
        contact.missed += answer is None or answer.repeated
        return answer

    async def ask_plain(
        self, contact: Contact, question: "Callable[[int], messages.Message]", expected: "type[messages.Message]"
    ) -> "Answer[messages.Message] | None":
        """As ask(), in the clear."""
        contact.number = (contact.number + 1) & 0xFF
        asked = Frame(frame.MESSAGE, contact.address, frame.GATEWAY, question(contact.number).to_bytes())
        return await self._exchange.ask(
            lambda: asked,
            lambda received: self._plain(contact, received, expected),
            ASK_TIMES if contact.answers else 1,
        )

    def unanswered(self, contact: Contact) -> float:
        """A question in the session had no answer in time."""
        if contact.link.session is None:  # it was at its end
            return 0.0
        if contact.link.hinted:
            # Perhaps a stranger's word: the session stays until there is a new one.
            self._health.count(self._subject, "questions without answer")
            return self._poll_within_s
        return self.silent(contact)

    def silent(self, contact: Contact) -> float:
        """Nobody answers at this address."""
        # Who answers next shakes hands first: it may be another board, or this one after a restart.
        entry = contact.link.entry
        if entry is not None:
            if contact.answers:
                self.say(contact, "silent", f"{entry.board}: line {self._line}: does not answer any more")
                self._health.count(entry.board, "fell silent")
            contact.link.drop("no answer")
        contact.answers = False
        self._health.count(self._subject, "questions without answer")
        return contact.silence.failed()

    def declined(self, contact: Contact, message: object) -> float:
        """It answers, but with something else than was asked for."""
        reason = message.reason if isinstance(message, messages.Refusal) else 0
        if reason == messages.NOT_ENROLLED:
            return self.not_enrolled(contact)
        contact.answers = True
        self._health.count(self._subject, "questions declined")
        return BUSY_PAUSE_S

    def not_enrolled(self, contact: Contact) -> float:
        """It has no keys yet: a person enrols it."""
        self._health.count(self._subject, "not enrolled")
        sentence = f"line {self._line}: a board that is not enrolled answers: laterne board enrol"
        self.say(contact, "not enrolled", sentence)
        return UNKNOWN_PAUSE_S

    def say(self, contact: Contact, kind: str, sentence: str) -> None:
        """Logs it, unless that was the last thing said of this contact; each kind once a minute."""
        if contact.said != sentence and self._health.say(self._subject, f"{kind} at {contact.address}", sentence):
            contact.said = sentence

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
            log.debug("line %s: %s: %s", self._line, why, payload[:32].hex())
            return None
        if message.number != contact.number or not isinstance(message, (expected, messages.Refusal)):
            return None
        return message
