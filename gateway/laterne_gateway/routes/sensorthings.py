"""The route to an OGC SensorThings 1.1 server (18-088) over HTTP, as observations in DataArrays.

SensorThings knows no repetition: what is sent twice is stored twice, unless somebody has told the database otherwise.
So nothing is sent again before it was looked whether it is there. What may have happened to a request, and then:

1. 201, and for each row a link: it is there. With level "stored" it is read back all the same.
2. 201, and an error for some rows, or a refusal of the whole (4xx): what was stored of it is not known (one server
   stores none of a Datastream's rows when one is bad; another rolls all back). It is looked; the rest goes again in
   halves until the one row is alone, which then goes singly. A single row that was looked for, is not there, and is
   refused is a dead letter if it is told that it is the row and not the server (blame.py); else it rests, behind the
   others of its Datastream, and goes again. When SINGLES of a Datastream were refused one after the other, all that a
   report has of it goes with the next one, as one dead letter: a report may have 800.
3. 5xx: as 2, but a single row is taken for the cause only when that has gone on for FAILS_FOR_S, too. So it is with a
   Datastream that the server does not let us make or read: then all that a report has of it is.
4. No connection, no answer in time, half an answer, 429, 503, wrong credentials: nobody is at fault here. All wait, one
   request at a time tries again with backoff, and what was under way is looked for first.
5. This process is killed. What it had sent and its lanes do not say yet is among the reports that wait at the next
   start. Those are looked for, per Datastream and lane in their order, until CERTAIN in a row were not there: rows go
   in that order, and 4 leaves fewer of them ahead of others, 2 and 3 no more than MAX_BEHIND.

This module decides what goes when: lanes become queues (sta_queues.py), workers look for what may be there
(sta_looking.py) and send the rest (sta_sending.py), and what fails is waited for.
"""

import asyncio
import logging
import ssl

from laterne_gateway.backoff import Backoff
from laterne_gateway.buffered import Lane
from laterne_gateway.dead_letters import DeadLetter
from laterne_gateway.route_settings import SENSORTHINGS, SensorThingsSettings
from laterne_gateway.routes.beside import Beside
from laterne_gateway.routes.feed import LEFT_BEHIND, Feed, UnderWay
from laterne_gateway.routes.observations import Observation
from laterne_gateway.routes.pace import Pace
from laterne_gateway.routes.source import Source
from laterne_gateway.routes.sta_entities import Entities
from laterne_gateway.routes.sta_looking import NO_LANE, Looking
from laterne_gateway.routes.sta_queues import Parts, Queues, Stream, Waiting
from laterne_gateway.routes.sta_sending import Sending
from laterne_gateway.routes.sta_server import AwayError, FailedError, RefusedError, Server
from laterne_gateway.routes.tls import pause_s

log = logging.getLogger("laterne")

BASE_S, CAP_S, STABLE_S = 1.0, 300.0, 60.0


