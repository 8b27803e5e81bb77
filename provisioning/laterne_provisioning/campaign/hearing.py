"""What is heard of boards, and what it comes to: signed reports, signed receipts, and what gateways tell.

Success is only what a board has signed: a report that says which release runs, and reports afterwards that are no worse
than its own before. What the gateway tells of a transfer (`Told`) is a hint: it may move a board on or count it as
failed, and never confirms one.
"""

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.health import SHORT_DIGEST, Heard, worse, worse_link
from laterne_provisioning.campaign.moves import Moves
from laterne_provisioning.campaign.rows import Row, Told
from laterne_provisioning.campaign.states import (
    ABORTED,
    ARMED,
    AT_STAKE,
    CONFIRMED,
    HALTED,
    HEALTH,
    QUEUED,
    ROLLED_BACK,
    SENDING,
    STAGED,
    TRANSFER,
    TRIAL,
    VERIFY,
    WAITING_WINDOW,
)

TRIES = 5  # orders of one kind that a board may refuse as old or as for another key before a person must look
TRIAL_MARGIN_MS = 60_000  # a start that lasts for so long after its trial's time was confirmed: else it had reset
IN_TRIAL, HAS_FAILED = "trial", "failed"  # phases of protocol/README.md, 3.1
ABANDONED = 5  # the result of a trial that an order has ended: of a former campaign, perhaps
RESULTS = {  # protocol/README.md, 3.1
    1: "what lay in the slot was damaged",
    2: "it does not fit this board's interpreter",
    3: "three starts with it did not last",
    4: "the power was lost in too many starts with it",
    16: "a board cannot read its envelope",
    17: "too few release keys have signed it",
    18: "it is for other hardware",
    19: "it does not fit this board's interpreter or loader",
    20: "boards have had a newer one",
    21: "there is no room for it",
    22: "its index is not what was signed",
    23: "a file of it did not come as it was signed",
    24: "the flash refuses it",
    25: "the board could not install it",
}


def remembered(moves: Moves, board: str, heard: Heard, now: int) -> None:
    """A report of before the campaign, its signature verified: of the board's past, if it says when it was."""
    row = moves.rows.get(board)
    if row is not None and heard.utc_s is not None:
        row.before.add(heard, heard.utc_s, now)
        moves.touch(board)


def heard(moves: Moves, board: str, heard: Heard, now: int) -> None:
    """A new report of this board, its signature verified."""
    row = moves.rows.get(board)
    if row is None:
        return
    row.heard_at = now
    ours = moves.plan.release.digest[:SHORT_DIGEST]
    if heard.boot > row.boot:
        row.boot = heard.boot
    if _was_armed(row) and heard.boot > row.armed_boot and heard.release is not None and heard.release[0] == ours:
        _found(moves, board, row, now)
    if row.state in (*AT_STAKE, CONFIRMED) and heard.boot > row.armed_boot and heard.sequence > row.line:
        _heard_after(moves, board, row, heard, ours, now)
    elif row.state in (QUEUED, SENDING, STAGED, WAITING_WINDOW):
        row.before.add(heard, now, now)  # its own clock may be years off


def _was_armed(row: Row) -> bool:
    return row.arms > 0 and row.state in (SENDING, STAGED, WAITING_WINDOW)


def _found(moves: Moves, board: str, row: Row, now: int) -> None:
    row.stake = row.found = True
    moves.move(board, "tries it", now, "")


def _heard_after(moves: Moves, board: str, row: Row, heard: Heard, ours: str, now: int) -> None:
    runs_ours = heard.release is not None and heard.release[0] == ours
    if runs_ours and row.trial_boot < 0:
        row.trial_boot, row.watched_at = heard.boot, now
        moves.touch(board)  # the next start may be months away: this is said once
    if row.state == ARMED and runs_ours:
        moves.move(board, "tries it", now, "")
    if heard.release is not None and not runs_ours:
        if row.state == TRIAL and row.asked is not None and row.asked[0] == order.ABANDON:
            moves.call_back(board, now)
        elif row.line or 0 <= row.trial_boot < heard.boot:
            moves.fail(board, "rolled back", ROLLED_BACK, now, "it is back on another release")
        elif row.state == ARMED:
            moves.again(board, row, "not begun", now, "it started anew before the order came")
        return
    if row.trial_boot < 0 or heard.boot < row.trial_boot or row.state not in (TRIAL, CONFIRMED):
        return
    row.after.add(heard)
    proven = runs_ours and heard.release is not None and not heard.release[1]
    # A trial that nobody has confirmed ends by a reset: one start that lasts longer says that it was.
    proven = proven or heard.closed_ms > 1000 * moves.plan.release.trial_s + TRIAL_MARGIN_MS
    if proven and not row.proven:
        row.proven = True
        moves.touch(board)
    if not row.soaked:
        _judge(moves, board, row, now)


