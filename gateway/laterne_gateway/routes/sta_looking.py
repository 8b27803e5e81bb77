"""What of ours a SensorThings server has already: asked of it, never remembered.

An observation is recognised by (board, sequence, digest, position), which it bears, not by its time: servers cut times
(facts/urban_platform.md, 8: milliseconds are stored, and not given back), and a report that is dated by dates.py may be
dated otherwise by the next process. So a window of time is read, and compared by what the observations bear.
"""

from laterne_gateway.clock import rfc3339
from laterne_gateway.health import Health
from laterne_gateway.routes.observations import DATED
from laterne_gateway.routes.sta_entities import Entities
from laterne_gateway.routes.sta_names import identity_in
from laterne_gateway.routes.sta_queues import Stream, Waiting
from laterne_gateway.routes.sta_server import AwayError, Server, in_path
from laterne_protocol.fields import MAX_UTC_MS

CERTAIN = 200  # rows: two full requests
LOOK_AROUND_MS = 1000  # servers cut milliseconds off
MAX_AROUND_MS = 86_400_000  # a board says how well it knows the time: it may say anything
# Rows further apart are looked for by themselves: a clock that has jumped over years must not have all of them read.
# Longer than the longest pause between readings, 1 h; so what goes regularly is looked for at once.
LOOK_APART_MS = 7_200_000
NO_LANE = -1  # what is beside lanes


class Looking:
    """subject: in the health."""

    def __init__(self, subject: str, server: Server, entities: Entities, health: Health) -> None:
        self._subject = subject
        self._server = server
        self._entities = entities
        self._health = health

    async def absent(self, stream: Stream, rows: list[Waiting]) -> list[Waiting]:
        """Those of them that are to be sent: what may be there was looked for, and what is there is settled.

        Raises AwayError, FailedError, RefusedError.
        """
        for one in rows:  # sensorthings.py, 5: only what this process has not sent itself is cleared by those before it
            if not one.sent and stream.absent.get(one.lane, 0) >= CERTAIN:
                one.maybe_there = False
        looked = [one for one in rows if one.maybe_there]
        if not looked:
            return rows
        there = await self.there(stream, looked)
        found = set(map(id, there))
        for one in looked:
            is_there = id(one) in found
            if is_there:
                one.under_way.settle()
                stream.behind -= one.is_behind
            else:
                one.maybe_there, one.looked = False, True
            if not one.sent and one.lane != NO_LANE:
                stream.absent[one.lane] = 0 if is_there else stream.absent.get(one.lane, 0) + 1
        if there:
            self._health.count(self._subject, "observations that were there already", len(there))
        return [one for one in rows if id(one) not in found]

    async def there(self, stream: Stream, rows: list[Waiting]) -> list[Waiting]:
        """Those of them that the platform has."""
        if not rows:
            return []
        identifier = await self._entities.datastream(stream.board, stream.channel)
        path = f"Datastreams({in_path(identifier)})/Observations"
        wanted = {one.observation.identity for one in rows}
        found: set[tuple[int, str, int]] = set()
        try:
            for first_ms, last_ms in _windows(rows):
                window = f"phenomenonTime ge {rfc3339(first_ms)} and phenomenonTime le {rfc3339(last_ms)}"
                async for page in self._server.pages(path, filter=window, select="phenomenonTime,parameters"):
                    known = (identity_in(one.get("parameters")) for one in page)
                    found |= {one for one in known if one in wanted}
                    if len(found) == len(wanted):
                        return rows
        except AwayError as why:
            self._forget_if_gone(stream, why)
            raise
        return [one for one in rows if one.observation.identity in found]

    async def exists(self, stream: Stream) -> bool:
        """Whether the server has our Datastream; else it is looked for anew before anything is judged."""
        identifier = await self._entities.datastream(stream.board, stream.channel)
        try:
            await self._server.get(f"Datastreams({in_path(identifier)})", select="@iot.id")
        except AwayError as why:
            self._forget_if_gone(stream, why)
            raise
        return True

    def _forget_if_gone(self, stream: Stream, why: AwayError) -> None:
        if why.is_gone:
            self._entities.forget(stream.board, stream.channel)


def _windows(rows: list[Waiting]) -> list[tuple[int, int]]:
    """From when to when it is looked, UTC in milliseconds."""
    found: list[tuple[int, int]] = []
    for one in sorted((row.observation for row in rows), key=lambda observation: observation.at_ms):
        # The board's own time is signed: it never changes. Ours may be another one in the next process.
        around_ms = LOOK_AROUND_MS + (min(one.within_ms, MAX_AROUND_MS) if one.clock == DATED else 0)
        # A board may claim the last millisecond of the year 9999: what is asked for must be a time.
        first_ms, last_ms = one.at_ms - around_ms, min(one.at_ms + around_ms, MAX_UTC_MS)
        if found and first_ms - found[-1][1] <= LOOK_APART_MS:
            found[-1] = min(found[-1][0], first_ms), max(found[-1][1], last_ms)
        else:
            found.append((first_ms, last_ms))
    return found
