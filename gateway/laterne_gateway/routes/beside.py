"""What a translating route delivers beside the reports of its lanes: gaps, and dead letters that are sent again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from laterne_gateway.buffered import Gap, Row
from laterne_gateway.dead_letters import LOOK_EVERY_S, WHOLE_REPORT, DeadLetter
from laterne_gateway.routes.feed import UnderWay
from laterne_gateway.routes.observations import NoTime, NotReadable, Observation, observation_of, observations_of
from laterne_gateway.routes.quantities import LOST
from laterne_gateway.routes.source import Source
from laterne_gateway.writer import AGAIN_S, StoreError
from laterne_protocol.report import GOOD

log = logging.getLogger("laterne")

GAPS_AT_ONCE = 64
GATEWAY = "gateway"  # whose clock dates a gap

PostBeside = Callable[[list[Observation], UnderWay, DeadLetter | None], Awaitable[None]]


class Beside:
    """post: takes observations as a feed's does; the dead letter that they were, or were in."""

    def __init__(self, source: Source, post: PostBeside) -> None:
        self._source = source
        self._post = post

    async def tell_gaps(self) -> None:
        """For ever: each gap becomes an observation of how many reports were lost. One may be told twice."""
        while True:
            gaps = await self._source.buffer.gaps(self._source.name, GAPS_AT_ONCE)
            now_ms = self._source.clock.utc_ms()
            if now_ms is None:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            await self._deliver([_observation(gap, now_ms + number) for number, gap in enumerate(gaps)], None)
            self._source.health.count(self._source.subject, "gaps told", len(gaps))
            try:
                await self._source.buffer.told(self._source.name, gaps[-1].id)
            except StoreError as why:
                log.debug("%s: gaps are told again: %s", self._source.subject, why)
                await asyncio.sleep(AGAIN_S)

    async def send_dead_letters(self) -> None:
        """For ever: those that an operator wants to be sent again."""
        while True:
            self._source.health.note(self._source.subject, "dead letters waiting", await self._source.dead.count())
            await self._source.state_passed_over()
            for letter in await self._source.dead.to_send_again():
                await self._send_again(letter)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _send_again(self, letter: DeadLetter) -> None:
        try:
            if letter.place == WHOLE_REPORT:
                row = Row(0, letter.board, letter.sequence, None, None, letter.body)
                observations, _ = observations_of(row, self._source.dates)
            else:
                observations = [observation_of(letter.body)]
        except (NotReadable, NoTime, ValueError, TypeError, LookupError, AttributeError) as why:
            # The latter: the body is of another release of ours.
            again = DeadLetter(
                letter.board, letter.sequence, letter.place, f"cannot be read: {why}", letter.body, id=letter.id
            )
            await self._source.bury(again)
            return
        refused = await self._deliver(observations, letter)
        self._source.health.count(self._source.subject, "dead letters sent again")
        if refused:
            return  # it is one again, and somebody may have marked it anew already
        try:
            await self._source.dead.taken(letter)
        except StoreError as why:  # it is sent once more, and found there
            log.debug("%s: dead letter %d stays: %s", self._source.subject, letter.id, why)

    async def _deliver(self, observations: list[Observation], letter: DeadLetter | None) -> bool:
        """Whether one of them was refused."""
        news = asyncio.Event()
        under_way = UnderWay(0, len(observations), news)
        if observations:
            await self._post(observations, under_way, letter)
            await news.wait()
        return under_way.refused


def _observation(gap: Gap, now_ms: int) -> Observation:
    lost = 1 if gap.first is None else gap.last - gap.first + 1  # None: nobody knows, at least the last
    # Gaps that are noticed together follow each other by a millisecond: some platforms take one observation of a time.
    at_ms = now_ms if gap.noticed_ms is None else gap.noticed_ms + gap.id % 1000
    said = (gap.first, gap.last, gap.reason)
    return Observation(gap.board, gap.last, "gap", LOST, gap.first or 0, at_ms, lost, GOOD, GATEWAY, 0, said)
