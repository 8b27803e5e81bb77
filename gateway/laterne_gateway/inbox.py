"""The inbox: what a board sends is believed only after its signature, its number and its chain have been checked.

What may be acknowledged, and when. A board forgets what we acknowledge, so:

1. A sequence N is acknowledged when the commit that holds report N has been synced, never before: put() returned.
   "On disk before acknowledged."
2. N stands for everything up to N. So report N is stored only on top of the chain it was judged against: when an
   earlier one could not be stored (disk full), the later ones are not stored either (buffer, NOT_IN_TURN), and all of
   them are asked for again.
3. A refused report is asked for again, ASK_TIMES in all, because a forger on the line may have spoken first. Then it
   is set aside, as received and on disk, and passed over: its number counts as missing and may be acknowledged. The
   line must go on: a report that is damaged on the board's flash would otherwise hold back all others for ever.
   The number in a report that is not validly signed is a stranger's word. It is never believed upwards: we pass over
   one number when it says nothing readable, and at most MAX_STEP towards the number it claims, where an honest board
   has nothing in between.
4. The board forgets when it sees the acknowledgement in a later question, which it answers. If either is lost, the
   question comes again: "acknowledged by the next one before forgotten." The gateway forgets a report when every route
   has delivered it (buffer).

Reports come in a session, and the session's board is known before its report is read. So a report that names another
board, or that another board of the roster has signed, is no forger's noise: the board itself hands it over. It is
refused, and a person is told.

A board whose keys are rotated signs up to a sequence with the former key and then with the next (protocol/README.md,
12.3). The roster says which and where. A report by a key that an order has just brought to the board, and that no
roster names yet, is neither believed nor passed over: it waits on the board.

A repeated report is stored once. One that bears a stored number but is another report, or does not follow the one
before, is validly signed all the same: two boards hold one key. It is set aside, and a person is told. So is he when
a board says that it was overtaken: it has left out numbers that came with its key and that it does not know.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from laterne_gateway.buffer import Buffer, NotInTurnError
from laterne_gateway.buffered import OTHER, PAST, STORED, Accepted, Refused
from laterne_gateway.clock import Clock
from laterne_gateway.dates import Dates
from laterne_gateway.examination import (
    ANOTHER,
    RefusedReport,
    check_chain,
    examine,
    key_for,
    kid_of,
    stated,
    unstated,
)
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.writer import StoreError
from laterne_protocol import report, report_reading
from laterne_protocol.roster import Entry

log = logging.getLogger("laterne")

ASK_TIMES = 3
MAX_STEP = 64  # a gap of 10,000 reports before a damaged one is crossed in 157 steps

# Of one board: each costs a synced commit, and a forger could have one every 3 s. Enough to cross that gap in an hour.
MAX_SET_ASIDE_AN_HOUR, HOUR_S = 160, 3600.0

ACCEPTED, REFUSED, REPEATED, AWAITS_ROSTER = "accepted", "refused", "repeated", "awaits the roster"


@dataclass
class Intake:
    """How far we are with a board, in memory: ahead of the disk by what is being committed.

    received: the last sequence taken, 0 before the first. digest: of that report, None when it was passed over.
    follows: as the buffer wants it: `received`, or None before the first. uncommitted: how many are on their way.
    """

    credential: bytes
    received: int = 0
    digest: bytes | None = None
    follows: int | None = None
    uncommitted: int = 0
    refusals: int = 0
    last_set_aside: bytes = b""
    set_aside_s: "deque[float]" = field(default_factory=lambda: deque(maxlen=MAX_SET_ASIDE_AN_HOUR))


class Inbox:
    """dates: is told of every report that knows when it was closed."""

    def __init__(self, roster: RosterKeeper, buffer: Buffer, clock: Clock, health: Health, dates: Dates) -> None:
        self._roster = roster
        self._buffer = buffer
        self._clock = clock
        self._health = health
        self.dates = dates
        self._intakes: dict[str, Intake] = {}
        self._under_way = 0  # what is on its way to the disk, of all boards
        self._settled = asyncio.Event()
        self._of_starts: dict[str, tuple[int, int]] = {}  # by board: its last start, and reports of that on disk
        self._tasks: set[asyncio.Task[None]] = set()
        self.failing = False  # the last report that had its turn could not be stored

    def after(self, entry: Entry) -> int:
        """Ask the board for the oldest reports after this sequence.

        It goes back when a report could not be stored. An answer to a question with a later `after` must not be
        taken: it would pass for a gap, and what is missing would be acknowledged.
        """
        return self._intake(entry).received

    def acknowledged(self, entry: Entry) -> int | None:
        """Every report up to this sequence is on disk, or set aside there, or known to be lost; None: nothing yet."""
        chain = self._buffer.chains.get(entry.board)
        return None if chain is None or chain.credential != entry.credential_digest else chain.sequence

    def uncommitted(self, entry: Entry) -> int:
        """How many of the board's reports are on their way to the disk."""
        return self._intake(entry).uncommitted

    def committed_of(self, board: str, boot: int) -> int:
        """How many reports that this board closed in this start have come to this process and are on disk."""
        start, count = self._of_starts.get(board, (boot, 0))
        return count if start == boot else 0

    def take(self, entry: Entry, body: bytes) -> str:
        """ACCEPTED, REPEATED, REFUSED or AWAITS_ROSTER. Returns at once; acknowledged() follows after the commit."""
        intake = self._intake(entry)
        try:
            found, digest = examine(body, entry)
            if found.sequence <= intake.received:
                return self._old(entry, intake, found, digest, body)
            expected = intake.credential if intake.follows is None else intake.digest
            check_chain(found, intake.received, expected)
        except RefusedReport as why:
            if self._roster.awaits(entry.board, why.kid):
                self._health.alarm(
                    entry.board, "next keys", "it has its next keys: bring the roster that names them; its reports wait"
                )
                return AWAITS_ROSTER
            self._refuse(entry, intake, why, body)
            return REFUSED
        intake.refusals = 0
        former = intake.received
        accepted = self._accepted(entry, intake, found, digest, body)
        self.dates.learn_of(found, kid_of(key_for(entry, found.sequence)))
        intake.received, intake.digest, intake.follows = found.sequence, digest, found.sequence
        self._put(entry, intake, accepted, partial(self._note_stored, entry, intake, accepted, former, found))
        return ACCEPTED

    async def settle(self) -> None:
        """Returns when all that was taken has been committed, or could not be."""
        while self._under_way:
            self._settled.clear()
            await self._settled.wait()

    def _intake(self, entry: Entry) -> Intake:
        intake = self._intakes.get(entry.board)
        if intake is None or intake.credential != entry.credential_digest:
            # A new credential is a new chain (protocol/README.md, 6): the board begins at 1 again.
            intake = self._intakes[entry.board] = Intake(entry.credential_digest)
            self._return_to_disk(entry, intake)
        return intake

    def _return_to_disk(self, entry: Entry, intake: Intake) -> None:
        chain = self._buffer.chains.get(entry.board)
        if chain is not None and chain.credential == intake.credential:
            intake.received, intake.digest, intake.follows = chain.sequence, chain.digest, chain.sequence
        else:
            intake.received, intake.digest, intake.follows = 0, None, None

    def _accepted(self, entry: Entry, intake: Intake, found: report.Report, digest: bytes, body: bytes) -> Accepted:
        return Accepted(
            entry.board,
            found.sequence,
            digest,
            entry.credential_digest,
            intake.follows,
            self._clock.utc_ms(),
            found.clock[1],
            body,
            unstated(found, intake.received),
        )

    def _old(self, entry: Entry, intake: Intake, found: report.Report, digest: bytes, body: bytes) -> str:
        # Not what was asked for. The last one is compared here, an older one where it is still in the buffer.
        if found.sequence == intake.received and intake.digest == digest:
            self._health.count(entry.board, "reports repeated")
            return REPEATED
        accepted = self._accepted(entry, intake, found, digest, body)
        self._put(entry, intake, accepted, partial(self._judge, entry, intake, accepted))
        return REPEATED

    def _put(self, entry: Entry, intake: Intake, accepted: Accepted, then: Callable[[str], None]) -> None:
        """Towards the disk. then: told in the event loop what became of it there, if it could be stored or compared.

        A report has no task of its own: a commit tells of its whole group in one turn of the loop.
        """
        self._begin(intake)

        def told(outcome: str | StoreError) -> None:
            self._end(intake)
            if isinstance(outcome, StoreError):
                self._not_stored(entry, intake, outcome)
            else:
                then(outcome)

        try:
            self._buffer.put_then(accepted, told)
        except StoreError as why:
            told(why)

    def _start(self, entry: Entry, intake: Intake, work: Coroutine[None, None, None]) -> None:
        """What is rare enough for a task."""
        self._begin(intake)
        task = asyncio.get_running_loop().create_task(self._finish(entry, intake, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, entry: Entry, intake: Intake, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StoreError as why:
            self._not_stored(entry, intake, why)
        finally:
            self._end(intake)

    def _begin(self, intake: Intake) -> None:
        intake.uncommitted += 1
        self._under_way += 1

    def _end(self, intake: Intake) -> None:
        intake.uncommitted -= 1
        self._under_way -= 1
        self._settled.set()

    def _not_stored(self, entry: Entry, intake: Intake, why: StoreError) -> None:
        self._health.count(entry.board, "reports not stored")
        if not isinstance(why, NotInTurnError):  # that is only the consequence
            self.failing = True
            self._health.alarm(
                "buffer",
                "not stored",
                f"{why}: free some space; boards keep what is not acknowledged and are asked again",
            )
        self._return_to_disk(entry, intake)

    def _note_stored(
        self, entry: Entry, intake: Intake, accepted: Accepted, former: int, found: report.Report, outcome: str
    ) -> None:
        if outcome != STORED:
            self._judge(entry, intake, accepted, outcome)
            return
        self.failing = False
        self._of_starts[entry.board] = found.boot, self.committed_of(entry.board, found.boot) + 1
        self._note_missing(entry.board, former, accepted.follows is None, found)
        self._note_overtaken(entry.board, found)
        self._health.count(entry.board, "reports stored")
        self._health.note(entry.board, "sequence", accepted.sequence)
        self._health.clear("buffer", "not stored", "stores again")
        self._health.clear(entry.board, "next keys")

    def _judge(self, entry: Entry, intake: Intake, accepted: Accepted, outcome: str) -> None:
        chain = self._buffer.chains.get(entry.board)
        if outcome == PAST and chain is not None and chain.sequence == accepted.sequence and chain.digest is not None:
            outcome = REPEATED if chain.digest == accepted.digest else OTHER
        if outcome != OTHER:
            self._health.count(entry.board, "reports repeated")
            return
        self._health.count(entry.board, "refused: same number, another report")
        self._health.alarm(
            entry.board,
            "clone",
            f"report {accepted.sequence} came twice with different contents: look for a second board with its key",
        )
        self._start(
            entry,
            intake,
            self._set_aside(entry, accepted.sequence, "same number, another report", accepted.body, None, None),
        )

    def _refuse(self, entry: Entry, intake: Intake, why: RefusedReport, body: bytes) -> None:
        board = entry.board
        intake.refusals += 1
        self._health.count(board, f"refused: {why.reason}")
        if why.signed and why.reason == "chain broken":
            self._health.alarm(
                board,
                "clone",
                f"report {why.sequence} does not follow the one before: {why}; look for a second board with its key",
            )
        if why.reason == ANOTHER:
            self._health.alarm(board, ANOTHER, f"speaks for another: {why}; find out what has happened to this board")
        if intake.refusals >= ASK_TIMES and self._set_aside_enough(intake):
            self._health.count(board, "refused: too many set aside this hour")
            return  # it is asked for again until there is room
        if intake.refusals < ASK_TIMES:
            if intake.refusals == 1:
                sentence = f"{board}: report refused, asked for again: {why.reason}: {why}"
                self._health.say(board, "refused", sentence, logging.WARNING)
            return
        intake.refusals = 0
        passed_over = self._step(intake, why)
        follows = intake.follows
        self._health.say(
            board,
            "passed over",
            f"{board}: reports {intake.received + 1} to {passed_over} passed over, the refused one is set aside: "
            f"{why.reason}: {why}",
            logging.WARNING,
        )
        self._health.count(board, "reports missing", passed_over - intake.received)
        intake.received, intake.digest, intake.follows = passed_over, None, passed_over
        self._start(entry, intake, self._set_aside(entry, why.sequence, why.reason, body, follows, passed_over))

    def _set_aside_enough(self, intake: Intake) -> bool:
        full = len(intake.set_aside_s) == MAX_SET_ASIDE_AN_HOUR
        return full and self._clock.monotonic_s() - intake.set_aside_s[0] < HOUR_S

    def _step(self, intake: Intake, why: RefusedReport) -> int:
        if why.sequence is None or why.sequence <= intake.received:
            return intake.received + 1
        return why.sequence if why.signed else min(why.sequence, intake.received + MAX_STEP)

    async def _set_aside(
        self, entry: Entry, sequence: int | None, reason: str, body: bytes, follows: int | None, passed_over: int | None
    ) -> None:
        intake = self._intake(entry)
        if passed_over is None and intake.last_set_aside == body:
            return  # the same one again: it is there already
        if passed_over is None and self._set_aside_enough(intake):
            self._health.count(entry.board, "refused: too many set aside this hour")
            return
        intake.set_aside_s.append(self._clock.monotonic_s())
        intake.last_set_aside = body
        self._health.count(entry.board, "reports set aside")
        await self._buffer.set_aside(
            Refused(
                entry.board, sequence, reason, entry.credential_digest, follows, self._clock.utc_ms(), passed_over, body
            )
        )

    def _note_overtaken(self, board: str, found: report.Report) -> None:
        # A board leaves out numbers that we have and it has not made. So a copy's never meet its own, which would tell.
        for _, last, reason in found.gaps:
            if reason == report.OVERTAKEN:
                self._health.alarm(
                    board,
                    "clone",
                    f"it has left out numbers up to {last}, because reports came with its key that it does not "
                    "know: its flash has lost them, or look for a second board with its key",
                )

    def _note_missing(self, board: str, former: int, begins: bool, found: report.Report) -> None:
        missing = found.sequence - former - 1
        if missing == 0:
            return
        first, last = former + 1, found.sequence - 1
        said = stated(found, first, last)
        if begins and said < missing:
            # Not lost here: the board was with another gateway before, or this one's database is new.
            self._health.count(board, "reports before the first here", missing - said)
            log.info("%s: its first report here is %d", board, found.sequence)
            return
        self._health.count(board, "reports missing", missing)
        self._health.count(board, "reports missing, stated by the board", min(said, missing))
        reasons = sorted({report_reading.REASONS.get(gap[2], f"reason {gap[2]}") for gap in found.gaps})
        why = f"says: {', '.join(reasons)}" if said >= missing else "does not say why"
        self._health.say(
            board, "missing", f"{board}: reports {first} to {last} are missing, the board {why}", logging.WARNING
        )
