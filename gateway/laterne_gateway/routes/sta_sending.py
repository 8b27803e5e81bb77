"""A request with observations, and what its answer means for each row (the cases are those of sensorthings.py, 1 to 3).

Whatever is not settled when this returns or raises stays in `parts`, and goes back to its queue.
"""

from collections.abc import Callable

from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.routes.route import STORED
from laterne_gateway.routes.source import Source
from laterne_gateway.routes.sta_entities import Entities
from laterne_gateway.routes.sta_looking import Looking
from laterne_gateway.routes.sta_names import COMPONENTS, row_of
from laterne_gateway.routes.sta_once import Identifier
from laterne_gateway.routes.sta_queues import Parts, Queues, Stream, Waiting
from laterne_gateway.routes.sta_server import AwayError, FailedError, Json, RefusedError, Server

FAILS, FAILS_FOR_S = 8, 600.0  # a row on which the server fails so often, so long, while it stores others


class Sending:
    """level: when a row is taken for delivered (routes/route.py). is_live: whether a row is of what arrives now."""

    def __init__(
        self,
        source: Source,
        level: str,
        server: Server,
        entities: Entities,
        looking: Looking,
        queues: Queues,
        is_live: Callable[[Waiting], bool],
    ) -> None:
        self._source = source
        self._subject = source.subject
        self._level = level
        self._server = server
        self._entities = entities
        self._looking = looking
        self._queues = queues
        self._is_live = is_live
        self._clock = source.clock
        self._health = source.health
        self._written = 0

    async def send(self, parts: Parts) -> None:
        """Sends what was looked for and is not there. Raises AwayError, FailedError, RefusedError."""
        sent = {stream: list(rows) for stream, rows in parts.items() if rows}
        if not sent:
            return
        (first, rows), *others = sent.items()
        if not others and len(rows) == 1 and first.limit == 1:
            await self._send_single(first, rows[0], parts)
            return
        body = [await self._group(stream, rows) for stream, rows in sent.items()]
        for waiting in [one for rows in sent.values() for one in rows]:
            waiting.maybe_there, waiting.sent, waiting.looked = True, True, False
        try:
            _, answer = await self._server.post("CreateObservations", body)
        except RefusedError as why:
            self._health.count(self._subject, f"requests refused: {why.status}")
            for stream, rows in sent.items():
                self._queues.halve(stream, len(rows))
            return
        count = sum(len(rows) for rows in sent.values())
        if not isinstance(answer, list) or len(answer) != count:
            raise AwayError(f"CreateObservations: the answer has not {count} items: is it a SensorThings server?")
        at = 0
        for stream, rows in sent.items():
            items, at = answer[at : at + len(rows)], at + len(rows)
            good = [one for one, item in zip(rows, items, strict=True) if _is_link(item)]
            if len(good) < len(rows):
                self._health.count(self._subject, "rows answered with an error", len(rows) - len(good))
            if self._level == STORED:
                good = await self._looking.there(stream, good)
            self._settle(stream, good, parts)
            if parts[stream]:
                self._queues.halve(stream, len(rows))
            else:
                self._queues.went_well(stream)

    async def _send_single(self, stream: Stream, waiting: Waiting, parts: Parts) -> None:
        group = await self._group(stream, [waiting])
        looked = waiting.looked
        waiting.maybe_there, waiting.sent, waiting.looked = True, True, False
        try:
            # In a DataArray, too: one server cuts the milliseconds off what comes otherwise.
            _, answer = await self._server.post("CreateObservations", [group])
            is_good = isinstance(answer, list) and len(answer) == 1 and _is_link(answer[0])
            if not is_good and not await self._looking.there(stream, [waiting]):
                # It says that it is wrong, and not why. The same once more, in the way that tells.
                content = dict(zip(COMPONENTS, group["dataArray"][0], strict=True))
                await self._server.post("Observations", content | {"Datastream": group["Datastream"]})
        except RefusedError as why:
            if looked and await self._looking.exists(stream):
                await self._give_up(stream, waiting, f"refused: {why}", parts)
            return
        except FailedError as why:
            if await self._entities.part_features(stream.board):
                raise  # it was that, and goes again
            if await self._looking.exists(stream) and self._is_at_fault(waiting):
                await self._give_up(stream, waiting, f"the server fails on it: {why}", parts)
                return
            # Its turn comes after the others': they tell whether it is the row or the server.
            self._health.count(self._subject, "single rows on which the server failed")
            parts[stream].remove(waiting)
            self._queues.add(waiting, live=self._is_live(waiting))
            raise
        good = [waiting] if self._level != STORED else await self._looking.there(stream, [waiting])
        self._settle(stream, good, parts)
        if good:
            self._queues.went_well(stream)
        else:
            self._queues.in_trouble(stream, 1, self._clock.monotonic_s())

    def _is_at_fault(self, waiting: Waiting) -> bool:
        now_s = self._clock.monotonic_s()
        if not waiting.tries:
            waiting.first_try_s = now_s
        if not waiting.tries or self._written > waiting.written_then:
            waiting.tries += 1
            waiting.written_then = self._written
        return waiting.tries >= FAILS and now_s - waiting.first_try_s >= FAILS_FOR_S

    async def _give_up(self, stream: Stream, waiting: Waiting, reason: str, parts: Parts) -> None:
        # It may be there for all that: a proxy has passed it on twice, and the second one was refused.
        if await self._looking.there(stream, [waiting]):
            self._settle(stream, [waiting], parts)
            self._queues.went_well(stream)
            return
        one = waiting.observation
        letter = waiting.letter or DeadLetter(one.board, one.sequence, one.place, reason, one.to_json())
        letter = DeadLetter(letter.board, letter.sequence, letter.place, reason, letter.body, id=letter.id)
        if await self._source.bury(letter):
            parts[stream].remove(waiting)
            waiting.under_way.refused = True
            waiting.under_way.settle()
            self._queues.went_well(stream)
        else:
            self._queues.in_trouble(stream, 1, self._clock.monotonic_s())

    async def _group(self, stream: Stream, rows: list[Waiting]) -> dict[str, Json]:
        """A Datastream's part of a DataArray (18-088, 13.2.1)."""
        identifier: Identifier = await self._entities.datastream(stream.board, stream.channel)
        return {
            "Datastream": {"@iot.id": identifier},
            "components": COMPONENTS,
            "dataArray@iot.count": len(rows),
            "dataArray": [row_of(waiting.observation) for waiting in rows],
        }

    def _settle(self, stream: Stream, good: list[Waiting], parts: Parts) -> None:
        for waiting in good:
            waiting.under_way.settle()
        if good:
            settled = set(map(id, good))
            parts[stream] = [one for one in parts[stream] if id(one) not in settled]
            self._written += len(good)
            self._health.count(self._subject, "observations delivered", len(good))


def _is_link(item: Json) -> bool:
    return isinstance(item, str) and "Observations(" in item and not item.lower().startswith("error")
