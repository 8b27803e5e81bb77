"""A campaign as a machine: what is heard goes in, transitions and orders come out. No file, no network, no clock.

Success is only what a board has signed: a report that says which release runs, and reports afterwards that are no worse
than its own before. What the gateway tells of a transfer (`Told`) is a hint: it may move a board on or count it as
failed, and never confirms one. Times are Unix seconds; `tick` is to come every few seconds while a campaign lasts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from laterne_protocol import order, receipt
from laterne_provisioning.campaign import windows
from laterne_provisioning.campaign.health import SHORT_DIGEST, Heard, Past, worse
from laterne_provisioning.campaign.plan import CANARY, Plan
from laterne_provisioning.campaign.rows import Change, Course, Row, Told, Wanted
from laterne_provisioning.campaign.states import (
    ABORTED,
    ARMED,
    AT_STAKE,
    BOARD_NEXT,
    CAMPAIGN_NEXT,
    COMPLETED,
    CONFIRMED,
    ENDED,
    FAILED,
    HALTED,
    HEALTH,
    PAUSED,
    QUEUED,
    ROLLED_BACK,
    RUNNING,
    SENDING,
    SKIPPED,
    STAGED,
    TIMEOUT,
    TRANSFER,
    TRIAL,
    UNDER_WAY,
    UNREACHABLE,
    VERIFY,
    WAITING_WINDOW,
)

TRIES = 5  # orders of one kind that a board may refuse as old or as for another key before a person must look
TRIAL_MARGIN_MS = 60_000  # a start that lasts for so long after its trial's time was confirmed: else it had reset
FORGETFUL = ("idle", "rescue")  # phases in which a board that was ordered has forgotten it: it started anew
IN_TRIAL, HAS_FAILED = "trial", "failed"  # phases of protocol/README.md, 3.1
ABANDONED = 5  # the result of a trial that an order has ended: of a former campaign, perhaps


class Engine:
    """The machine. course, rows: as they were stored, or nothing for a new campaign."""

    def __init__(self, plan: Plan, course: Course | None = None, rows: Mapping[str, Row] | None = None) -> None:
        self.plan = plan
        self.course = course or Course(since=plan.made)
        self.targets = {one.board: one for one in plan.targets}
        self.rows = {board: (rows or {}).get(board) or Row(since=plan.made) for board in self.targets}
        self.told: dict[str, Told] = {}
        self._waves = plan.waves
        self._changes: list[Change] = []
        self._touched: set[str] = set()
        self._at: dict[str, set[str]] = {}
        for board, row in self.rows.items():
            self._at.setdefault(row.state, set()).add(board)
        self._size = Counter(one.gateway for one in plan.targets)
        places = (
            (board, (number, place)) for number, wave in enumerate(self._waves) for place, board in enumerate(wave)
        )
        self._place = dict(places)

    # What a person decides -----------------------------------------------------------------------------------------

    def approve(self, now: int) -> None:
        self._course("approved", now, "")

    def start(self, now: int) -> None:
        self._course("started", now, "")

    def pause(self, now: int) -> None:
        self._course("paused", now, "by a person")

    def resume(self, now: int) -> None:
        """Go on. After a halt: what has failed so far counts no more, and stays failed."""
        if self.course.state == HALTED:
            self.course.pardoned = self._hurt()
            self.course.waived = self.course.wave
        self._course("resumed", now, "")

    def abort(self, now: int) -> None:
        """Nobody is armed any more; who has not been is left as it is, who is in trial is ordered back."""
        self._course("aborted", now, "by a person")
        for board in [*self._in(QUEUED, SENDING, STAGED, WAITING_WINDOW)]:
            self._board(board, "aborted", now, "the campaign was aborted", "aborted")

    def watched_again(self, now: int) -> None:
        """Nobody has watched since the last event: what was under way gets its time anew, and its order again."""
        for board in [*self._in(*UNDER_WAY, CONFIRMED)]:
            # Its order may be at the broker, or the kill came just before.
            row = self.rows[board]
            row.since, row.again, row.tries = now, True, 0
            self._touched.add(board)

    # What is heard --------------------------------------------------------------------------------------------------

    def heard(self, board: str, heard: Heard, now: int) -> None:
        """A new report of this board, its signature verified."""
        row = self.rows.get(board)
        if row is None:
            return
        row.heard_at = now
        ours = self.plan.release.digest[:SHORT_DIGEST]
        if heard.boot > row.boot:
            row.boot = heard.boot
        if (
            self._was_armed(row)
            and heard.boot > row.armed_boot
            and heard.release is not None
            and heard.release[0] == ours
        ):
            self._found(board, row, now)
        if row.state in (*AT_STAKE, CONFIRMED) and heard.boot > row.armed_boot and heard.sequence > row.line:
            self._heard_after(board, row, heard, ours, now)
        elif row.state in (QUEUED, SENDING, STAGED, WAITING_WINDOW):
            row.before.add(heard)

    def _was_armed(self, row: Row) -> bool:
        return row.arms > 0 and row.state in (SENDING, STAGED, WAITING_WINDOW)

    def _found(self, board: str, row: Row, now: int) -> None:
        row.stake = row.found = True
        self._board(board, "tries it", now, "")

    def _heard_after(self, board: str, row: Row, heard: Heard, ours: str, now: int) -> None:
        runs_ours = heard.release is not None and heard.release[0] == ours
        if runs_ours and row.trial_boot < 0:
            row.trial_boot = heard.boot
            self._touched.add(board)  # the next start may be months away: this is said once
        if row.state == ARMED and runs_ours:
            self._board(board, "tries it", now, "")
        if heard.release is not None and not runs_ours:
            if row.state == TRIAL and row.asked is not None and row.asked[0] == order.ABANDON:
                self._call_back(board, now)
            elif row.line or 0 <= row.trial_boot < heard.boot:
                self._fail(board, "rolled back", ROLLED_BACK, now, "it is back on another release")
            elif row.state == ARMED:
                self._again(board, row, "not begun", now, "it started anew before the order came")
            return
        if row.trial_boot < 0 or heard.boot < row.trial_boot or row.state not in (TRIAL, CONFIRMED):
            return
        row.after.add(heard)
        proven = runs_ours and heard.release is not None and not heard.release[1]
        # A trial that nobody has confirmed ends by a reset: one start that lasts longer says that it was.
        proven = proven or heard.closed_ms > 1000 * self.plan.release.trial_s + TRIAL_MARGIN_MS
        if proven and not row.proven:
            row.proven = True
            self._touched.add(board)
        if not row.soaked:
            self._judge(board, row, now)

    def _judge(self, board: str, row: Row, now: int) -> None:
        gates = self.plan.gates
        problem = worse(row.before, row.after, row.boot - row.trial_boot, gates)
        if problem is not None:
            self._fail(board, "worse", HEALTH, now, problem)
        elif row.state == TRIAL and row.proven and row.after.reports >= gates.reports:
            self._board(board, "proven", now, "")
        elif row.state == CONFIRMED and now - row.since >= self.plan.pace.soak:
            row.soaked = True
            self._touched.add(board)

    def hinted(self, board: str, told: Told, now: int) -> None:
        """What the gateway tells of this board. Never success."""
        row = self.rows.get(board)
        if row is None:
            return
        self.told[board] = told
        ours = self.plan.release.digest
        code = told.result[0] if told.result is not None and told.result[1] == ours else 0
        if code == ABANDONED and row.state == TRIAL and self.course.state in (HALTED, ABORTED):
            self._call_back(board, now)
        elif (code and row.state in (TRIAL, CONFIRMED)) or (code not in (0, ABANDONED) and row.state == ARMED):
            self._fail(board, "rolled back", ROLLED_BACK, now, f"its gateway says: result {code}")
        elif code and row.state == SENDING and told.phase == HAS_FAILED:
            self._fail(board, "refused", TRANSFER, now, f"its gateway says: result {code}")
        elif self._was_armed(row) and told.phase == IN_TRIAL and told.running == ours:
            self._found(board, row, now)
        elif row.state == SENDING and told.staged == ours:
            self._board(board, "staged", now, "")
        elif row.state in (QUEUED, SENDING) and told.running == ours and told.phase != IN_TRIAL:
            self._board(board, "left out", now, "it runs this release already", "runs it")
        elif row.state in (STAGED, WAITING_WINDOW) and told.staged != ours and told.phase != IN_TRIAL:
            self._again(board, row, "not staged", now, "what it had fetched is gone")
        elif row.state == ARMED and told.phase == IN_TRIAL and told.running == ours:
            self._board(board, "tries it", now, "")

    def answered(self, board: str, action: int, nonce: bytes, said: receipt.Receipt, now: int) -> None:
        """The board's receipt for an order of ours, its signature verified."""
        row = self.rows.get(board)
        if row is None or row.asked is None or row.asked[:2] != (action, nonce.hex()):
            return
        if said.outcome == receipt.DONE:
            row.taken = True
            self._touched.add(board)
            if action == order.ARM and row.state in AT_STAKE:
                row.line = said.sequence
                self._touched.add(board)
                if row.state == ARMED:
                    self._board(board, "tries it", now, "")
            elif action == order.ABANDON and row.state == TRIAL:
                self._call_back(board, now)
            elif action == order.ABANDON and row.state == ARMED:
                self._again(board, row, "not staged", now, "its order was taken back")
            return
        why = receipt.REASONS.get(said.reason or 0, f"reason {said.reason}")
        if action == order.ABANDON or row.state not in (SENDING, ARMED):
            return
        if said.reason == receipt.OLD_NONCE:
            if row.state == ARMED:
                self._again(board, row, "not begun", now, why)
            # else its next hint brings the next nonce, and the order goes out again
        elif said.reason in (receipt.OLD, receipt.OTHER_KEY, receipt.TRIAL_OPEN) and row.tries < TRIES:
            row.asked = None
        elif said.reason == receipt.NOT_STAGED and row.state == ARMED:
            self._again(board, row, "not staged", now, why)
        else:
            kind = TRANSFER if said.reason == receipt.NO_SPACE else VERIFY
            self._fail(board, "refused", kind, now, f"it refuses: {why}")

    # What time brings -------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Whatever is due at this time."""
        self._time_out(now)
        if self.course.state == RUNNING:
            self._begin(now)
            self._arm(now)
            self._end_wave(now)

    def _time_out(self, now: int) -> None:
        pace = self.plan.pace
        limits = {TRIAL: self.plan.trial_for}  # while it is paused or halted only boards go on, by themselves
        if self.course.state == RUNNING:
            limits |= {SENDING: pace.sending_for, STAGED: pace.staged_for, WAITING_WINDOW: pace.window_for}
            if now - self.plan.made > pace.queued_for:
                limits[QUEUED] = pace.queued_for
        for state, limit in limits.items():
            for board in [*self._in(state)]:
                row = self.rows[board]
                if now - row.since > limit:
                    known = row.heard_at > row.since
                    kind = UNREACHABLE if not known else TRANSFER if state == SENDING else TIMEOUT
                    self._fail(board, "too long", kind, now, f"{state} for more than {limit} s")
        for board in [*self._in(ARMED)]:
            row = self.rows[board]
            if now - row.since > pace.armed_for:
                if row.arms < pace.arm_tries and self.course.state == RUNNING:
                    self._again(board, row, "not begun", now, "its order was not answered in time")
                else:
                    kind = TIMEOUT if row.heard_at > row.since else UNREACHABLE
                    self._fail(board, "too long", kind, now, f"armed {row.arms} times in vain")
        if self.course.state == RUNNING:
            for board in [*self._in(CONFIRMED)]:
                row = self.rows[board]
                if not row.soaked and now - max(row.since, row.heard_at) > pace.silent_for:
                    self._fail(board, "too long", UNREACHABLE, now, f"silent for more than {pace.silent_for} s")

    def _begin(self, now: int) -> None:
        busy = Counter(self.targets[board].gateway for board in self._in(SENDING))
        for board in self._of_wave(QUEUED):
            target = self.targets[board]
            if busy[target.gateway] < self.plan.pace.sending:
                busy[target.gateway] += 1
                self._board(board, "begins", now, "")

    def _arm(self, now: int) -> None:
        until = windows.closes(self.plan.windows, now, self.plan.pace.armed_for)
        if until is None:
            for board in self._of_wave(STAGED):
                self._board(board, "window shut", now, "")
            return
        for board in self._of_wave(WAITING_WINDOW):
            self._board(board, "window open", now, "")
        at_stake = [self.targets[board] for board in self._in(*AT_STAKE)]
        posts = {one.post for one in at_stake if one.post is not None}
        busy = Counter(one.gateway for one in at_stake)
        for board in self._of_wave(STAGED):
            target, row = self.targets[board], self.rows[board]
            most = max(1, int(self._size[target.gateway] * self.plan.pace.trial_percent / 100))
            told = self.told.get(board)
            if told is not None and told.phase == IN_TRIAL:
                continue  # of another release, by another order
            # Who has no past to be compared with waits for it.
            if (
                row.before.reports >= self.plan.gates.reports
                and target.post not in posts
                and busy[target.gateway] < most
            ):
                if target.post is not None:
                    posts.add(target.post)
                busy[target.gateway] += 1
                row.stake, row.found, row.armed_boot, row.line, row.trial_boot = True, False, row.boot, 0, -1
                row.after, row.proven, row.arms = Past(), False, row.arms + 1
                self._board(board, "armed", now, "")

    def _end_wave(self, now: int) -> None:
        course, members = self.course, [self.rows[board] for board in self._waves[self.course.wave]]
        if any(row.state not in ENDED for row in members):
            return
        judged = [row for row in members if row.state != SKIPPED]
        good = sum(row.state == CONFIRMED for row in judged)
        share = 100 * good / len(judged) if judged else 100.0
        if share < self.plan.gates.success_percent and course.waived != course.wave:
            wanted = self.plan.gates.success_percent
            said = f"{good} of {len(judged)} boards of wave {course.wave} are confirmed, {wanted:g} % are wanted"
            self._course("gate", now, said)
            return
        if any(row.state == CONFIRMED and not row.soaked for row in members):
            return
        if course.wave + 1 == len(self._waves):
            self._course("last wave", now, "")
        else:
            course.wave += 1
            self._changes.append(Change("", RUNNING, "next wave", RUNNING, f"wave {course.wave}"))

    # What is to be done and to be stored ------------------------------------------------------------------------------

    def wanted(self, now: int) -> Iterator[Wanted]:
        """The orders that are to go out now; each is given again until `ordered` says that it is out."""
        for board, action in self._actions():
            row, told, digest = self.rows[board], self.told.get(board), self.plan.release.digest
            if action == order.ABANDON:
                if row.asked is None or row.asked[0] != order.ABANDON:
                    yield Wanted(board, action, digest, b"", 0)
                continue
            if told is None or not told.nonce or row.tries >= TRIES:
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
        self._touched.add(wanted.board)

    def _actions(self) -> Iterator[tuple[str, int]]:
        state = self.course.state
        if state in (RUNNING, PAUSED):
            yield from ((board, order.STAGE) for board in self._in(SENDING))
            yield from ((board, order.ARM) for board in self._in(ARMED))
        elif state in (HALTED, ABORTED):
            yield from ((board, order.ABANDON) for board in self._in(*AT_STAKE))
            if state == ABORTED:
                aborted = (board for board in self._in(SKIPPED) if self.rows[board].why == "aborted")
                yield from ((board, order.ABANDON) for board in aborted if self.rows[board].asked)

    def take(self) -> tuple[list[Change], dict[str, Row]]:
        """The transitions since the last call, and the rows that are to be stored."""
        changes, rows = self._changes, {board: self.rows[board] for board in sorted(self._touched)}
        self._changes, self._touched = [], set()
        return changes, rows

    def is_over(self) -> bool:
        """Nothing goes on by itself any more."""
        still = any(True for _ in self._in(*AT_STAKE))
        return self.course.state == COMPLETED or (self.course.state in (HALTED, ABORTED) and not still)

    def counts(self) -> Counter[str]:
        """How many boards are in each state."""
        return Counter({state: len(boards) for state, boards in self._at.items() if boards})

    def tried(self) -> tuple[int, int]:
        """(boards that failed after they were armed, boards that were armed and have ended)"""
        ended = [row for row in self.rows.values() if row.stake and row.state in (CONFIRMED, FAILED)]
        return sum(row.state == FAILED for row in ended), len(ended)

    # Transitions ------------------------------------------------------------------------------------------------------

    def _board(self, board: str, event: str, now: int, said: str, why: str = "") -> None:
        row = self.rows[board]
        former, row.state = row.state, BOARD_NEXT[row.state, event]
        row.since, row.said, row.why = now, said, why
        if row.state in (SENDING, ARMED):
            row.asked, row.tries, row.again, row.taken = None, 0, False, False
        self._at[former].discard(board)
        self._at.setdefault(row.state, set()).add(board)
        self._touched.add(board)
        self._changes.append(Change(board, former, event, row.state, why or said))

    def _again(self, board: str, row: Row, event: str, now: int, said: str) -> None:
        if row.arms >= self.plan.pace.arm_tries:
            self._fail(board, "too long", TIMEOUT, now, f"armed {row.arms} times in vain; {said}")
        else:
            row.stake = False  # it never tried the release
            self._board(board, event, now, said)

    def _call_back(self, board: str, now: int) -> None:
        self.rows[board].stake = False
        self._board(board, "called back", now, "it was ordered back in the middle of its trial", "called back")

    def _fail(self, board: str, event: str, kind: str, now: int, said: str) -> None:
        self._board(board, event, now, said, kind)
        self._gate(now)

    def _gate(self, now: int) -> None:
        if self.course.state not in (RUNNING, PAUSED):
            return
        gates, hurt = self.plan.gates, self._hurt() - self.course.pardoned
        armed = sum(row.stake for row in self.rows.values())
        allowed = 0 if self.course.wave == CANARY else max(gates.failures, int(armed * gates.failures_percent / 100))
        if hurt > allowed:
            said = f"{hurt} of {armed} boards that were armed have failed, {allowed} may"
            self._course("gate", now, said)

    def _hurt(self) -> int:
        # A release that a board refuses is wrong, too, though no board was hurt.
        return sum(row.state == FAILED and (row.stake or row.why == VERIFY) for row in self.rows.values())

    def _course(self, event: str, now: int, reason: str) -> None:
        course = self.course
        former, course.state = course.state, CAMPAIGN_NEXT[course.state, event]
        course.since, course.reason = now, reason
        self._changes.append(Change("", former, event, course.state, reason))

    def _in(self, *states: str) -> Iterator[str]:
        for state in states:
            yield from sorted(self._at.get(state, ()))

    def _of_wave(self, state: str) -> list[str]:
        # Of the wave that is under way and those before, in their order.
        here = self._at.get(state, set())
        if state == QUEUED:
            return [board for board in self._waves[self.course.wave] if board in here]
        return sorted(
            (board for board in here if self._place[board][0] <= self.course.wave), key=self._place.__getitem__
        )
