"""A request with observations, and what its answer means for each row (the cases are those of sensorthings.py, 1 to 3).

Whatever is not settled when this returns or raises stays in `parts`, and goes back to its queue.

A row is given up only when it is told that it is the row and not the server (blame.py).
"""

from collections.abc import Callable

from laterne_gateway.dead_letters import WHOLE_REPORT, DeadLetter
from laterne_gateway.routes.blame import NEVER, Blame
from laterne_gateway.routes.route import STORED
from laterne_gateway.routes.source import Source
from laterne_gateway.routes.sta_entities import Entities
from laterne_gateway.routes.sta_looking import NO_LANE, Looking
from laterne_gateway.routes.sta_names import COMPONENTS, row_of
from laterne_gateway.routes.sta_once import Identifier
from laterne_gateway.routes.sta_queues import MAX_BEHIND, SINGLES, Parts, Queues, Stream, Waiting
from laterne_gateway.routes.sta_server import AwayError, FailedError, Json, RefusedError, Server

FAILS_FOR_S = 600.0  # a row on which the server fails for so long, while it takes others


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
        self._blame = Blame(source.subject, source.clock, source.health)

    async def send(self, parts: Parts) -> bool:
        """Sends what was looked for and is not there. Whether the server has taken some, or there was nothing to send.

        Raises AwayError, FailedError, RefusedError.
        """
        sent = {stream: list(rows) for stream, rows in parts.items() if rows}
        if not sent:
            return True
        (first, rows), *others = sent.items()
        if not others and len(rows) == 1 and first.limit == 1:
            return await self._send_single(first, rows[0], parts)
        body = [await self._group(stream, rows) for stream, rows in sent.items()]
        for waiting in [one for rows in sent.values() for one in rows]:
            waiting.maybe_there, waiting.sent, waiting.looked = True, True, False
        number = self._blame.begin()
        try:
            _, answer = await self._server.post("CreateObservations", body)
        except RefusedError as why:
            self._health.count(self._subject, f"requests refused: {why.status}")
            for stream, rows in sent.items():
                self._doubt(rows)
                self._queues.halve(stream, len(rows))
            return False
        count = sum(len(rows) for rows in sent.values())
        if not isinstance(answer, list) or len(answer) != count:
            raise AwayError(f"CreateObservations: the answer has not {count} items: is it a SensorThings server?")
        at, is_taken = 0, False
        for stream, rows in sent.items():
            items, at = answer[at : at + len(rows)], at + len(rows)
            good = [one for one, item in zip(rows, items, strict=True) if _is_link(item)]
            if len(good) < len(rows):
                self._health.count(self._subject, "rows answered with an error", len(rows) - len(good))
                self._doubt([one for one, item in zip(rows, items, strict=True) if not _is_link(item)])
            if self._level == STORED:
                good = await self._looking.there(stream, good)
            self._settle(stream, good, parts, number)
            is_taken = is_taken or bool(good)
            if parts[stream]:
                self._queues.halve(stream, len(rows))
            else:
                self._queues.went_well(stream)
        return is_taken

    async def _send_single(self, stream: Stream, waiting: Waiting, parts: Parts) -> bool:
        group = await self._group(stream, [waiting])
        looked = waiting.looked
        waiting.maybe_there, waiting.sent, waiting.looked = True, True, False
        number = self._blame.begin()
        try:
            # In a DataArray, too: one server cuts the milliseconds off what comes otherwise.
            _, answer = await self._server.post("CreateObservations", [group])
            is_good = isinstance(answer, list) and len(answer) == 1 and _is_link(answer[0])
            if not is_good and not await self._looking.there(stream, [waiting]):
                # It says that it is wrong, and not why. The same once more, in the way that tells.
                content = dict(zip(COMPONENTS, group["dataArray"][0], strict=True))
                await self._server.post("Observations", content | {"Datastream": group["Datastream"]})
        except RefusedError as why:
            self._doubt([waiting])
            if not looked or not await self._looking.exists(stream):
                return False
            if waiting.letter is None and not self._is_to_blame(waiting, 0.0):
                self._hold(stream, waiting, parts, why)
            else:
                await self._judge(stream, waiting, f"refused: {why}", parts)
            return False
        except FailedError as why:
            if await self._entities.part_features(stream.board):
                raise  # it was that, and goes again
            self._doubt([waiting])
            if await self._looking.exists(stream) and self._is_to_blame(waiting, self._patience_s(stream)):
                await self._judge(stream, waiting, f"the server fails on it: {why}", parts)
                return False
            self._health.count(self._subject, "single rows on which the server failed")
            self._let_others_go_first(stream, waiting, parts)
            raise
        good = [waiting] if self._level != STORED else await self._looking.there(stream, [waiting])
        self._settle(stream, good, parts, number)
        if good:
            self._queues.went_well(stream)
        else:
            self._queues.in_trouble(stream, 1, self._clock.monotonic_s())
        return bool(good)

    async def cannot_be_used(self, stream: Stream, rows: list[Waiting], why: Exception, parts: Parts) -> None:
        """The server refuses the Datastream itself, or fails when it is made or read: of none of its rows it is known.

        As with rows: it rests, and when that goes on while others are taken the reports that have some are given up.
        """
        self._doubt(rows)
        if rows and self._is_to_blame(rows[0], self._patience_s(stream)):
            stream.given_up = max(stream.given_up, SINGLES)
            await self._give_up(stream, rows[0], f"its Datastream cannot be used: {why}", parts)
        self._queues.rest(stream, self._clock.monotonic_s())

    def _doubt(self, rows: list[Waiting]) -> None:
        for one in rows:
            if one.refused_at == NEVER:
                one.refused_at, one.refused_s = self._blame.begun, self._clock.monotonic_s()

    def _is_to_blame(self, waiting: Waiting, patience_s: float) -> bool:
        is_over = self._clock.monotonic_s() - waiting.refused_s >= patience_s
        return self._blame.is_told(waiting.refused_at) and is_over

    def _patience_s(self, stream: Stream) -> float:
        """A server may fail on a row for other reasons than the row; not on all of a Datastream's, one by one."""
        return FAILS_FOR_S if stream.given_up < SINGLES else 0.0

    def _hold(self, stream: Stream, waiting: Waiting, parts: Parts, why: RefusedError) -> None:
        """It waits until it is told. Raises AwayError: it is taken for the server's doing."""
        self._let_others_go_first(stream, waiting, parts)
        self._queues.in_trouble(stream, 1, self._clock.monotonic_s())
        if self._blame.hold(stream.board, str(why)):
            raise AwayError(f"it refuses what several boards say and takes nothing ({why})")

    def _let_others_go_first(self, stream: Stream, waiting: Waiting, parts: Parts) -> None:
        # They tell whether it is the row or the server.
        if not waiting.is_behind:
            if stream.behind >= MAX_BEHIND:
                return
            waiting.is_behind = True
            stream.behind += 1
        parts[stream].remove(waiting)
        self._queues.add(waiting, live=self._is_live(waiting))

    async def _judge(self, stream: Stream, waiting: Waiting, reason: str, parts: Parts) -> None:
        # It may be there for all that: a proxy has passed it on twice, and the second one was refused.
        if await self._looking.there(stream, [waiting]):
            self._settle(stream, [waiting], parts)
            self._queues.went_well(stream)
        else:
            await self._give_up(stream, waiting, reason, parts)

    async def _give_up(self, stream: Stream, waiting: Waiting, reason: str, parts: Parts) -> None:
        """A dead letter; where the last SINGLES of the Datastream were some, all that its report has of that."""
        letter = waiting.letter
        if letter is None and stream.given_up >= SINGLES and waiting.lane != NO_LANE:
            for row in await self._source.buffer.oldest(waiting.under_way.id - 1, 1, waiting.under_way.id):
                letter = DeadLetter(row.board, row.sequence, WHOLE_REPORT, reason, row.body)
        if letter is None:
            meant = waiting.observation
            letter = DeadLetter(meant.board, meant.sequence, meant.place, reason, meant.to_json())
        letter = DeadLetter(letter.board, letter.sequence, letter.place, reason, letter.body, id=letter.id)
        if not await self._source.bury(letter):
            self._queues.in_trouble(stream, 1, self._clock.monotonic_s())
            return
        gone = [waiting]
        if letter.place == WHOLE_REPORT:
            gone = [one for one in parts[stream] if one.under_way is waiting.under_way]
            gone += self._queues.withdraw(stream, waiting.under_way)
        parts[stream] = [one for one in parts[stream] if one not in gone]
        for one in gone:
            one.under_way.refused = True
            one.under_way.settle()
            stream.behind -= one.is_behind
        stream.given_up += 1
        self._queues.went_well(stream)

    async def _group(self, stream: Stream, rows: list[Waiting]) -> dict[str, Json]:
        """A Datastream's part of a DataArray (18-088, 13.2.1)."""
        identifier: Identifier = await self._entities.datastream(stream.board, stream.channel)
        return {
            "Datastream": {"@iot.id": identifier},
            "components": COMPONENTS,
            "dataArray@iot.count": len(rows),
            "dataArray": [row_of(waiting.observation) for waiting in rows],
        }

    def _settle(self, stream: Stream, good: list[Waiting], parts: Parts, number: int = NEVER) -> None:
        """number: of the request that has brought them; NEVER: they were there."""
        for waiting in good:
            waiting.under_way.settle()
            stream.behind -= waiting.is_behind
        if good:
            settled = set(map(id, good))
            parts[stream] = [one for one in parts[stream] if id(one) not in settled]
            stream.given_up = 0
            self._blame.take(number)
            self._health.count(self._subject, "observations delivered", len(good))


def _is_link(item: Json) -> bool:
    return isinstance(item, str) and "Observations(" in item and not item.lower().startswith("error")
