"""Handshakes: how the two ends of a link come to a session. One for each address of a line, none under way or one.

This module moves no bytes: the bus asks for the next step, hands over what came back, and says when nothing did. Bytes
and rules are those of protocol/README.md, 9.4.

Who begins a handshake. call() does, and it is called when a greeted board needs a session, when a hint says that it has
lost ours, and when the session is due to be replaced. A stranger on the line can forge a hint, and can make records
that do not open; each costs a board seconds of arithmetic. So handshakes on a link begin at most once in Pace.again_s,
and after one that has failed the pause grows.

With which credential. A board whose trust is older than ours may believe a former one only (`identity`). A board says
nothing to one that it refuses; after Pace.introduce_s the next is tried, and the one that was taken comes first
the next time.
"""

import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from laterne_gateway.backoff import Backoff
from laterne_gateway.clock import Clock
from laterne_gateway.health import Health
from laterne_gateway.identity import Identity
from laterne_gateway.primitives import PRIMITIVES
from laterne_gateway.roster import RosterKeeper
from laterne_protocol import edhoc, edhoc_keys, frame, session
from laterne_protocol.edhoc_keys import Party
from laterne_protocol.edhoc_messages import EdhocError, connections, error_of
from laterne_protocol.errors import MessageError, WireError
from laterne_protocol.frame import Frame
from laterne_protocol.roster import Entry
from laterne_protocol.session import Session

log = logging.getLogger("laterne")

NEVER = math.inf
# Anybody can send an error; a board that is still computing (1 to 3 s, RP2040) has answered by the second repetition.
REPEATED_AFTER_AN_ERROR = 2


@dataclass(frozen=True)
class Pace:
    """How often boards are asked for a handshake; a step takes a board (RP2040) 1 to 3 s.

    repeat_s: a step without an answer is asked again. give_up_s: a handshake that long under way is given up.
    introduce_s: so long one credential is tried when there is another; a board judges one in 2 s.
    again_s: the shortest time from one's beginning to the next. rest_s, rest_cap_s: the pause after a failure.
    """

    repeat_s: float = 2.0
    give_up_s: float = 30.0
    introduce_s: float = 8.0
    again_s: float = 10.0
    rest_s: float = 2.0
    rest_cap_s: float = 60.0


# What a handshake waits for.
IDLE = "nothing"
AWAITS_INTRODUCED = "to be introduced"
AWAITS_2 = "message_2"
AWAITS_4 = "message_4"

# (state, step that came) -> state once it has been judged good. If it was not, or nothing came for too long: IDLE, and
# a pause. Every other pair is a frame that nobody has asked for.
NEXT = {
    (AWAITS_INTRODUCED, edhoc.INTRODUCED): AWAITS_2,
    (AWAITS_2, edhoc.MESSAGE_2): AWAITS_4,
    (AWAITS_4, edhoc.MESSAGE_4): IDLE,
}


