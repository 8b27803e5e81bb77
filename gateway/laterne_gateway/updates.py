"""Updates: what each board says of its release, and what it is to be sent next (protocol/README.md, 3.1).

A board decides alone: it says what it wants, and takes nothing else. We ask how far it is, send it parts of what it
wants, as many as it has credit for, and ask again. So nothing has to be remembered: after a loss of frames, of the
session, of this process or of the board's power its next answer says where to go on. What is kept here of a board is a
hint for the operator's campaign, and what holds back a board that wastes its line.

What bounds a board, which may be hostile: it gets parts of releases only that are stored here, judged; BUDGET_BYTES of
them, which is twice the largest release, and as much again in an hour; the same part again and again only after growing
pauses. Reports go first (bus). It is never given up: a board that is put off is asked again.

When a trial is confirmed. The board must have shown over this very link that it can report, because the next update
comes the same way. So it is told so only when HEALTHY_REPORTS of its reports are on our disk that it closed in this
start and that came while it said, in this session, that it is on trial. After our own restart they are counted anew.
"""

import asyncio
from dataclasses import dataclass, field

from laterne_gateway import update_status
from laterne_gateway.blocks import Blocks, Code, Want
from laterne_gateway.clock import Clock
from laterne_gateway.health import Health
from laterne_gateway.inbox import Inbox
from laterne_gateway.release_fetch import ReleaseFetch
from laterne_gateway.releases import Release, Releases
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.update_status import Told
from laterne_protocol.session import Session
from laterne_protocol.update_messages import (
    ENVELOPE,
    FAILED,
    IDLE,
    MAX_CODE_BYTES,
    MAX_PART_BYTES,
    RECEIVING,
    RESCUE,
    STAGED,
    TRIAL,
    WORKING,
    Data,
    Progress,
)

HEALTHY_REPORTS = 3
BUDGET_BYTES, BUDGET_AGAIN_S = 1 << 20, 3600.0
STUCK_TIMES = 2  # the same part is sent again at once so often: a line has noise
STUCK_PAUSE_S, STUCK_CAP_S = 0.5, 60.0
LEAST_PART_BYTES = 200  # a fifth of the bytes is then overhead
LEAST_ROOM_BYTES, MORE_ROOM_BYTES = 1024, 256
LONGER_BYTES = 16  # with each burst that came whole: what was too long once is not tried again soon
MAX_WORKING = 5000  # answers in a row; a release of 512 KiB is copied in a tenth of them
PUT_OFF_S = 60.0
DEAF_BASE_S, DEAF_CAP_S = 2.0, 3600.0  # a board whose firmware does not know the question says nothing

# What a board that receives wants.
NOTHING, NO_ROOM, HERE, AWAY, OUTSIDE = (
    "nothing",
    "nothing yet",
    "what is here",
    "what is not here",
    "what is not in it",
)

# What we do then.
REST, ASK, AGAIN, SEND, FETCH, LISTEN, PUT_OFF = "rest", "ask", "ask at once", "send", "fetch", "listen", "put off"

# (phase that the board says, what it wants) -> what we do. An unlisted pair is a mistake of ours.
NEXT = {
    (IDLE, NOTHING): REST,
    (RECEIVING, NOTHING): ASK,
    (RECEIVING, NO_ROOM): ASK,
    (RECEIVING, HERE): SEND,
    (RECEIVING, AWAY): FETCH,
    (RECEIVING, OUTSIDE): PUT_OFF,
    (WORKING, NOTHING): AGAIN,
    (STAGED, NOTHING): REST,
    (TRIAL, NOTHING): LISTEN,
    (FAILED, NOTHING): REST,
    (RESCUE, NOTHING): REST,
}
# How long until it is asked again. Orders and restarts change what it says: after these it is asked at once.
PAUSE_S = {REST: 60.0, ASK: 0.5, AGAIN: 0.0, SEND: 0.0, FETCH: 2.0, LISTEN: 3.0, PUT_OFF: PUT_OFF_S}


Wanted = tuple[bytes, int, int, int, int, int, int]


@dataclass(frozen=True)
class Trial:
    """A trial that a board has told of. before: its reports of this start on disk when it first said so here."""

    session: Session
    boot: int
    digest: bytes
    before: int


