"""The states of a campaign and of its boards, and what leads from one to another: tables, and nothing beside them.

A pair that is not listed is a mistake of the program, not of a board: events that can come at any time are looked at
in engine.py before they become one of these.
"""

DRAFT, APPROVED, RUNNING, PAUSED = "DRAFT", "APPROVED", "RUNNING", "PAUSED"
HALTED, COMPLETED, ABORTED = "HALTED", "COMPLETED", "ABORTED"
CAMPAIGN_STATES = (DRAFT, APPROVED, RUNNING, PAUSED, HALTED, COMPLETED, ABORTED)
OVER = (COMPLETED, ABORTED)

# (state of the campaign, what happened) -> its next state
CAMPAIGN_NEXT = {
    (DRAFT, "approved"): APPROVED,
    (APPROVED, "started"): RUNNING,
    (RUNNING, "paused"): PAUSED,
    (PAUSED, "resumed"): RUNNING,
    (RUNNING, "gate"): HALTED,
    (PAUSED, "gate"): HALTED,  # boards that were in trial go on while it is paused
    (HALTED, "resumed"): RUNNING,
    (RUNNING, "last wave"): COMPLETED,
    (DRAFT, "aborted"): ABORTED,
    (APPROVED, "aborted"): ABORTED,
    (RUNNING, "aborted"): ABORTED,
    (PAUSED, "aborted"): ABORTED,
    (HALTED, "aborted"): ABORTED,
}

QUEUED, SENDING, STAGED, WAITING_WINDOW = "QUEUED", "SENDING", "STAGED", "WAITING_WINDOW"
ARMED, TRIAL, CONFIRMED, FAILED, SKIPPED = "ARMED", "TRIAL", "CONFIRMED", "FAILED", "SKIPPED"
BOARD_STATES = (QUEUED, SENDING, STAGED, WAITING_WINDOW, ARMED, TRIAL, CONFIRMED, FAILED, SKIPPED)

# Why a board failed.
VERIFY, TRANSFER, HEALTH, ROLLED_BACK, TIMEOUT, UNREACHABLE = (
    "verify",  # it refuses the release
    "transfer",  # the release did not get there
    "health",  # it runs the release and does worse than before
    "rolled_back",  # it has tried the release and runs the former one
    "timeout",  # it took too long
    "unreachable",  # nothing was heard of it: unknown, never success
)

# (state of the board, what happened) -> its next state
BOARD_NEXT = {
    (QUEUED, "begins"): SENDING,  # its wave has come: ordered to stage
    (QUEUED, "left out"): SKIPPED,
    (QUEUED, "too long"): FAILED,
    (QUEUED, "aborted"): SKIPPED,
    (SENDING, "staged"): STAGED,
    (SENDING, "left out"): SKIPPED,
    (SENDING, "refused"): FAILED,
    (SENDING, "too long"): FAILED,
    (SENDING, "aborted"): SKIPPED,
    (STAGED, "window shut"): WAITING_WINDOW,
    (STAGED, "not staged"): SENDING,
    (STAGED, "armed"): ARMED,
    (STAGED, "tries it"): TRIAL,  # it did get an order that was thought to be lost
    (WAITING_WINDOW, "tries it"): TRIAL,
    (SENDING, "tries it"): TRIAL,
    (STAGED, "too long"): FAILED,
    (STAGED, "aborted"): SKIPPED,
    (WAITING_WINDOW, "window open"): STAGED,
    (WAITING_WINDOW, "not staged"): SENDING,
    (WAITING_WINDOW, "too long"): FAILED,
    (WAITING_WINDOW, "aborted"): SKIPPED,
    (ARMED, "tries it"): TRIAL,
    (ARMED, "not begun"): STAGED,  # it started anew before the order came, or the order came too late
    (ARMED, "not staged"): SENDING,
    (ARMED, "refused"): FAILED,
    (ARMED, "rolled back"): FAILED,
    (ARMED, "too long"): FAILED,
    (TRIAL, "proven"): CONFIRMED,  # its own signature says so
    (TRIAL, "rolled back"): FAILED,
    (TRIAL, "called back"): SKIPPED,  # by our order: it has shown neither
    (TRIAL, "worse"): FAILED,
    (TRIAL, "too long"): FAILED,
    (CONFIRMED, "rolled back"): FAILED,  # by its rescue, or by a person
    (CONFIRMED, "worse"): FAILED,
    (CONFIRMED, "too long"): FAILED,  # silent, so that nobody knows whether it is well
}
UNDER_WAY = (SENDING, STAGED, WAITING_WINDOW, ARMED, TRIAL)
AT_STAKE = (ARMED, TRIAL)  # what is counted against the limits of posts and gateways
ENDED = (CONFIRMED, FAILED, SKIPPED)
