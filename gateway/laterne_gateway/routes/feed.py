"""A lane's reports as observations on their way, and how far the lane may move.

A lane moves to the last report before the first of which something is still under way: an observation that the platform
has not, and that is no dead letter on our disk either. So whatever ends this process, it begins again there.
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
    """A report, or whatever else counts as one thing to deliver. left: how many parts of it are not settled.

    refused: whether one of them is a dead letter.
    """

    __slots__ = ("id", "left", "news", "refused")

    def __init__(self, identifier: int, left: int, news: asyncio.Event) -> None:
        self.id = identifier
        self.left = left
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
        self._read_id = lane.delivered
        self._open: deque[UnderWay] = deque()
        self._ahead = 0  # observations under way
        self._sizes: deque[int] = deque()
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
                last_id = self._source.buffer.last_id if upto is None else upto
                if self._ahead < MAX_AHEAD and self._read_id < last_id:
                    await self._read(last_id)
                elif self._open or upto is None:
                    await self._news.wait()
                else:
                    self._source.buffer.delivered(self.lane, upto)
                    return

    async def _read(self, last_id: int) -> None:
        rows = await self._source.buffer.oldest(self._read_id, READ_AT_ONCE, last_id)
        for row in rows:
            observations = await self._translated(row)
            if self.pace is not None:
                await self.pace.next(max(1, len(observations)))
            under_way = UnderWay(row.id, len(observations), self._news)
            self._open.append(under_way)
            self._sizes.append(len(observations))
            self._ahead += len(observations)
            await self._post(observations, under_way, self)
            self._read_id = row.id
            if self.lane.upto is not None and row.id >= self.lane.upto:
                break  # it was given an end meanwhile
            if self._ahead >= MAX_AHEAD:
                break  # a report may hold 800 readings: all rows at once would be 50,000
        if not rows:
            self._read_id = last_id  # they have gone otherwise
        self._news.set()

    async def _translated(self, row: Row) -> list[Observation]:
        while True:
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
            await asyncio.sleep(CLOCK_AGAIN_S)

    async def bury(self, row: Row, reason: str) -> bool:
        """The whole report becomes a dead letter. False: there are too many."""
        letter = DeadLetter(row.board, row.sequence, WHOLE_REPORT, reason, row.body)
        return await self._source.bury(letter)

    def _move(self) -> None:
        last_id = count = 0
        while self._open and self._open[0].left <= 0:
            last_id = self._open.popleft().id
            self._ahead -= self._sizes.popleft()
            count += 1
        if count:
            self._source.health.count(
                self._source.subject, "reports delivered" if self.lane.upto is None else "backlog delivered", count
            )
            self._source.buffer.delivered(self.lane, last_id)
