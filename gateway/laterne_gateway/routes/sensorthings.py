"""The route to an OGC SensorThings 1.1 server (18-088) over HTTP, as observations in DataArrays.

SensorThings knows no repetition: what is sent twice is stored twice, unless somebody has told the database otherwise.
So nothing is sent again before it was looked whether it is there. What may have happened to a request, and then:

1. 201, and for each row a link: it is there. With level "stored" it is read back all the same.
2. 201, and an error for some rows, or a refusal of the whole (4xx): what was stored of it is not known (one server
   stores none of a Datastream's rows when one is bad; another rolls all back). It is looked; the rest goes again in
   halves until the one row is alone, which then goes singly. A refusal of a single row that was looked for and is not
   there is about that row: it is a dead letter, and the others go on.
3. 5xx: as 2, but a single row is taken for the cause only when it has failed FAILS times over FAILS_FOR_S, and others
   were written in between. Else it is the server, and nothing is given up.
4. No connection, no answer in time, half an answer, 429, 503, wrong credentials: nobody is at fault here. All wait, one
   request at a time tries again with backoff, and what was under way is looked for first.
5. This process is killed. What it had sent and its lanes do not say yet is among the reports that wait at the next
   start. Those are looked for, per Datastream and lane in their order, until CERTAIN in a row were not there: rows go
   in that order, and 4 and 2 leave fewer of them ahead of others.

An observation is recognised by (board, sequence, digest, position), which it bears, not by its time: servers cut times
(facts/urban_platform.md, 8: milliseconds are stored, and not given back), and a report that is dated by dates.py may be
dated otherwise by the next process.
"""

import asyncio
import logging
import ssl

from laterne_gateway.backoff import Backoff
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Lane
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.config import GatewaySettings
from laterne_gateway.dates import Dates
from laterne_gateway.dead_letters import DeadLetter, DeadLetters
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.route_settings import SENSORTHINGS, SensorThingsSettings
from laterne_gateway.routes.beside import Beside
from laterne_gateway.routes.feed import Feed, UnderWay, put
from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.route import STORED
from laterne_gateway.routes.sta_entities import Entities, Identifier
from laterne_gateway.routes.sta_names import COMPONENTS, identity_in, row_of
from laterne_gateway.routes.sta_queues import Parts, Queues, Stream, Waiting
from laterne_gateway.routes.sta_server import AwayError, FailedError, Json, RefusedError, Server, in_path

log = logging.getLogger("laterne")

BASE_S, CAP_S, STABLE_S = 1.0, 300.0, 60.0
FAILS, FAILS_FOR_S = 8, 600.0  # a row on which the server fails so often, so long, while it stores others
CERTAIN = 200  # rows: two full requests
LOOK_AROUND_MS = 1000  # servers cut milliseconds off
NO_LANE = -1  # what is beside lanes


