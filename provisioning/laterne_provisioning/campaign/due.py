"""What time brings: boards that take too long, the next ones that begin and are armed, the end of a wave.

`tick` is to come every few seconds while a campaign lasts. Times are Unix seconds.
"""

from collections import Counter

from laterne_provisioning.campaign import windows
from laterne_provisioning.campaign.health import Past
from laterne_provisioning.campaign.hearing import IN_TRIAL
from laterne_provisioning.campaign.moves import Moves
from laterne_provisioning.campaign.states import (
    ARMED,
    AT_STAKE,
    CONFIRMED,
    ENDED,
    QUEUED,
    RUNNING,
    SENDING,
    SKIPPED,
    STAGED,
    TIMEOUT,
    TRANSFER,
    TRIAL,
    UNREACHABLE,
    WAITING_WINDOW,
)


def tick(moves: Moves, now: int) -> None:
    """Whatever is due at this time."""
    _time_out(moves, now)
    if moves.course.state == RUNNING:
        _begin(moves, now)
        _arm(moves, now)
        _end_wave(moves, now)


def _time_out(moves: Moves, now: int) -> None:
    pace = moves.plan.pace
    limits = {TRIAL: moves.plan.trial_for}  # while it is paused or halted only boards go on, by themselves
    if moves.course.state == RUNNING:
        limits |= {SENDING: pace.sending_for, STAGED: pace.staged_for, WAITING_WINDOW: pace.window_for}
        if now - moves.plan.made > pace.queued_for:
            limits[QUEUED] = pace.queued_for
    for state, limit in limits.items():
        for board in moves.at(state):
            row = moves.rows[board]
            if now - row.since > limit and not moves.is_held(board, now):
                known = row.heard_at > row.since
                kind = UNREACHABLE if not known else TRANSFER if state == SENDING else TIMEOUT
                moves.fail(board, "too long", kind, now, f"{state} for more than {limit} s")
    for board in moves.at(ARMED):
        row = moves.rows[board]
        if now - row.since > pace.armed_for and not moves.is_held(board, now):
            if row.arms < pace.arm_tries and moves.course.state == RUNNING:
                moves.again(board, row, "not begun", now, "its order was not answered in time")
            else:
                kind = TIMEOUT if row.heard_at > row.since else UNREACHABLE
                moves.fail(board, "too long", kind, now, f"armed {row.arms} times in vain")
    if moves.course.state == RUNNING:
        for board in moves.at(CONFIRMED):
            row = moves.rows[board]
            is_silent = now - max(row.since, row.heard_at) > pace.silent_for
            if is_silent and not row.soaked and not moves.is_held(board, now):
                moves.fail(board, "too long", UNREACHABLE, now, f"silent for more than {pace.silent_for} s")


def _begin(moves: Moves, now: int) -> None:
    busy = Counter(moves.targets[board].gateway for board in moves.at(SENDING))
    for board in moves.of_wave(QUEUED):
        target = moves.targets[board]
        if busy[target.gateway] < moves.plan.pace.sending and not moves.is_held(board, now):
            busy[target.gateway] += 1
            moves.move(board, "begins", now, "")


def _arm(moves: Moves, now: int) -> None:
    until = windows.closes(moves.plan.windows, now, moves.plan.pace.armed_for)
    if until is None:
        for board in moves.of_wave(STAGED):
            moves.move(board, "window shut", now, "")
        return
    for board in moves.of_wave(WAITING_WINDOW):
        moves.move(board, "window open", now, "")
    at_stake = [moves.targets[board] for board in moves.at(*AT_STAKE)]
    posts = {one.post for one in at_stake if one.post is not None}
    busy = Counter(one.gateway for one in at_stake)
    for board in moves.of_wave(STAGED):
        target, row = moves.targets[board], moves.rows[board]
        most = max(1, int(moves.size[target.gateway] * moves.plan.pace.trial_percent / 100))
        told = moves.told.get(board)
        if (told is not None and told.phase == IN_TRIAL) or moves.is_held(board, now):
            continue  # in trial of another release, by another order; or just getting new keys
        # Who has no past to be compared with waits for it.
        has_past = row.before.reports >= moves.plan.gates.reports and row.heard_at >= moves.plan.made
        if has_past and target.post not in posts and busy[target.gateway] < most:
            if target.post is not None:
                posts.add(target.post)
            busy[target.gateway] += 1
            row.stake, row.found, row.armed_boot, row.line, row.trial_boot = True, False, row.boot, 0, -1
            row.after, row.proven, row.arms = Past(), False, row.arms + 1
            row.link_before, row.link_at_trial = None if told is None else told.link, None
            moves.move(board, "armed", now, "")


def _end_wave(moves: Moves, now: int) -> None:
    course, members = moves.course, [moves.rows[board] for board in moves.waves[moves.course.wave]]
    if any(row.state not in ENDED for row in members):
        return
    judged = [row for row in members if row.state != SKIPPED]
    good = sum(row.state == CONFIRMED for row in judged)
    share = 100 * good / len(judged) if judged else 100.0
    if share < moves.plan.gates.success_percent and course.waived != course.wave:
        wanted = moves.plan.gates.success_percent
        said = f"{good} of {len(judged)} boards of wave {course.wave} are confirmed, {wanted:g} % are wanted"
        moves.turn("gate", now, said)
        return
    if any(row.state == CONFIRMED and not row.soaked for row in members):
        return
    if course.wave + 1 == len(moves.waves):
        moves.turn("last wave", now, "")
    else:
        moves.next_wave()
