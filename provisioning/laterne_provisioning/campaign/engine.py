"""A campaign as a machine: what is heard goes in, transitions and orders come out. No file, no network, no clock.

What it has come to is in moves.py; what is heard works in hearing.py, time in due.py; here is what a person decides,
and which orders are to go out. Times are Unix seconds; `tick` is to come every few seconds while a campaign lasts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from laterne_protocol import order, receipt
from laterne_provisioning.campaign import due, hearing, windows
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.moves import Moves
from laterne_provisioning.campaign.plan import Plan
from laterne_provisioning.campaign.rows import Change, Course, Row, Told, Wanted
from laterne_provisioning.campaign.states import (
    ABORTED,
    ARMED,
    AT_STAKE,
    COMPLETED,
    CONFIRMED,
    HALTED,
    PAUSED,
    QUEUED,
    RUNNING,
    SENDING,
    SKIPPED,
    STAGED,
    UNDER_WAY,
    WAITING_WINDOW,
)

FORGETFUL = ("idle", "rescue")  # phases in which a board that was ordered has forgotten it: it started anew


class Engine:
    """The machine. course, rows: as they were stored, or nothing for a new campaign."""

    def __init__(self, plan: Plan, course: Course | None = None, rows: Mapping[str, Row] | None = None) -> None:
        self.plan = plan
        self._moves = Moves(plan, course, rows)
        self.course, self.rows = self._moves.course, self._moves.rows
        self.targets, self.told = self._moves.targets, self._moves.told

    # What a person decides -----------------------------------------------------------------------------------------

    def approve(self, now: int) -> None:
        self._moves.turn("approved", now, "")

    def start(self, now: int) -> None:
        self._moves.turn("started", now, "")

    def pause(self, now: int) -> None:
        self._moves.turn("paused", now, "by a person")

    def resume(self, now: int) -> None:
        """Go on. After a halt: what has failed so far counts no more, and stays failed."""
        if self.course.state == HALTED:
            self.course.pardoned = self._moves.hurt()
            self.course.waived = self.course.wave
        self._moves.turn("resumed", now, "")

    def abort(self, now: int) -> None:
        """Nobody is armed any more; who has not been is left as it is, who is in trial is ordered back."""
        self._moves.turn("aborted", now, "by a person")
        for board in self._moves.at(QUEUED, SENDING, STAGED, WAITING_WINDOW):
            self._moves.move(board, "aborted", now, "the campaign was aborted", "aborted")

    def watched_again(self, now: int) -> None:
        """Nobody has watched since the last event: what was under way gets its time anew, and its order again."""
        for board in self._moves.at(*UNDER_WAY, CONFIRMED):
            # Its order may be at the broker, or the kill came just before.
            row = self.rows[board]
            row.since, row.again, row.tries = now, True, 0
            self._moves.touch(board)

    # What comes -----------------------------------------------------------------------------------------------------

    def heard(self, board: str, heard: Heard, now: int) -> None:
        """A new report of this board, its signature verified."""
        hearing.heard(self._moves, board, heard, now)

    def remembered(self, board: str, heard: Heard, now: int) -> None:
        """A report of the days before the campaign, its signature verified."""
        hearing.remembered(self._moves, board, heard, now)

    def hinted(self, board: str, told: Told, now: int) -> None:
        """What the gateway tells of this board. Never success."""
        hearing.hinted(self._moves, board, told, now)

    def answered(self, board: str, action: int, nonce: bytes, said: receipt.Receipt, now: int) -> None:
        """The board's receipt for an order of ours, its signature verified."""
        hearing.answered(self._moves, board, action, nonce, said, now)

    def hold(self, boards: AbstractSet[str], now: int) -> None:
        """These boards get new keys, or their gateways do not know them yet: they are left alone, and not timed."""
        self._moves.hold(boards & self.targets.keys(), now)

    def tick(self, now: int) -> None:
        """Whatever is due at this time."""
        due.tick(self._moves, now)

    # What is to be done and to be stored ------------------------------------------------------------------------------

    def wanted(self, now: int) -> Iterator[Wanted]:
        """The orders that are to go out now; each is given again until `ordered` says that it is out."""
        for board, action in self._actions():
            if self._moves.is_held(board, now):
                continue
            row, told, digest = self.rows[board], self.told.get(board), self.plan.release.digest
            if action == order.ABANDON:
                if row.asked is None or row.asked[0] != order.ABANDON:
                    yield Wanted(board, action, digest, b"", 0)
                continue
            if told is None or not told.nonce or row.tries >= hearing.TRIES:
                continue
            if row.asked is not None and row.asked[:2] == (action, told.nonce.hex()) and not row.again:
                continue
            if row.taken and told.phase not in FORGETFUL:
                continue  # it is at it; each order that it takes has another nonce
            until = windows.closes(self.plan.windows, now, self.plan.pace.armed_for)
            if action == order.ARM and until is None:
                continue
            yield Wanted(board, action, digest, told.nonce, (until or 0) if action == order.ARM else 0)

    def ordered(self, wanted: Wanted, digest: str) -> None:
        """This order goes out now. digest: of the order itself, hex, which its receipt will name."""
        row = self.rows[wanted.board]
        row.tries, row.again, row.taken = row.tries + 1, False, False
        row.asked = (wanted.action, wanted.nonce.hex(), digest)
        self._moves.touch(wanted.board)

    def _actions(self) -> Iterator[tuple[str, int]]:
        state, at = self.course.state, self._moves.at
        if state in (RUNNING, PAUSED):
            yield from ((board, order.STAGE) for board in at(SENDING))
            yield from ((board, order.ARM) for board in at(ARMED))
        elif state in (HALTED, ABORTED):
            yield from ((board, order.ABANDON) for board in at(*AT_STAKE))
            if state == ABORTED:
                aborted = (board for board in at(SKIPPED) if self.rows[board].why == "aborted")
                yield from ((board, order.ABANDON) for board in aborted if self.rows[board].asked)

    def take(self) -> tuple[list[Change], dict[str, Row]]:
        """The transitions since the last call, and the rows that are to be stored."""
        return self._moves.take()

    def is_over(self) -> bool:
        """Nothing goes on by itself any more."""
        still = self._moves.at(*AT_STAKE)
        return self.course.state == COMPLETED or (self.course.state in (HALTED, ABORTED) and not still)

    def shares(self) -> dict[str, float]:
        """How much of the release the boards that fetch it have, 0..1."""
        told = {board: self.told[board].share for board in self._moves.at(SENDING) if board in self.told}
        return {board: share for board, share in told.items() if share is not None}

    def counts(self) -> Counter[str]:
        """How many boards are in each state."""
        return self._moves.counts()

    def tried(self) -> tuple[int, int]:
        """(boards that failed after they were armed, boards that were armed and have ended)"""
        return self._moves.tried()