def _judge(moves: Moves, board: str, row: Row, now: int) -> None:
    gates = moves.plan.gates
    problem = worse(row.before, row.after, row.boot - row.trial_boot, now - row.watched_at, gates)
    if problem is not None:
        moves.fail(board, "worse", HEALTH, now, problem)
    elif row.state == TRIAL and row.proven and row.after.reports >= gates.reports:
        moves.move(board, "proven", now, "")
    elif row.state == CONFIRMED and now - row.since >= moves.plan.pace.soak:
        row.soaked = True
        moves.touch(board)


def hinted(moves: Moves, board: str, told: Told, now: int) -> None:
    """What the gateway tells of this board. Never success."""
    row = moves.rows.get(board)
    if row is None:
        return
    moves.told[board] = told
    ours = moves.plan.release.digest
    code = told.result[0] if told.result is not None and told.result[1] == ours else 0
    if code == ABANDONED and row.state == TRIAL and moves.course.state in (HALTED, ABORTED):
        moves.call_back(board, now)
    elif (code and row.state in (TRIAL, CONFIRMED)) or (code not in (0, ABANDONED) and row.state == ARMED):
        moves.fail(board, "rolled back", ROLLED_BACK, now, _in_words(code))
    elif code and row.state == SENDING and told.phase == HAS_FAILED:
        moves.fail(board, "refused", TRANSFER, now, _in_words(code))
    elif _was_armed(row) and told.phase == IN_TRIAL and told.running == ours:
        _found(moves, board, row, now)
    elif row.state == SENDING and told.staged == ours:
        moves.move(board, "staged", now, "")
    elif row.state in (QUEUED, SENDING) and told.running == ours and told.phase != IN_TRIAL:
        moves.move(board, "left out", now, "its gateway says that it runs this release already", "runs it")
    elif row.state in (STAGED, WAITING_WINDOW) and told.staged != ours and told.phase != IN_TRIAL:
        moves.again(board, row, "not staged", now, "what it had fetched is gone")
    elif row.state == ARMED and told.phase == IN_TRIAL and told.running == ours:
        moves.move(board, "tries it", now, "")
    elif row.state in (TRIAL, CONFIRMED) and told.running == ours and told.link is not None and not row.soaked:
        _judge_link(moves, board, row, told.link, now)


def _judge_link(moves: Moves, board: str, row: Row, link: tuple[int, int], now: int) -> None:
    if row.link_at_trial is None:
        row.link_at_trial = link  # what its restart has cost is before that
        moves.touch(board)
        return
    problem = worse_link(row.link_before, row.link_at_trial, link, moves.plan.gates)
    if problem is not None:
        moves.fail(board, "worse", HEALTH, now, problem)


def _in_words(code: int) -> str:
    return f"its gateway says: {RESULTS.get(code, f'result {code}')}"


def answered(moves: Moves, board: str, action: int, nonce: bytes, said: receipt.Receipt, now: int) -> None:
    """The board's receipt for an order of ours, its signature verified."""
    row = moves.rows.get(board)
    if row is None or row.asked is None or row.asked[:2] != (action, nonce.hex()):
        return
    if said.outcome == receipt.DONE:
        row.taken = True
        moves.touch(board)
        if action == order.ARM and row.state in AT_STAKE:
            row.line = said.sequence
            moves.touch(board)
            if row.state == ARMED:
                moves.move(board, "tries it", now, "")
        elif action == order.ABANDON and row.state == TRIAL:
            moves.call_back(board, now)
        elif action == order.ABANDON and row.state == ARMED:
            moves.again(board, row, "not staged", now, "its order was taken back")
        return
    why = receipt.REASONS.get(said.reason or 0, f"reason {said.reason}")
    if action == order.ABANDON or row.state not in (SENDING, ARMED):
        return
    if said.reason == receipt.OLD_NONCE:
        if row.state == ARMED:
            moves.again(board, row, "not begun", now, why)
        # else its next hint brings the next nonce, and the order goes out again
    elif said.reason in (receipt.OLD, receipt.OTHER_KEY, receipt.TRIAL_OPEN) and row.tries < TRIES:
        row.asked = None
    elif said.reason == receipt.NOT_STAGED and row.state == ARMED:
        moves.again(board, row, "not staged", now, why)
    else:
        kind = TRANSFER if said.reason == receipt.NO_SPACE else VERIFY
        moves.fail(board, "refused", kind, now, f"it refuses: {why}")