class SensorThingsRoute:
    kind = SENSORTHINGS

    def __init__(self, settings: SensorThingsSettings, source: Source) -> None:
        self.name = settings.name
        self.level = settings.level
        self._settings = settings
        self._source = source
        self._subject = source.subject
        self._buffer = source.buffer
        self._clock = source.clock
        self._health = source.health
        self._server = Server(settings)
        self._entities = Entities(
            source.subject, source.gateway, source.prefix, self._server, source.roster, source.health
        )
        self._queues = Queues(settings.rows)
        self._looking = Looking(source.subject, self._server, self._entities, source.health)
        self._sending = Sending(
            source, self.level, self._server, self._entities, self._looking, self._queues, self._is_live
        )
        self._news = asyncio.Event()
        self._pace = Pace(settings.backlog_a_second, source.clock)
        self._feeds: dict[int, Feed] = {}
        self._feeding: asyncio.TaskGroup | None = None
        self._doubtful_to = source.buffer.last_id  # reports of a former process, which may have sent them
        self._backoff = Backoff(BASE_S, CAP_S, floor_s=BASE_S / 5, stable_s=STABLE_S)
        # One at a time: else one server makes two features of the place (sta_entities.py, part_features).
        self._first_at_place = asyncio.Lock()
        self._places: set[str] = set()
        self._away = True  # until something has gone well
        self._probed = False
        self._again_s = 0.0
        self._under_way = 0
        self._well_since_s = source.clock.monotonic_s()

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
            beside = Beside(self._source, self._post_beside)
            group.create_task(beside.tell_gaps())
            group.create_task(beside.send_dead_letters())

    # --- what is to be sent -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """At the start, and when the platform is back: what has piled up becomes a backlog, behind what is live."""
        assert self._feeding is not None
        *backlog, live = self._buffer.part(self.name, LEFT_BEHIND)
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
        feed = self._feeds[lane.begins] = Feed(self._source, lane, self._post, pace)
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
        """Says what is wrong with the settings, or that the platform is back, also when nothing is to be sent."""
        self._probed = True
        try:
            if not await self._server.probe():
                self._health.alarm(self._subject, "data-array", "the platform does not say that it takes DataArrays")
            self._note_well()
        except AwayError as why:
            self._note_away(why)
        except (FailedError, RefusedError) as why:
            self._note_away(AwayError(str(why)))

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            parts = await self._next()
            self._under_way += 1
            try:
                if parts is None:
                    await self._probe()
                else:
                    await self._send(parts)
            finally:
                self._under_way -= 1
                for stream in parts or ():
                    stream.busy = False
                self._news.set()

    async def _next(self) -> Parts | None:
        """Waits until something may be sent; None: it is to be looked whether the platform can be used."""
        while True:
            self._news.clear()
            now_s = self._clock.monotonic_s()
            wake_s: float | None = None
            if self._away and (self._under_way or now_s < self._again_s):
                wake_s = None if self._under_way else self._again_s
            else:
                parts = self._queues.take(now_s) if self._probed else None
                if parts is not None or self._away:
                    return parts
                wake_s = self._queues.next_s(now_s)
            try:
                async with asyncio.timeout(None if wake_s is None else max(0.0, wake_s - now_s)):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _send(self, parts: Parts) -> None:
        """Each of these is with the platform afterwards, a dead letter, or in its queue again."""
        asked: Stream | None = None
        try:
            for asked in parts:
                parts[asked] = await self._looking.absent(asked, parts[asked])
                await self._entities.datastream(asked.board, asked.channel)
            asked = None
            places = {self._entities.place(stream.board) for stream, rows in parts.items() if rows}
            if places <= self._places:
                went_well = await self._sending.send(parts)
            else:
                async with self._first_at_place:
                    went_well = await self._sending.send(parts)
                self._places |= places
            if went_well:
                self._note_well()
        except AwayError as why:
            self._note_away(why)
        except (FailedError, RefusedError) as why:
            # A refusal here is not one of a row: those are caught where they are about one.
            self._note_trouble(f"{'fails' if isinstance(why, FailedError) else 'refuses'}: {why}")
            if asked is not None:  # it alone: the others go without it
                await self._sending.cannot_be_used(asked, parts[asked], why, parts)
                return
            for stream, rows in parts.items():
                if isinstance(why, FailedError):
                    self._queues.in_trouble(stream, len(rows), self._clock.monotonic_s())
                else:
                    self._queues.rest(stream, self._clock.monotonic_s())
        finally:
            for stream, rows in parts.items():
                for live in (True, False):  # what was live may have become a backlog meanwhile
                    self._queues.put_back(stream, [one for one in rows if self._is_live(one) is live], live=live)

    def _is_live(self, row: Waiting) -> bool:
        feed = self._feeds.get(row.lane)
        return feed is not None and feed.lane.upto is None

    # --- how it goes ------------------------------------------------------------------------------------------------

    def _note_well(self) -> None:
        self._health.clear(self._subject, "failing")
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
        self._again_s = now_s + pause_s(why, max(self._backoff.failed(lasted_s), why.after_s), self._clock.utc_ms())
        self._health.note(self._subject, "connected", False)
        self._health.alarm(
            self._subject,
            "platform",
            f"{self._settings.url} cannot be used: {why}; reports are kept and it is tried again",
        )

    def _note_trouble(self, sentence: str) -> None:
        self._health.count(self._subject, "requests failed")
        self._health.alarm(
            self._subject,
            "failing",
            f"{self._settings.url} {sentence}; reports are kept and it is tried again",
        )
