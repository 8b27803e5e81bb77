"""What a campaign has come to, and how it moves: its course, the row of each board, each transition by the tables.

Everything that changes a state goes through here, so that every transition is given out once, by take(), for the audit
log and the disk; and a failure is weighed at the gate in the same moment. Why something moves is said elsewhere: by
hearing.py what is heard, by due.py what time brings, by engine.py what a person decides.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from laterne_provisioning.campaign.plan import CANARY, Plan
from laterne_provisioning.campaign.rows import Change, Course, Row, Told
from laterne_provisioning.campaign.states import (
    ARMED,
    BOARD_NEXT,
    CAMPAIGN_NEXT,
    CONFIRMED,
    FAILED,
    PAUSED,
    QUEUED,
    RUNNING,
    SENDING,
    TIMEOUT,
    UNDER_WAY,
    VERIFY,
)


class Moves:
    """course, rows: as they were stored, or nothing for a new campaign. told: what gateways say, newest, not stored."""

    def __init__(self, plan: Plan, course: Course | None, rows: Mapping[str, Row] | None) -> None:
        self.plan = plan
        self.course = course or Course(since=plan.made)
        self.targets = {one.board: one for one in plan.targets}
        self.rows = {board: (rows or {}).get(board) or Row(since=plan.made) for board in self.targets}
        self.told: dict[str, Told] = {}
        self.waves = plan.waves
        self.size = Counter(one.gateway for one in plan.targets)  # of each gateway, in this campaign
        self._held: dict[str, int] = {}  # since when
        self._changes: list[Change] = []
        self._touched: set[str] = set()
        self._at: dict[str, set[str]] = {}
        for board, row in self.rows.items():
            self._at.setdefault(row.state, set()).add(board)
        places = (
            (board, (number, place)) for number, wave in enumerate(self.waves) for place, board in enumerate(wave)
        )
        self._place = dict(places)

    # Who is held -----------------------------------------------------------------------------------------------------

    def hold(self, boards: AbstractSet[str], now: int) -> None:
        """These boards, and no others, are held for reasons of our own (desk.py). Time stands still for them."""
        for board in self._held.keys() - boards:
            # What it was told meanwhile may have taken the place of our order at the broker.
            del self._held[board]
            row = self.rows[board]
            if row.state in (*UNDER_WAY, CONFIRMED):
                row.since, row.again, row.tries = now, True, 0
                self.touch(board)
        for board in boards - self._held.keys():
            self._held[board] = now

    def is_held(self, board: str, now: int) -> bool:
        """Not for ever: a roster that nobody exports ends in a timeout, too."""
        since = self._held.get(board)
        return since is not None and now - since <= self.plan.pace.held_for

    # Which boards are where ------------------------------------------------------------------------------------------

    def at(self, *states: str) -> list[str]:
        """The boards in these states."""
        return [board for state in states for board in sorted(self._at.get(state, ()))]

    def of_wave(self, state: str) -> list[str]:
        """Those of the wave that is under way and of those before, in their order."""
        here = self._at.get(state, set())
        if state == QUEUED:
            return [board for board in self.waves[self.course.wave] if board in here]
        return sorted(
            (board for board in here if self._place[board][0] <= self.course.wave), key=self._place.__getitem__
        )

    def counts(self) -> Counter[str]:
        """How many boards are in each state."""
        return Counter({state: len(boards) for state, boards in self._at.items() if boards})

    def tried(self) -> tuple[int, int]:
        """(boards that failed after they were armed, boards that were armed and have ended)"""
        ended = [row for row in self.rows.values() if row.stake and row.state in (CONFIRMED, FAILED)]
        return sum(row.state == FAILED for row in ended), len(ended)

    def hurt(self) -> int:
        """How many failures weigh at the gate."""
        # A release that a board refuses is wrong, too, though no board was hurt.
        return sum(row.state == FAILED and (row.stake or row.why == VERIFY) for row in self.rows.values())

    # Transitions ------------------------------------------------------------------------------------------------------

    def touch(self, board: str) -> None:
        """Its row is to be stored, though its state is the same."""
        self._touched.add(board)

    def move(self, board: str, event: str, now: int, said: str, why: str = "") -> None:
        """This has happened to a board. said: a sentence for people. why: of FAILED and SKIPPED."""
        row = self.rows[board]
        former, row.state = row.state, BOARD_NEXT[row.state, event]
        row.since, row.said, row.why = now, said, why
        if row.state in (SENDING, ARMED):
            row.asked, row.tries, row.again, row.taken = None, 0, False, False
        self._at[former].discard(board)
        self._at.setdefault(row.state, set()).add(board)
        self._touched.add(board)
        self._changes.append(Change(board, former, event, row.state, why or said))

    def again(self, board: str, row: Row, event: str, now: int, said: str) -> None:
        """It has not tried the release: back, unless it was armed too often."""
        if row.arms >= self.plan.pace.arm_tries:
            self.fail(board, "too long", TIMEOUT, now, f"armed {row.arms} times in vain; {said}")
        else:
            row.stake = False  # it never tried the release
            self.move(board, event, now, said)

    def call_back(self, board: str, now: int) -> None:
        """Our order has ended its trial."""
        self.rows[board].stake = False
        self.move(board, "called back", now, "it was ordered back in the middle of its trial", "called back")

    def fail(self, board: str, event: str, kind: str, now: int, said: str) -> None:
        """It has failed, which may be one too many."""
        self.move(board, event, now, said, kind)
        self._gate(now)

    def _gate(self, now: int) -> None:
        if self.course.state not in (RUNNING, PAUSED):
            return
        gates, hurt = self.plan.gates, self.hurt() - self.course.pardoned
        armed = sum(row.stake for row in self.rows.values())
        allowed = 0 if self.course.wave == CANARY else max(gates.failures, int(armed * gates.failures_percent / 100))
        if hurt > allowed:
            may = f"{allowed} may" if self.course.wave != CANARY else "none may among the canaries"
            said = f"{hurt} of {armed} boards that were to try it have failed, {may}"
            self.turn("gate", now, said)

    def turn(self, event: str, now: int, reason: str) -> None:
        """This has happened to the campaign itself."""
        course = self.course
        former, course.state = course.state, CAMPAIGN_NEXT[course.state, event]
        course.since, course.reason = now, reason
        self._changes.append(Change("", former, event, course.state, reason))

    def next_wave(self) -> None:
        """The wave that is under way has come to a good end."""
        self.course.wave += 1
        self._changes.append(Change("", RUNNING, "next wave", RUNNING, f"wave {self.course.wave}"))

    def take(self) -> tuple[list[Change], dict[str, Row]]:
        """The transitions since the last call, and the rows that are to be stored."""
        changes, rows = self._changes, {board: self.rows[board] for board in sorted(self._touched)}
        self._changes, self._touched = [], set()
        return changes, rows