@dataclass
class Standing:
    """How a board stands. progress: what it said last. code: what it is sent, or was; from `start` on, when is_ready.

    sent: how much of the code went out before it was asked, 0 for nothing. stuck: how often in vain. budget_bytes: as
    of budget_s. plain: items of its release that it asked for anew: no patches for them. deaf: questions without
    answer. part_bytes: of one message, burst_bytes: of all messages between two questions; fewer when some were lost or
    it fell silent over them. room: bytes of code of a block; fewer when it began anew. anew: how often this block was.
    link: how its line does (linked).
    """

    progress: Progress | None = None
    session: Session | None = None  # in which it said that
    heard_ms: int | None = None
    code: Code | None = None
    start: int = 0
    is_ready: bool = False
    sent: int = 0
    stuck: int = 0
    anew: int = 0
    working: int = 0
    budget_bytes: float = BUDGET_BYTES
    budget_s: float = 0.0
    plain: set[tuple[bytes, int]] = field(default_factory=set)
    deaf: int = 0
    part_bytes: int = MAX_PART_BYTES
    burst_bytes: int = MAX_CODE_BYTES
    room: int = MAX_CODE_BYTES
    trial: Trial | None = None
    share: float | None = None
    link: tuple[int, int] | None = None
    told: Told = field(default_factory=Told)


