"""One lane's reports on their way to the broker, in order, and the lane behind them.

The PUBACK decides, nothing else. What is sent waits here for its own; the lane moves when the oldest has it, to the
last report before the first that has not. So whatever ends this (a lost connection, a kill), what was not acknowledged
is sent again, from there on.

All that a turn of the event loop brings, PUBACKs and reports, is one step here: a report has no task of its own.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache, partial

import aiomqtt

from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Lane, Row
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.dates import Dates
from laterne_gateway.health import Health
from laterne_gateway.routes.connection import Connection
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.stream import string, user_property

PUBACK_WITHIN_S = 60.0  # a broker that takes longer for the oldest message is taken for gone
LATE_AFTER_MS = 120_000  # a report closes every minute: one that is two minutes old waited somewhere
READ_AT_ONCE = 64  # rows from the buffer, 60 KiB: a commit's worth
BOARDS_KEPT = 512  # topics; a roster has at most 256 boards

_topic = lru_cache(maxsize=BOARDS_KEPT)(string)
_HISTORICAL = {late: user_property("historical", "true" if late else "false") for late in (True, False)}


@dataclass(slots=True)
class Sent:
    """A report under way. at_s: when it was sent (monotonic)."""

    id: int
    at_s: float
    acknowledged: bool = False


def is_late(row: Row, now_ms: int | None, dated: tuple[int, int] | None = None) -> bool:
    """Whether a platform should take the report for history: it waited on the board or here. Unknown is not late.

    dated: when it was closed as we see it (dates.py), if the board did not know.
    """
    if now_ms is None:
        return False
    before_ms = now_ms - LATE_AFTER_MS
    closed_ms = row.closed_ms if dated is None else dated[0]
    return (closed_ms is not None and closed_ms < before_ms) or (
        row.received_ms is not None and row.received_ms < before_ms
    )


def properties_of(row: Row, late: bool, dated: tuple[int, int] | None = None) -> bytes:
    """The user properties: `received` (RFC 3339, left out when not known), `historical`, and what `dated` says."""
    said = _HISTORICAL[late]
    if row.received_ms is not None:
        said = user_property("received", rfc3339(row.received_ms)) + said
    if dated is not None:
        said += user_property("dated", rfc3339(dated[0])) + user_property("dated_within_ms", str(dated[1]))
    return said


class Delivery:
    """subject: in the health. prefix: of topics. window: so many of this lane may be under way; slots: of all together.

    pace: of what is late anyway.
    """

    def __init__(
        self,
        subject: str,
        prefix: str,
        lane: Lane,
        client: Connection,
        window: int,
        slots: asyncio.Semaphore,
        pace: Pace | None,
        buffer: Buffer,
        clock: Clock,
        health: Health,
        dates: Dates,
    ) -> None:
        self._subject = subject
        self._prefix = prefix
        self._lane = lane
        self._client = client
        self._window = window
        self._slots = slots
        self._pace = pace
        self._buffer = buffer
        self._clock = clock
        self._health = health
        self._dates = dates
        self._read_id = lane.delivered  # everything up to here has been read
        self._ahead: deque[Row] = deque()  # read, not sent
        self._sent: deque[Sent] = deque()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Delivers the lane to its end, for ever if it has none. Raises MqttError."""
        upto = self._lane.upto
        with self._buffer.watched(self._news):
            while True:
                self._news.clear()  # before we look, so that nothing is missed
                self._move()
                last_id = self._buffer.last_id if upto is None else upto
                if len(self._sent) < self._window and (self._ahead or self._read_id < last_id):
                    await self._in_time(self._send(last_id))
                elif self._sent or upto is None:
                    await self._in_time(self._news.wait())
                else:
                    self._buffer.delivered(self._lane, upto)
                    return

    async def _send(self, last_id: int) -> None:
        if not self._ahead:
            self._ahead.extend(await self._buffer.oldest(self._read_id, READ_AT_ONCE, last_id))
            self._read_id = self._ahead[-1].id if self._ahead else last_id  # none: they have gone otherwise
        now_ms = self._clock.utc_ms()
        while self._ahead and len(self._sent) < self._window:
            if self._pace is not None:
                await self._pace.next()
            await self._slots.acquire()
            row = self._ahead.popleft()
            dated = self._dates.date(row.board, row.body) if row.closed_ms is None else None
            if dated is not None:
                self._health.count(self._subject, "reports dated afterwards")
            late = self._lane.upto is not None or is_late(row, now_ms, dated)
            under_way = Sent(row.id, self._clock.monotonic_s())
            self._sent.append(under_way)
            topic = _topic(f"{self._prefix}/{row.board}/report")
            self._client.send(topic, row.body, properties_of(row, late, dated), partial(self._note, under_way))
            if self._pace is not None:
                return  # one at a time: PUBACKs are looked at meanwhile

    def _note(self, one: Sent) -> None:
        one.acknowledged = True
        self._slots.release()
        self._news.set()

    def _move(self) -> None:
        """Moves the lane to the last report before the first that is not acknowledged."""
        sent, count, last_id = self._sent, 0, 0
        while sent and sent[0].acknowledged:
            last_id = sent.popleft().id
            count += 1
        if count:
            self._health.count(
                self._subject, "reports delivered" if self._lane.upto is None else "backlog delivered", count
            )
            self._buffer.delivered(self._lane, last_id)

    async def _in_time(self, step: Coroutine[None, None, object]) -> None:
        """Raises MqttError: the oldest message has waited too long for its PUBACK."""
        sent = self._sent
        left_s = None if not sent else sent[0].at_s + PUBACK_WITHIN_S - self._clock.monotonic_s()
        try:
            async with asyncio.timeout(left_s):
                await step
        except TimeoutError:
            if sent and not sent[0].acknowledged:
                raise aiomqtt.MqttError(f"no acknowledgement within {PUBACK_WITHIN_S:.0f} s") from None
