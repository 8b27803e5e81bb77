"""A lane's reports as observations on their way, and how far the lane may move.

A lane moves to the last report before the first of which something is still under way: an observation that the platform
has not, and that is no dead letter on our disk either. So whatever ends this process, it begins again there.

No board waits for another one. What is under way is bounded (MAX_AHEAD), and a board of which the platform takes
nothing, or takes it slowly, would fill that for ever. So where it is full, a board that has nothing under way still
gets a report on its way, and boards that have are passed over: how far they were read is kept for each of them
(`behind`), and they are read from there when there is room. The lane waits for all of them; the platform has the
others' reports all the same, and after a restart they are looked for, or sent again. Each board's stay in their order.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from laterne_gateway.buffered import Lane, Row
from laterne_gateway.dead_letters import WHOLE_REPORT, DeadLetter
from laterne_gateway.routes.observations import NoTime, NotReadable, Observation, observations_of
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.source import Source

log = logging.getLogger("laterne")

READ_AT_ONCE = 64  # rows from the buffer
LEFT_BEHIND = 20  # reports, of 96 readings each a second's observations: what is live never waits behind more
MAX_AHEAD = 4000  # observations of a lane in memory: 1.5 MiB
DATED_WITHIN_S = 60.0  # of a route's beginning: by then boards that are there have shaken hands, some dozen on a bus
CLOCK_AGAIN_S = 5.0  # how often a report without a time looks whether there is one now


class UnderWay:
    """A report, or whatever else counts as one thing to deliver. left: how many of its size are not settled.

    refused: whether one of them is a dead letter.
    """

    __slots__ = ("id", "left", "news", "refused", "size")

    def __init__(self, identifier: int, size: int, news: asyncio.Event) -> None:
        self.id = identifier
        self.size = self.left = size
        self.news = news
        self.refused = False

    def settle(self) -> None:
        """Another part of it is with the platform, or a dead letter."""
        self.left -= 1
        if self.left <= 0:
            self.news.set()


Post = Callable[[list[Observation], UnderWay, "Feed"], Awaitable[None]]


class Feed:
    """post: takes a report's observations; it calls settle() once for each. pace: of a backlog."""

    def __init__(
        self,
        source: Source,
        lane: Lane,
        post: Post,
        pace: Pace | None,
    ) -> None:
        self.lane = lane
        self.pace = pace
        self._source = source
        self._post = post
        self._read_id = lane.delivered  # all up to here was read, but for what is behind
        self._behind: dict[str, int] = {}  # board: its reports after this one, up to _read_id, are not read yet
        self._open: dict[str, deque[UnderWay]] = {}  # by board, never empty
        self._undated: set[str] = set()  # boards whose next report has no time yet, or finds no room as a dead letter
        self._ahead = 0  # observations under way
        self._moved_id = lane.delivered
        self._news = asyncio.Event()

    def end_at(self, lane: Lane, pace: Pace) -> None:
        """What was live is what an outage has left behind: the lane has an end now."""
        self.lane, self.pace = lane, pace
        self._news.set()

    async def run(self) -> None:
        """Delivers the lane to its end, for ever while it has none."""
        with self._source.buffer.watched(self._news):
            while True:
                self._news.clear()  # before we look, so that nothing is missed
                self._move()
                upto = self.lane.upto
                if await self._read(self._source.buffer.last_id if upto is None else upto):
                    continue
                if self._open or self._behind or upto is None:
                    await self._news.wait()
                else:
                    self._source.buffer.delivered(self.lane, upto)
                    return

    def _has_room(self, board: str) -> bool:
        return board not in self._undated and (self._ahead < MAX_AHEAD or board not in self._open)

    async def _read(self, last_id: int) -> bool:
        """Reads some reports, and posts them. False: there is none to read, or no room."""
        for board, after_id in self._behind.items():
            if self._has_room(board):
                del self._behind[board]  # its turn comes again after the others'
                limit = READ_AT_ONCE if self._ahead < MAX_AHEAD else 1
                rows, seen = await self._source.buffer.some(after_id, limit, self._read_id, only=board)
                await self._post_some(rows)
                if seen < self._read_id:
                    self._behind.setdefault(board, seen)
                return True
        if self._read_id >= last_id:
            return False
        if self._ahead >= MAX_AHEAD:
            if self._source.buffer.chains.keys() <= self._open.keys() | self._behind.keys():
                return False  # nobody is there who could go past them
            for board in self._open:
                self._behind.setdefault(board, self._read_id)
        rows, seen = await self._source.buffer.some(self._read_id, READ_AT_ONCE, last_id, without=self._behind)
        await self._post_some(rows)
        self._read_id = seen
        return True

    async def _post_some(self, rows: list[Row]) -> None:
        """Boards that have no room are behind from here on: a report may hold 800 readings, all rows at once 50,000."""
        for row in rows:
            if row.board in self._behind:
                continue
            observations = await self._translated(row) if self._has_room(row.board) else None
            if observations is None:
                self._behind[row.board] = row.id - 1
                continue
            if self.pace is not None:
                await self.pace.next(max(1, len(observations)))
            under_way = UnderWay(row.id, len(observations), self._news)
            self._open.setdefault(row.board, deque()).append(under_way)
            self._ahead += len(observations)
            await self._post(observations, under_way, self)

    async def _translated(self, row: Row) -> list[Observation] | None:
        """None: its board waits, for a time or for room among the dead letters."""
        try:
            observations, without_value = observations_of(row, self._source.dates)
        except NotReadable as why:
            if await self.bury(row, str(why)):
                return []
        except NoTime as why:
            # While this machine has no time itself it dates nothing; the board's next answer after that may. What a
            # former process knew of starts has gone with it: the first answers tell it again.
            is_new = self._source.clock.monotonic_s() - self._source.began_s < DATED_WITHIN_S
            if not is_new and self._source.clock.utc_ms() is not None and await self.bury(row, str(why)):
                return []
            self._source.health.count(self._source.subject, "waits for a report's time")
        else:
            if without_value:
                self._source.health.count(self._source.subject, "readings without a value", without_value)
            return self._source.within_bounds(row.board, observations)
        self._undated.add(row.board)
        asyncio.get_running_loop().call_later(CLOCK_AGAIN_S, self._look_again, row.board)
        return None

    def _look_again(self, board: str) -> None:
        self._undated.discard(board)
        self._news.set()

    async def bury(self, row: Row, reason: str) -> bool:
        """The whole report becomes a dead letter. False: there are too many."""
        letter = DeadLetter(row.board, row.sequence, WHOLE_REPORT, reason, row.body)
        return await self._source.bury(letter)

    def _move(self) -> None:
        count = 0
        for board, of_board in list(self._open.items()):
            while of_board and of_board[0].left <= 0:
                self._ahead -= of_board.popleft().size
                count += 1
            if not of_board:
                del self._open[board]
        if count:
            self._source.health.count(
                self._source.subject, "reports delivered" if self.lane.upto is None else "backlog delivered", count
            )
        first_open = min((of_board[0].id - 1 for of_board in self._open.values()), default=self._read_id)
        up_to_id = min(first_open, *self._behind.values()) if self._behind else first_open
        if up_to_id > self._moved_id:
            self._moved_id = up_to_id
            self._source.buffer.delivered(self.lane, up_to_id)