class Updates:
    """Of all boards. fetch: brings releases that are not here."""

    def __init__(self, releases: Releases, inbox: Inbox, roster: RosterKeeper, clock: Clock, health: Health) -> None:
        self._releases = releases
        self._inbox = inbox
        self._roster = roster
        self._clock = clock
        self._health = health
        self._standings: dict[str, Standing] = {}
        self._blocks = Blocks()
        self._news = asyncio.Event()
        self.fetch = ReleaseFetch(releases, self.in_use, clock, health)

    def in_use(self) -> set[bytes]:
        """Releases that boards run, have staged or want."""
        found: set[bytes] = set()
        for standing in self._standings.values():
            if standing.progress is not None:
                said = standing.progress
                found |= {one for one in (said.running, said.staged, said.wanted and said.wanted[0]) if one}
        return found

    # Towards the board --------------------------------------------------------------------------------------------

    def ahead(self, board: str, credit: int) -> list[Data]:
        """The parts to be sent to this board before it is asked again. credit: bytes that the line has time for."""
        standing = self._standings.get(board)
        if standing is None or standing.code is None or standing.progress is None or not standing.is_ready:
            return []
        code, start, standing.is_ready = standing.code, standing.start, False
        end = min(len(code.data), start + min(credit, standing.progress.credit, standing.burst_bytes))
        _, item, block = code.of
        standing.sent, standing.budget_bytes = end, standing.budget_bytes - (end - start)
        self._health.count(board, "updates: bytes sent", end - start)
        parts = -(-(end - start) // standing.part_bytes)
        size = -(-(end - start) // parts)  # all of them as long as the others
        return [
            Data(0, item, block, code.size, code.encoding, len(code.data), at, code.data[at : min(at + size, end)])
            for at in range(start, end, size)
        ]

    def has_answered(self, board: str, session: Session | None) -> bool:
        """Whether it has told in this session how far its update is."""
        standing = self._standings.get(board)
        return standing is not None and session is not None and standing.session is session

    def told(self, board: str, session: Session) -> bytes | None:
        """The release that this board is told in this session to be healthy."""
        standing = self._standings.get(board)
        trial = None if standing is None else standing.trial
        if trial is None or trial.session is not session:
            return None
        if self._inbox.committed_of(board, trial.boot) - trial.before < HEALTHY_REPORTS:
            return None
        return trial.digest

    async def heard(self, board: str, session: Session, boot: int, said: Progress) -> float:
        """What the board says in this session and start. Seconds until it is to be asked again."""
        standing = self._standing(board)
        # What it said in another session tells nothing of what came since: it may have started again.
        before = standing.progress
        former = before if standing.session is session else None
        standing.progress, standing.session = said, session
        standing.heard_ms, standing.deaf = self._clock.utc_ms(), 0
        release = (
            None if said.wanted is None or said.phase != RECEIVING else await self._releases.release(said.wanted[0])
        )
        wants = self._wants(said, release)
        does = NEXT[said.phase, wants]
        pause_s = PAUSE_S[does]
        standing.is_ready = False
        self.fetch.want(board, said.wanted[0] if does == FETCH and said.wanted is not None else None)
        if does == SEND:
            assert release is not None
            pause_s = await self._prepare(board, standing, former, said, release)
        elif does == FETCH:
            standing.share = None
        elif does == PUT_OFF:
            self._health.count(board, "updates: asked for what is not in its release")
        standing.working = standing.working + 1 if does == AGAIN else 0
        if standing.working > MAX_WORKING:
            pause_s = PUT_OFF_S
        self._note_trial(board, standing, session, boot, said)
        self._note(board, standing, before, said)
        return pause_s

    def linked(self, board: str, asked: int, missed: int) -> None:
        """How its line does: questions in sessions since it was first met here, and those repeated or not answered."""
        self._standing(board).link = asked, missed

    def unheard(self, board: str) -> float:
        """It did not answer this question. Seconds until it is asked again; whether it lives, polls will tell."""
        standing = self._standing(board)
        if standing.sent:
            self._shorten(standing)
        standing.is_ready, standing.sent = False, 0
        standing.deaf += 1
        return float(min(DEAF_CAP_S, DEAF_BASE_S * 2.0 ** min(standing.deaf - 1, 12)))

    def _shorten(self, standing: Standing) -> None:
        # A board short of memory has none for a long frame: it drops it, or starts again. Noise spares short ones, too.
        standing.part_bytes = max(LEAST_PART_BYTES, standing.part_bytes // 2)

    def _standing(self, board: str) -> Standing:
        standing = self._standings.get(board)
        if standing is None:
            # The roster bounds them.
            self._standings = {one: it for one, it in self._standings.items() if self._roster.entry(one) is not None}
            standing = self._standings[board] = Standing(budget_s=self._clock.monotonic_s())
        return standing

    def _wants(self, said: Progress, release: Release | None) -> str:
        if said.phase != RECEIVING or said.wanted is None:
            return NOTHING
        if release is None:
            return AWAY
        _, item, start, *_ = said.wanted
        if item >= len(release.items) or start >= len(release.items[item]):
            return OUTSIDE
        return HERE if said.credit > 0 else NO_ROOM

    async def _prepare(
        self, board: str, standing: Standing, former: Progress | None, said: Progress, release: Release
    ) -> float:
        assert said.wanted is not None
        digest, item, start, _, have, _, _ = said.wanted
        last = former.wanted if former is not None and former.phase == RECEIVING else None
        code = standing.code
        in_vain, went_back = self._learn(standing, last, said)
        if not self._has_budget(standing):
            self._health.count(board, "updates: put off")
            return PUT_OFF_S
        if went_back or in_vain:
            # What it had was not what it should have been: perhaps what we took for its file is not.
            standing.plain.add((digest, item))
        goes_on = code is not None and code.of == said.wanted[:3] and 0 < have < len(code.data)
        if goes_on and standing.stuck < STUCK_TIMES:
            standing.start = have
        else:
            # It begins anew, which the board allows at any time.
            standing.code, standing.start = await self._code(standing, said, release), 0
        standing.share = _share(release, item, start)
        standing.is_ready = not in_vain or standing.stuck <= STUCK_TIMES
        if standing.is_ready:
            return 0.0
        # After the pause it is asked before it is sent anything. A board that is short of memory forgets with each
        # report that it signs what it wanted, and would not know what these parts are for.
        self._health.count(board, "updates: parts in vain")
        return float(min(STUCK_CAP_S, STUCK_PAUSE_S * 2.0 ** min(standing.stuck - STUCK_TIMES, 10)))

    def _learn(self, standing: Standing, last: Wanted | None, said: Progress) -> tuple[bool, bool]:
        """What came of the parts that were sent: whether none did, and whether the board went back behind them."""
        assert said.wanted is not None
        digest, item, start, _, have, _, _ = said.wanted
        code, sent, standing.sent = standing.code, standing.sent, 0
        is_same_block = last is not None and last[:3] == (digest, item, start)
        is_same = last is not None and is_same_block and last[4] == have
        in_vain = is_same and sent > 0
        standing.stuck = standing.stuck + in_vain if is_same else 0
        went_back = last is not None and last[0] == digest and (item, start, have) < (last[1], last[2], last[4])
        dropped = last is not None and not have and (last[4] > 0 or (code is not None and sent == len(code.data)))
        standing.anew = standing.anew + dropped if is_same_block else 0
        if went_back or (is_same_block and have < sent):
            self._shorten(standing)
            # What comes behind a part that is lost is lost, too.
            came = 0 if went_back or in_vain else have - standing.start
            standing.burst_bytes = max(standing.part_bytes, min(2 * came, MAX_CODE_BYTES))
        elif sent:
            standing.part_bytes = min(MAX_PART_BYTES, standing.part_bytes + LONGER_BYTES)
            standing.burst_bytes = min(MAX_CODE_BYTES, 2 * standing.burst_bytes)
        if went_back:
            standing.room = max(LEAST_ROOM_BYTES, standing.room // 2)
        elif not have:
            standing.room = min(MAX_CODE_BYTES, standing.room + MORE_ROOM_BYTES)
        return in_vain, went_back

    def _has_budget(self, standing: Standing) -> bool:
        now_s = self._clock.monotonic_s()
        gained = (now_s - standing.budget_s) / BUDGET_AGAIN_S * BUDGET_BYTES
        standing.budget_bytes = min(BUDGET_BYTES, standing.budget_bytes + gained)
        standing.budget_s = now_s
        return standing.budget_bytes > MAX_CODE_BYTES

    async def _code(self, standing: Standing, said: Progress, release: Release) -> Code:
        assert said.wanted is not None
        digest, item, start, most, have, bits, behind = said.wanted
        # A board that lacks the memory to inflate can still take it as it is.
        raw = max(standing.stuck, standing.anew) >= STUCK_TIMES
        older = None
        if said.running is not None and item != ENVELOPE and not raw:
            older = await self._releases.release(said.running)
        plain = frozenset(one for of, one in standing.plain if of == digest)
        room = min(standing.room, have + said.credit)
        return self._blocks.code(release, Want(item, start, most, room, older, plain, raw, bits, behind))

    def _note_trial(self, board: str, standing: Standing, session: Session, boot: int, said: Progress) -> None:
        if said.phase != TRIAL or said.running is None:
            standing.trial = None
            return
        trial = standing.trial
        if trial is None or (trial.session, trial.boot, trial.digest) != (session, boot, said.running):
            standing.trial = Trial(session, boot, said.running, self._inbox.committed_of(board, boot))

    def _note(self, board: str, standing: Standing, former: Progress | None, said: Progress) -> None:
        if former is None or (former.phase, former.running, former.result) != (said.phase, said.running, said.result):
            self._health.note(board, "update", update_status.PHASES[said.phase])
            # Each phase has its minute: a board may say another one each time.
            self._health.say(board, f"update {said.phase}", f"{board}: update: {update_status.in_words(said)}")
        if said.phase not in (RECEIVING, WORKING):
            standing.share = None
            standing.part_bytes, standing.burst_bytes, standing.room = MAX_PART_BYTES, MAX_CODE_BYTES, MAX_CODE_BYTES
        self._news.set()

    # Towards the broker -------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The broker may have forgotten what it was told."""
        for standing in self._standings.values():
            standing.told = Told()
        self._news.set()

    async def news(self) -> tuple[str, bytes]:
        """Waits until there is something new to tell of a board: its id, and a JSON document (gateway/README.md)."""
        while True:
            self._news.clear()
            now_s, soonest_s = self._clock.monotonic_s(), None
            for board, standing in self._standings.items():
                said, told = standing.progress, standing.told
                wait_s = None if said is None else told.due_in_s(said, standing.share, standing.link, now_s)
                if said is None or wait_s is None:
                    continue
                if wait_s <= 0:
                    return board, told.document(said, standing.share, standing.link, standing.heard_ms, now_s)
                soonest_s = wait_s if soonest_s is None else min(wait_s, soonest_s)
            try:
                async with asyncio.timeout(soonest_s):
                    await self._news.wait()
            except TimeoutError:
                pass  # the time of a share or a link has come


def _share(release: Release, item: int, start: int) -> float:
    before = sum(len(one) for one in release.items[:item]) + start
    return round(before / release.size, 3)