class Handshaking:
    """The handshakes with the board at one address of a line, one after the other.

    due_s: when the next step wants the line (monotonic). rests_until_s: no handshake begins before.
    farewell: an EDHOC error to be sent, once.
    identity: ours, in force now. board: whom there is a session with, None while there is none. opened: called with
    each new session, its board and that one's bus address.
    """

    def __init__(
        self,
        line: str,
        address: int,
        identity: Callable[[], Identity],
        roster: RosterKeeper,
        clock: Clock,
        health: Health,
        pace: Pace,
        board: Callable[[], Entry | None],
        opened: Callable[[Session, Entry, int], None],
    ) -> None:
        self.due_s = NEVER
        self.rests_until_s = -NEVER
        self.farewell = b""
        self._line = line
        self._alarm = f"handshake {address}"
        self._subject = f"line {line}"
        self._address = address  # as configured: a board's, or whoever is there
        self._identity = identity
        self._roster = roster
        self._clock = clock
        self._health = health
        self._pace = pace
        self._board = board
        self._opened = opened
        self._rest = Backoff(pace.rest_s, pace.rest_cap_s, floor_s=pace.rest_s / 4)
        self._state = IDLE
        self._began_s = -NEVER
        self._introduction = 0  # which of ours, of those that there are
        self._introductions_tried = 0
        self._question = (0, b"")  # step and body
        self._to = address  # of the handshake under way
        self._handshake: edhoc.Initiator | None = None
        self._refused_kid = b""  # whom the roster does not know
        self._refusal = ""  # what the board says against the handshake, if it was the board
        self._repeated = 0  # how often the step was asked for in vain since then
        self._said = ""
        self._connection = random.randrange(len(connections()))

    @property
    def is_under_way(self) -> bool:
        """Whether a handshake is under way, or wanted and waiting for its time."""
        return self._state != IDLE or self.due_s < NEVER

    def call(self) -> None:
        """A session is wanted: the handshake begins as soon as it may."""
        if not self.is_under_way:
            self.due_s = max(self._clock.monotonic_s(), self.rests_until_s)

    def forgive(self) -> None:
        """The roster or our credential has changed: what was refused may begin again at once."""
        self._rest.reset()
        self._introduction = 0
        self.rests_until_s = -NEVER
        if self._state == IDLE and self.due_s < NEVER:
            self.due_s = self._clock.monotonic_s()

    def question(self) -> Frame:
        """The step to ask for now."""
        if self._state == IDLE:
            self._introductions_tried = 0
            self._introduce()
            self.rests_until_s = self._began_s + self._pace.again_s
            self._to = self._address
            self._refused_kid, self._refusal, self._repeated = b"", "", 0
            self._health.count(self._subject, "handshakes begun")
        step, body = self._question
        return Frame(frame.HANDSHAKE, self._to, frame.GATEWAY, bytes((step,)) + body)

    def take(self, received: Frame) -> bool:
        """Whether this frame is the answer that the handshake waits for; then it has been judged."""
        if received.kind != frame.HANDSHAKE or not received.payload or not is_from(received, self._to):
            return False
        step, body = received.payload[0], received.payload[1:]
        if step == edhoc.ERROR:
            self._note_error(body)
            return False
        following = NEXT.get((self._state, step))
        if following is None:
            return False
        try:
            if step == edhoc.INTRODUCED:
                if body != self._identity().party.kid:
                    self._health.count(self._subject, "introductions answered for another gateway")
                    return False
                self._begin_edhoc(received.source)
            else:
                assert self._handshake is not None
                self._question = (step + 1, _run(self._handshake, step, body))
        except EdhocError as why:
            self.farewell = b"" if not why.answer else bytes((edhoc.ERROR,)) + why.answer
            self._fail("message refused", str(why))
            return True
        except MessageError as why:
            log.debug("%s: %s: %s", self._subject, why, body[:32].hex())
            return False
        self._state = following
        self._refusal, self._repeated = "", 0
        self.due_s = self._clock.monotonic_s()
        if following == IDLE:
            self._open()
        return True

    def unanswered(self) -> None:
        """No answer to question() in its time: ask again later, or give up."""
        now_s = self._clock.monotonic_s()
        self._health.count(self._subject, "handshake steps repeated")
        if self._state == IDLE:
            return
        introductions = self._identity().introductions
        others = self._state == AWAITS_INTRODUCED and self._introductions_tried < len(introductions)
        self._repeated += 1 if self._refusal else 0
        if self._repeated > REPEATED_AFTER_AN_ERROR:
            self._fail("refused by the board", f"the board says {self._refusal}")
        elif now_s - self._began_s < (self._pace.introduce_s if others else self._pace.give_up_s):
            self.due_s = now_s + self._pace.repeat_s
        elif others:
            self._introduction += 1
            self._introduce()
            self.due_s = now_s
        elif self._state == AWAITS_INTRODUCED:
            self._fail(
                "not introduced",
                "the board does not take our credential: is it of the same authority, valid under its trust?",
            )
        else:
            self._fail("no answer", f"no {self._state} within {self._pace.give_up_s:.0f} s")

    def _introduce(self) -> None:
        introductions = self._identity().introductions
        self._introduction %= len(introductions)  # there may be other ones since
        self._state = AWAITS_INTRODUCED
        self._began_s = self._clock.monotonic_s()
        self._introductions_tried += 1
        self._question = (edhoc.INTRODUCTION, introductions[self._introduction].data)

    def followed(self) -> None:
        """The board has taken a newer trust: it is shown our newest credential next."""
        self._introduction = 0

    def farewell_frame(self) -> Frame | None:
        """The EDHOC error that tells the board why, if there is one to send."""
        payload, self.farewell = self.farewell, b""
        return Frame(frame.HANDSHAKE, self._to, frame.GATEWAY, payload) if payload else None

    def _begin_edhoc(self, source: int) -> None:
        self._to = source
        names = connections()
        self._connection = (self._connection + 1) % len(names)  # not that of the session before
        self._handshake = edhoc.Initiator(
            PRIMITIVES,
            self._identity().party,
            self._identity().agree,
            self._find_peer,
            names[self._connection],
        )
        self._question = (edhoc.MESSAGE_1, _run(self._handshake, edhoc.START, b""))

    def _find_peer(self, kid: bytes) -> Party | None:
        entry = self._roster.entry_of_key(kid)
        if entry is None:
            self._refused_kid = kid
            return None
        return edhoc_keys.party(entry.board, entry.agree_key)

    def _open(self) -> None:
        handshake = self._handshake
        assert handshake is not None
        assert handshake.peer is not None
        entry = self._roster.entry_of_key(handshake.peer.kid)
        if entry is None:  # the roster has changed while hands were shaken
            self._refused_kid = handshake.peer.kid
            self._fail("roster", "the roster has changed")
            return
        made = session.session_of(handshake, session.GATEWAY, self._to, int(self._clock.monotonic_s() * 1000))
        self._handshake = None
        self.due_s = NEVER
        self._rest.reset()
        self._said = ""
        self._health.clear(self._subject, self._alarm)
        self._health.count(entry.board, "sessions opened")
        self._opened(made, entry, self._to)

    def _fail(self, reason: str, sentence: str) -> None:
        self._state = IDLE
        self._handshake = None
        self.rests_until_s = max(self.rests_until_s, self._clock.monotonic_s() + self._rest.failed())
        # With a session we try again by ourselves; without one the bus greets first: the board may have gone.
        board = self._board()
        self.due_s = self.rests_until_s if board is not None else NEVER
        self._health.count(self._subject, "handshakes failed")
        if self._refused_kid:
            self._turned_away()
        else:
            self._health.count(self._subject, f"handshakes failed: {reason}")
            whose = "" if board is None else f"{board.board}: "
            self._health.alarm(self._subject, self._alarm, f"{whose}handshake failed: {sentence}")

    def _turned_away(self) -> None:
        # Nobody has proved that the board is the one whose key it names: this is for people.
        board = self._roster.name_of_key(self._refused_kid)
        if board is not None and self._roster.is_revoked(board):
            self._health.count(self._subject, "refused: revoked board")
            self._say(f"{board}: line {self._line}: is revoked and not served")
            return
        self._health.count(self._subject, "refused: unknown board")
        if board is not None and self._roster.entry(board) is not None:
            # The next try may show the other one: both are good on the board while keys are rotated (12.3).
            self._say(f"{board}: line {self._line}: shows a former agreement key, hands are shaken again")
            return
        who = board or f"a board with agreement key {self._refused_kid.hex()}"
        self._say(f"{who}: line {self._line}: is not in the roster: enrol it and export the roster anew")

    def _note_error(self, body: bytes) -> None:
        # Nobody signs it: it ends the handshake only if no answer comes either (unanswered).
        self._health.count(self._subject, "handshake errors from the line")
        try:
            code, _ = error_of(body)
        except WireError:
            return
        self._refusal = f"EDHOC error {code}"

    def _say(self, sentence: str) -> None:
        # Once a minute: who shows another key each time is said otherwise each time.
        if self._said != sentence and self._health.say(self._subject, self._alarm, sentence, logging.WARNING):
            self._said = sentence


def is_from(received: Frame, address: int) -> bool:
    """Whether a frame is for the gateway and says that it comes from this address, or from whoever is there."""
    if received.destination != frame.GATEWAY or received.source == frame.GATEWAY:
        return False
    return address in (received.source, frame.ANY_BOARD)


def _run(handshake: edhoc.Initiator, step: int, message: bytes) -> bytes:
    # All steps at once: here a handshake takes less than a millisecond.
    steps = handshake.take(step, message)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            answer: bytes = finished.value
            return answer