class SensorThingsRoute:
    kind = SENSORTHINGS

    def __init__(
        self,
        gateway: GatewaySettings,
        settings: SensorThingsSettings,
        buffer: Buffer,
        roster: RosterKeeper,
        clock: Clock,
        health: Health,
        dates: Dates,
    ) -> None:
        self.name = settings.name
        self.level = settings.level
        self._settings = settings
        self._buffer = buffer
        self._clock = clock
        self._health = health
        self._dates = dates
        self._subject = f"route {settings.name}"
        self._server = Server(settings)
        prefix = f"{gateway.tenant}/" if settings.prefix is None else settings.prefix
        self._entities = Entities(self._subject, gateway, prefix, self._server, roster, health)
        self._dead = DeadLetters(settings.name, buffer, clock)
        self._queues = Queues(settings.rows)
        self._news = asyncio.Event()
        self._pace = Pace(settings.backlog_a_second, clock)
        self._feeds: dict[int, Feed] = {}
        self._feeding: asyncio.TaskGroup | None = None
        self._doubtful_to = buffer.last_id  # reports of a former process, which may have sent them
        self._backoff = Backoff(BASE_S, CAP_S, floor_s=BASE_S / 5, stable_s=STABLE_S)
        # The first observation at a place makes the server make a FeatureOfInterest, and one server makes two when two
        # come together, and after that fails with every observation there.
        self._first_at_place = asyncio.Lock()
        self._places: set[str] = set()
        self._away = True  # until something has gone well
        self._again_s = 0.0
        self._under_way = 0
        self._written = 0
        self._well_since_s = clock.monotonic_s()

    async def run(self) -> None:
        while True:
            try:
                async with self._server.connected():
                    await self._deliver()
            except (OSError, ssl.SSLError, UnicodeDecodeError, ValueError) as why:
                self._health.alarm(
                    self._subject, "files", f"secret_file or ca_file: {why}: correct the path, or the file's rights"
                )
                await asyncio.sleep(self._backoff.failed())

    async def _deliver(self) -> None:
        self._health.clear(self._subject, "files")
        async with asyncio.TaskGroup() as group:
            self._feeding = group
            self._begin()
            for _ in range(self._settings.parallel):
                group.create_task(self._work())
            group.create_task(self._probe())
            beside = Beside(
                self.name, self._post_beside, self._buffer, self._dates, self._dead, self._clock, self._health
            )
            group.create_task(beside.tell_gaps())
            group.create_task(beside.send_dead_letters())

    # --- what is to be sent -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """At the start, and when the platform is back: what has piled up becomes a backlog, behind what is live."""
        assert self._feeding is not None
        *backlog, live = self._buffer.part(self.name)
        for lane in backlog:
            former = self._feeds.get(lane.begins)
            if former is None:
                self._feed(lane, self._pace)
            elif former.lane.upto is None:
                former.end_at(lane, self._pace)
                self._queues.make_late(lane.begins)
        if live.begins not in self._feeds:
            self._feed(live, None)

    def _feed(self, lane: Lane, pace: Pace | None) -> None:
        assert self._feeding is not None
        feed = self._feeds[lane.begins] = Feed(
            self._subject, lane, self._post, pace, self._buffer, self._dates, self._dead, self._clock, self._health
        )
        self._feeding.create_task(self._run_feed(feed))

    async def _run_feed(self, feed: Feed) -> None:
        await feed.run()
        self._feeds.pop(feed.lane.begins, None)
        log.info("%s: what an outage had left behind is delivered", self._subject)

    async def _post(self, observations: list[Observation], under_way: UnderWay, feed: Feed) -> None:
        doubtful = under_way.id <= self._doubtful_to
        for one in observations:
            waiting = Waiting(one, under_way, feed.lane.begins, doubtful)
            self._queues.add(waiting, live=feed.lane.upto is None)
        self._news.set()

    async def _post_beside(
        self, observations: list[Observation], under_way: UnderWay, letter: DeadLetter | None
    ) -> None:
        # A former process, or this one, may have sent them.
        for one in observations:
            self._queues.add(Waiting(one, under_way, NO_LANE, True, letter=letter), live=letter is None)
        self._news.set()

    async def _probe(self) -> None:
        """Says at the start what is wrong with the settings, also when nothing is to be sent."""
        try:
            if not await self._server.probe():
                self._health.alarm(self._subject, "data-array", "the platform does not say that it takes DataArrays")
            self._note_well()
        except AwayError as why:
            self._note_away(why)
        except (FailedError, RefusedError) as why:
            self._note_away(AwayError(str(why)))
        self._news.set()

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            parts = await self._next()
            self._under_way += 1
            try:
                await self._send(parts)
            finally:
                self._under_way -= 1
                for stream in parts:
                    stream.busy = False
                self._news.set()

    async def _next(self) -> Parts:
        while True:
            self._news.clear()
            now_s = self._clock.monotonic_s()
            wake_s: float | None = None
            if self._away and (self._under_way or now_s < self._again_s):
                wake_s = None if self._under_way else self._again_s
            else:
                parts = self._queues.take(now_s)
                if parts is not None:
                    return parts
                wake_s = self._queues.next_s(now_s)
            try:
                async with asyncio.timeout(None if wake_s is None else max(0.0, wake_s - now_s)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _send(self, parts: Parts) -> None:
        """Each of these is with the platform afterwards, a dead letter, or in its queue again."""
        is_about_rows = False
        try:
            for stream, rows in parts.items():
                rows[:] = await self._without_what_is_there(stream, rows)
            is_about_rows = True
            places = {self._entities.place(stream.board) for stream, rows in parts.items() if rows}
            if places <= self._places:
                await self._send_absent(parts)
            else:
                async with self._first_at_place:
                    await self._send_absent(parts)
                self._places |= places
            self._note_well()
        except AwayError as why:
            self._note_away(why)
        except FailedError as why:
            self._note_trouble(parts, f"fails: {why}", is_about_rows=is_about_rows)
        except RefusedError as why:
            # Not one of a row: those are caught where they are about one. Reading or making an entity was refused.
            self._note_trouble(parts, f"refuses: {why}", is_about_rows=False)
        finally:
            for stream, rows in parts.items():
                for live in (True, False):  # what was live may have become a backlog meanwhile
                    self._queues.put_back(stream, [one for one in rows if self._is_live(one) is live], live=live)

    def _is_live(self, row: Waiting) -> bool:
        feed = self._feeds.get(row.lane)
        return feed is not None and feed.lane.upto is None

    async def _send_absent(self, parts: Parts) -> None:
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
            if self.level == STORED:
                good = await self._there(stream, good)
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
            if not isinstance(answer, list) or len(answer) != 1 or not _is_link(answer[0]):
                # It says that it is wrong, and not why. The same once more, in the way that tells.
                content = dict(zip(COMPONENTS, group["dataArray"][0], strict=True))
                await self._server.post("Observations", content | {"Datastream": group["Datastream"]})
        except RefusedError as why:
            if looked and await self._exists(stream):
                await self._bury(stream, waiting, f"refused: {why}", parts)
            return
        except FailedError as why:
            if await self._exists(stream) and self._is_at_fault(waiting):
                await self._bury(stream, waiting, f"the server fails on it: {why}", parts)
                return
            # Its turn comes after the others': they tell whether it is the row or the server.
            self._health.count(self._subject, "single rows on which the server failed")
            parts[stream].remove(waiting)
            self._queues.add(waiting, live=self._is_live(waiting))
            raise
        good = [waiting] if self.level != STORED else await self._there(stream, [waiting])
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

    async def _exists(self, stream: Stream) -> bool:
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

    async def _bury(self, stream: Stream, waiting: Waiting, reason: str, parts: Parts) -> None:
        one = waiting.observation
        letter = waiting.letter or DeadLetter(one.board, one.sequence, one.place, reason, one.to_json())
        letter = DeadLetter(letter.board, letter.sequence, letter.place, reason, letter.body, id=letter.id)
        if await put(self._dead, letter, self._subject, self._health):
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
            self._health.clear(self._subject, "failing")
            self._health.count(self._subject, "observations delivered", len(good))

    # --- looking ----------------------------------------------------------------------------------------------------

    async def _without_what_is_there(self, stream: Stream, rows: list[Waiting]) -> list[Waiting]:
        for one in rows:  # 5: only what this process has not sent itself is cleared by those before it
            if not one.sent and stream.absent.get(one.lane, 0) >= CERTAIN:
                one.maybe_there = False
        looked = [one for one in rows if one.maybe_there]
        if not looked:
            return rows
        there = await self._there(stream, looked)
        found = set(map(id, there))
        for one in looked:
            is_there = id(one) in found
            if is_there:
                one.under_way.settle()
            else:
                one.maybe_there, one.looked = False, True
            if not one.sent and one.lane != NO_LANE:
                stream.absent[one.lane] = 0 if is_there else stream.absent.get(one.lane, 0) + 1
        if there:
            self._health.count(self._subject, "observations that were there already", len(there))
        return [one for one in rows if id(one) not in found]

    async def _there(self, stream: Stream, rows: list[Waiting]) -> list[Waiting]:
        """Those of them that the platform has."""
        if not rows:
            return []
        identifier = await self._entities.datastream(stream.board, stream.channel)
        times = [one.observation.at_ms for one in rows]
        around_ms = LOOK_AROUND_MS + max(one.observation.within_ms for one in rows)
        window = (
            f"phenomenonTime ge {rfc3339(min(times) - around_ms)} and "
            f"phenomenonTime le {rfc3339(max(times) + around_ms)}"
        )
        path = f"Datastreams({in_path(identifier)})/Observations"
        try:
            found = await self._server.all(path, filter=window, select="phenomenonTime,parameters")
        except AwayError as why:
            self._forget_if_gone(stream, why)
            raise
        known = {identity_in(one.get("parameters")) for one in found}
        return [one for one in rows if one.observation.identity in known]

    # --- how it goes ------------------------------------------------------------------------------------------------

    def _note_well(self) -> None:
        if not self._away:
            return
        self._away = False
        self._well_since_s = self._clock.monotonic_s()
        self._health.note(self._subject, "connected", True)
        self._health.clear(self._subject, "platform", "the platform takes observations again")
        self._begin()

    def _note_away(self, why: AwayError) -> None:
        now_s = self._clock.monotonic_s()
        self._health.count(self._subject, "requests failed")
        if self._away and now_s < self._again_s:
            return  # another of those that were under way together
        lasted_s = 0.0 if self._away else now_s - self._well_since_s
        self._away = True
        self._again_s = now_s + max(self._backoff.failed(lasted_s), why.after_s)
        self._health.note(self._subject, "connected", False)
        self._health.alarm(
            self._subject,
            "platform",
            f"{self._settings.url} cannot be used: {why}; reports are kept and it is tried again",
        )

    def _note_trouble(self, parts: Parts, sentence: str, *, is_about_rows: bool) -> None:
        now_s = self._clock.monotonic_s()
        for stream, rows in parts.items():
            if is_about_rows:
                self._queues.in_trouble(stream, len(rows), now_s)
            else:
                self._queues.rest(stream, now_s)
        self._health.count(self._subject, "requests failed")
        self._health.alarm(
            self._subject,
            "failing",
            f"{self._settings.url} {sentence}; reports are kept and it is tried again",
        )


def _is_link(item: Json) -> bool:
    return isinstance(item, str) and "Observations(" in item and not item.lower().startswith("error")
