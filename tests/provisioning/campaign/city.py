"""A city of simulated boards around the real engine: what boards do with a release, in steps of a minute.

A board signs a report a minute. `Bad` says what a release does to which share of boards; the seed draws which ones.
Nothing here decides anything about the campaign.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.plan import Gates, Pace, Plan, Release, Target, canaries
from laterne_provisioning.campaign.rows import Told, Wanted
from laterne_provisioning.campaign.states import FAILED
from laterne_provisioning.campaign.windows import window_of

STEP_S = 60
TRIAL_S = 600
NEW, OLD = "ab" * 16, "cd" * 16
CRASH, SILENT_SENSOR, LINK_KILLER = "crash", "silent sensor", "link killer"
BEGIN = 1_795_000_000  # a Wednesday


@dataclass(frozen=True)
class Bad:
    """What is wrong with a release, on which share (0..1) of boards."""

    what: str
    share: float


@dataclass
class Board:
    """One board. downtime: until when it says nothing. runs: the digest. trial_since: of its open trial, or None."""

    target: Target
    is_bad: bool
    boot: int = 1
    up_since: int = BEGIN
    sequence: int = 10
    runs: str = OLD
    confirmed: str = OLD
    staged: str = ""
    trial_since: int | None = None
    back_at: int | None = None
    result: tuple[int, str] | None = None
    says_release: bool = True
    ran_new: bool = False
    harmed: bool = False
    orders: int = 0
    channels: frozenset[int] = frozenset({1, 2, 3})

    @property
    def nonce(self) -> bytes:
        return self.boot.to_bytes(4, "big") + self.orders.to_bytes(4, "big")


def targets(boards: int, a_gateway: int = 64) -> tuple[Target, ...]:
    models = ("pico", "pico2", "esp32")
    found = []
    for number in range(boards):
        gateway = f"gw-{number // a_gateway}"
        model = models[number % 3 if number % 10 == 0 else 0]
        traits = (f"gateway {gateway}", "interpreter 1.29", f"model {model}")
        # Every eighth post carries two boards.
        post = f"P-{number - (number % 8 == 1)}"
        found.append(Target(f"LE-{number:05}", "city", gateway, post, traits))
    return tuple(found)


def plan(
    boards: int,
    name: str = "C-1",
    window: str | None = None,
    gates: Gates | None = None,
    soak: int = 1800,
    a_gateway: int = 64,
) -> Plan:
    whom = targets(boards, a_gateway)
    return Plan(
        name,
        Release("2.0", 7, NEW, TRIAL_S),
        whom,
        canaries(name, whom, ()),
        (5.0, 25.0, 50.0, 100.0),
        gates or Gates(),
        Pace(soak=soak),
        () if window is None else (window_of(window),),
        "",
        BEGIN,
    )


@dataclass
class City:
    """All boards and the engine. harmed: boards to which the release did what is wrong with it."""

    engine: Engine
    bad: Bad | None
    seed: int
    offline: float = 0.0
    now: int = BEGIN
    boards: dict[str, Board] = field(default_factory=dict)
    most_at_a_post: int = 0
    hears: Callable[[str, Heard], None] = lambda board, heard: None
    keep: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if self.boards:
            return
        draw = random.Random(self.seed)
        for one in self.engine.plan.targets:
            # Whom an operator lets go first is known to be there.
            if draw.random() >= self.offline or one.board in self.engine.plan.canaries:
                share = 0.0 if self.bad is None else self.bad.share
                self.boards[one.board] = Board(one, draw.random() < share)

    @property
    def harmed(self) -> list[str]:
        return [name for name, board in self.boards.items() if board.harmed]

    @property
    def exposed(self) -> list[str]:
        return [name for name, board in self.boards.items() if board.ran_new]

    def run(self, hours: float = 24 * 14) -> None:
        """Until the campaign is over or the time is."""
        end = self.now + int(hours * 3600)
        while not self.engine.is_over() and self.now < end:
            self.step()

    def step(self) -> None:
        self.now += STEP_S
        engine = self.engine
        # Only boards of which the campaign wants something are simulated in detail: the others report as ever.
        for name in self._watched():
            board = self.boards.get(name)
            if board is not None:
                self._live(board)
        engine.tick(self.now)
        ready = list(engine.wanted(self.now))
        for wanted in ready:
            engine.ordered(wanted, "")
        self.keep()  # before anything takes effect outside
        for wanted in ready:
            board = self.boards.get(wanted.board)
            if board is not None and board.back_at is None:
                self._obey(board, wanted)
        posts = Counter(board.target.post for board in self.boards.values() if board.trial_since is not None)
        self.most_at_a_post = max(self.most_at_a_post, *posts.values(), 0)

    def _watched(self) -> list[str]:
        rows = self.engine.rows
        return [name for name, row in rows.items() if row.state not in ("QUEUED", "SKIPPED", FAILED) and not row.soaked]

    def _live(self, board: Board) -> None:
        if board.back_at is not None:  # the trial ended by resets, three of them, and it is back
            if self.now < board.back_at:
                return
            board.back_at, board.trial_since = None, None
            board.result = (3, NEW)
            self._start(board, board.confirmed, 3)
        if board.trial_since is not None and self.now - board.trial_since >= 2 * STEP_S:
            board.trial_since, board.confirmed = None, NEW
        told = Told(
            "trial" if board.trial_since is not None else "idle",
            board.runs,
            board.nonce,
            board.staged,
            board.result,
        )
        self.engine.hinted(board.target.board, told, self.now)
        release = (board.runs[:16], board.runs != board.confirmed) if board.says_release else None
        board.says_release = False
        board.sequence += 1
        good = board.channels
        if board.harmed and self.bad is not None and self.bad.what == SILENT_SENSOR and board.runs == NEW:
            good = frozenset({1, 2})
        heard = Heard(board.sequence, board.boot, (self.now - board.up_since) * 1000, release, good, 3 * 4, 0)
        self.hears(board.target.board, heard)
        self.engine.heard(board.target.board, heard, self.now)

    def _start(self, board: Board, runs: str, starts: int = 1) -> None:
        board.boot += starts
        board.up_since, board.runs, board.says_release = self.now, runs, True

    def _obey(self, board: Board, wanted: Wanted) -> None:
        reason = None
        board.orders += 1  # each order that is executed draws another nonce
        name = board.target.board
        if wanted.action == order.STAGE:
            board.staged = wanted.digest
        elif wanted.action == order.ARM:
            reason = None if board.staged == wanted.digest else receipt.NOT_STAGED
        said = receipt.Receipt(name, bytes(16), 0 if reason is None else 1, reason, board.sequence, None)
        self.engine.answered(name, wanted.action, wanted.nonce, said, self.now)
        if wanted.action == order.ARM and reason is None:
            self._start(board, NEW)
            board.staged, board.trial_since, board.ran_new = "", self.now, True
            if board.is_bad and self.bad is not None:
                board.harmed = True
                if self.bad.what == CRASH:
                    board.back_at = self.now + STEP_S
                elif self.bad.what == LINK_KILLER:
                    board.back_at = self.now + 3 * TRIAL_S
        elif wanted.action == order.ABANDON and board.trial_since is not None:
            board.trial_since, board.result = None, (5, NEW)
            self._start(board, board.confirmed)
