"""Who has which session: one link for each address of a line.

A link has a session or none, and a handshake (handshakes.py) under way or none; the two are independent, because the
old session goes on while a new one is made. This module moves no bytes: it seals and opens them. Bytes and rules are
those of protocol/README.md, 10.6.

What ends a session. Its own limits (session.Session), a newer one, three questions without an answer, the roster. Not:
a hint, an EDHOC error, a record that does not open. All three can be forged, and the old session is then still good.
But who forges hints keeps a session alive in which nothing is answered, and after 256 questions their numbers come
again: an answer held back until then would pass for a new one, and a board's clock for a slow one. So records of a
board open in their order only, and MAX_UNANSWERED questions in a row end a session, hints or not.

Who the board is. The handshake proves that it holds an agreement key of the roster, and the link's entry is that of
this key, whatever the messages in the session say. The roster in force decides again when the session opens and at each
question (check_roster).
"""

from laterne_gateway.clock import Clock
from laterne_gateway.handshakes import Handshaking, Pace, is_from
from laterne_gateway.health import Health
from laterne_gateway.identity import Identity
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.trusts import TrustKeeper
from laterne_protocol import frame, session
from laterne_protocol.frame import Frame
from laterne_protocol.roster import Entry
from laterne_protocol.session import RecordError, Session, SessionError

MAX_UNANSWERED = 128  # far below the 256 numbers of questions; with forged hints five minutes


class Link:
    """What we share with the board at one address of a line.

    session, entry: keys and board, both None while there is none. handshake: how it comes to one.
    hinted: since ask() was called the board has said that it does not have our session.
    """

    def __init__(self, sessions: "Sessions", line: str, address: int) -> None:
        self.session: Session | None = None
        self.entry: Entry | None = None
        self.hinted = False
        self._subject = f"line {line}"
        self._at = address  # of the session: a board's
        self._roster = sessions.roster
        self._clock = sessions.clock
        self._health = sessions.health
        self._asked = 0  # questions since a record from the board has opened
        self._above = 0  # the counters of all that have opened in this session
        self.handshake = Handshaking(
            line,
            address,
            lambda: sessions.identity,
            sessions.roster,
            sessions.clock,
            sessions.health,
            sessions.pace,
            lambda: self.entry,
            self._open,
        )

    def ask(self) -> None:
        """A question begins, which may be sent more than once."""
        self.hinted = False
        self._asked += 1
        if self.session is not None and self._asked > MAX_UNANSWERED:
            self.drop(f"{MAX_UNANSWERED} questions without an answer")
            self.handshake.call()
        if self.session is not None and self.session.is_due(self._now_ms()):
            self.handshake.call()

    def seal(self, message: bytes) -> Frame | None:
        """The frame that carries a message in the session; None: the session is over, and has been dropped."""
        assert self.session is not None
        header = frame.header(frame.RECORD, self._at, frame.GATEWAY)
        try:
            record = self.session.seal(header, message, self._now_ms())
        except SessionError as why:
            self.drop(str(why))
            self.handshake.call()
            return None
        return Frame(frame.RECORD, self._at, frame.GATEWAY, record)

    def open(self, received: Frame) -> bytes | None:
        """The message in a record from the board; None: it does not open, and has been counted."""
        if self.session is None or not is_from(received, self._at):
            return None
        header = frame.header(received.kind, received.destination, received.source)
        failed_tags = self.session.failed_tags
        try:
            message = self.session.open(header, received.payload, self._now_ms())
            counter = int.from_bytes(received.payload[1 : session.HEAD_BYTES], "big")
            if counter < self._above:
                raise RecordError(f"record {counter} comes after a later one")
            self._asked, self._above = 0, counter + 1
            return message
        except RecordError:
            wrong = self.session.failed_tags > failed_tags
            self._health.count(
                self._whose(), "records refused: " + ("wrong tag" if wrong else "repeated, late or malformed")
            )
        except SessionError:
            self._health.count(self._whose(), "records refused: another session")
        if self.session.failed_tags >= session.MAX_FAILED_TAGS:
            self.drop(f"{session.MAX_FAILED_TAGS} records with a wrong tag: somebody forges on this line")
            self.handshake.call()
        return None

    def hint(self, received: Frame) -> None:
        """The board says, in the clear, that it does not have this session. Anybody could have said it."""
        if self.session is None or not is_from(received, self._at):
            return
        self._health.count(self._whose(), "hints of a lost session")
        self.hinted = True
        self.handshake.call()

    def _open(self, session: Session, entry: Entry, address: int) -> None:
        self.session, self.entry, self._at = session, entry, address
        self._asked = self._above = 0

    def drop(self, why: str) -> None:
        """The session ends here."""
        if self.session is not None:
            self._health.count(self._whose(), "sessions ended")
            self._health.say(self._whose(), "session ended", f"{self._whose()}: session ended: {why}")
        self.session = None
        self.entry = None

    def check_roster(self) -> str | None:
        """The id of the session's board if the roster in force does not let us serve it any more; the session ends."""
        if self.entry is None:
            return None
        current = self._roster.entry(self.entry.board)
        if current is not None and current.agree_key == self.entry.agree_key:
            self.entry = current
            return None
        board = self.entry.board
        self.drop("the roster has changed")
        return board

    def _whose(self) -> str:
        return self._subject if self.entry is None else self.entry.board

    def _now_ms(self) -> int:
        return int(self._clock.monotonic_s() * 1000)


class Sessions:
    """What the links of all lines share. identity: replaced when the authority has signed a new credential."""

    def __init__(
        self,
        identity: Identity,
        roster: RosterKeeper,
        trusts: TrustKeeper,
        clock: Clock,
        health: Health,
        pace: Pace | None = None,
    ) -> None:
        self.identity = identity
        self.roster = roster
        self.trusts = trusts
        self.clock = clock
        self.health = health
        self.pace = pace or Pace()

    def link(self, line: str, address: int) -> Link:
        """A link of a line. address: a board's, or frame.ANY_BOARD."""
        return Link(self, line, address)
