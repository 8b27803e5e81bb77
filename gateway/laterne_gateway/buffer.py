"""The buffer: reports that boards gave us and that not every route has delivered, on disk before acknowledged.

put() returns after the commit that holds the report has been synced; nobody may acknowledge before. One thread owns
the database and commits in groups (writer.py): what arrives while a sync is under way shares the next one. Routes read
from the log in order of arrival and move their lanes; a row goes when no lane has it before it any more (ledger.py).

The agent goes on when the disk is full, fails, is read-only, or has damaged the file: put() raises then, reading waits,
an alarm stands, and it is over by itself when the disk is back. What waits for the disk is on the boards; the
last reports that were committed are kept in memory, too, for routes that keep up. Memory and start-up time
do not depend on how much is waiting: nothing is counted or loaded but chains and lanes.
"""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from laterne_gateway import buffered, drops, ledger, salvage
from laterne_gateway.buffered import FULL, NOT_IN_TURN, STORED, Accepted, Chain, Gap, Lane, Refused, Row
from laterne_gateway.config import BufferSettings
from laterne_gateway.disk_news import Away, Broken, Committed, News, Opened
from laterne_gateway.durations import Durations
from laterne_gateway.health import Health
from laterne_gateway.writer import AGAIN_S, Job, StoreError, Writer

log = logging.getLogger("laterne")

FRESH = 128  # reports, 120 KiB: four groups of commits
LEFT_BEHIND = 500  # more than this waiting when a route begins: they get a lane of their own
LOOKS_AT = 4096  # rows that a look for some boards' reports may pass over, 5 ms
MAX_LANES = 16  # of a route; then it goes on in those it has
HOUR_S = 3600.0
HOURS_A_DAY = 24
SUBJECT = "buffer"


class NotInTurnError(StoreError):
    """Not stored because the report before it was not."""


class Buffer:
    """directory: its lock is held. routes: the names of all that deliver.

    Raises DatabaseError: the database is not ours to use. A disk that fails is waited for: opened().
    """

    def __init__(self, directory: Path, routes: tuple[str, ...], settings: BufferSettings, health: Health) -> None:
        self._directory = directory
        self._settings = settings
        self._health = health
        self._changes: set[asyncio.Event] = set()
        self._is_opened = False
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.commits = 0
        self.commits_s = Durations()
        self.away = ""  # why there is no database now
        self.last_id = self.last_gap_id = 0
        self.lanes: dict[str, list[Lane]] = {route: [] for route in routes}  # oldest first, the one without end last
        self.chains: dict[str, Chain] = {}
        # The last reports that were committed, without a hole: the same as on the disk.
        self._fresh: deque[Row] = deque(maxlen=FRESH)
        self._writer = Writer(directory, routes, settings, self._hear, self._known)

    def use(self, settings: BufferSettings) -> None:
        """Other bounds, from the next commit on."""
        self._settings = settings
        self._writer.use(settings)

    async def opened(self) -> None:
        """Returns when the database has been opened for the first time, or repaired, or its thread has failed."""
        await self._until(lambda: self._is_opened or self._broken.done())

    async def run(self) -> None:
        """Counts the hours for ever. Raises what the thread failed with; that is never an error of the disk."""
        hours = asyncio.create_task(self._count_hours())
        try:
            await asyncio.wait({hours, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            for one in (hours, self._broken):
                if one.done():
                    one.result()
        finally:
            hours.cancel()

    @property
    def turned_s(self) -> float:
        """When the writing thread last came round (time.monotonic): an idle one does, a disk that hangs stops it."""
        return self._writer.turned_s

    def waiting(self, route: str) -> int:
        """Reports that this route has not delivered; some more where they have gone otherwise."""
        return sum(
            max(0, (self.last_id if lane.upto is None else lane.upto) - lane.delivered) for lane in self.lanes[route]
        )

    async def put(self, accepted: Accepted) -> str:
        """Returns when the report is on disk: STORED, or else REPEATED, OTHER, PAST. Raises StoreError."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.put_then(accepted, partial(_set, done))
        return await done

    def put_then(self, accepted: Accepted, then: Callable[[str | StoreError], None]) -> None:
        """As put(): then() is told what put() returns or raises, in the event loop. Raises StoreError: it is closed."""

        def told(outcome: object) -> None:
            then(self._stored(accepted, outcome))

        self._writer.write_then(partial(self._insert, accepted), told)

    def _insert(self, accepted: Accepted, db: sqlite3.Connection, numbers: ledger.Ledger) -> str:
        return ledger.insert(db, numbers, accepted, not self._writer.no_room)

    def _stored(self, accepted: Accepted, outcome: object) -> str | StoreError:
        if isinstance(outcome, StoreError):
            return outcome
        if outcome == NOT_IN_TURN:
            return NotInTurnError("the report before it was not stored")
        if outcome == FULL:
            return StoreError(self._writer.no_room or "the buffer is full")
        # Several of a board's may be under way: the chain is at the last of them. Where there is none, a report was
        # found on disk and its chain was not: ledger.insert() has set it.
        former = self.chains.get(accepted.board)
        moved = (
            outcome == STORED
            and former is not None
            and (former.credential != accepted.credential or former.sequence < accepted.sequence)
        )
        if former is None or moved:
            self.chains[accepted.board] = Chain(accepted.credential, accepted.sequence, accepted.digest)
        return str(outcome)

    async def set_aside(self, refused: Refused) -> None:
        """Returns when it is on disk, and the chain has passed over it if it should. Raises StoreError."""
        outcome = await self._writer.write(lambda db, numbers: ledger.set_aside(db, numbers, refused))
        if outcome == NOT_IN_TURN:
            raise NotInTurnError("the report before it was not stored")
        if refused.passed_over is not None:
            self.chains[refused.board] = Chain(refused.credential, refused.passed_over, None)

    async def keep_file(self, kind: str, version: int, body: bytes) -> None:
        """Keeps a signed file that was found good, instead of the one that had this kind. Raises StoreError."""
        await self._writer.write(
            lambda db, _: db.execute(
                "insert into signed_file values (?, ?, ?) on conflict (kind) do update "
                "set version = excluded.version, body = excluded.body",
                (kind, version, body),
            )
        )

    async def kept_files(self, what: str) -> dict[str, bytes]:
        """The kept ones of which the first word of the kind is this, by kind, in the order of their versions.

        Waits while the disk is away.
        """
        query = "select kind, body from signed_file where kind = ?1 or kind like ?1 || ' %' order by version"
        rows = await self._writer.read(lambda db, _: db.execute(query, (what,)).fetchall())
        return {kind: bytes(body) for kind, body in rows} if isinstance(rows, list) else {}

    async def forget_file(self, kind: str) -> None:
        """What was kept under this kind is of no use any more. Raises StoreError."""
        await self._writer.write(lambda db, _: db.execute("delete from signed_file where kind = ?", (kind,)))

    async def write(self, job: Job) -> object:
        """What the job returned, once its group has been committed. Raises StoreError."""
        return await self._writer.write(job)

    async def read(self, job: Job) -> object:
        """What the job returns; it waits while the disk is away."""
        return await self._writer.read(job)

    async def tallies(self) -> dict[str, int]:
        """Numbers that survive restarts, how many are set aside, gaps not told, bytes in use; {} while it is away."""
        if self.away:
            return {}
        query = (
            f"select name, value from tally where name not glob 'told *' and name not glob '{ledger.LEFT}*' "
            "union all select 'set aside', count(*) from set_aside union all select 'gaps to tell', count(*) from gap "
            "union all select 'dead letters', count(*) from dead_letter "
            "union all select 'reports passed over', coalesce(sum(reports), 0) from passed_over"
        )
        rows = await self._writer.read(lambda db, _: [*db.execute(query), ("bytes", ledger.used_bytes(db))])
        return dict(rows) if isinstance(rows, list) else {}

    async def oldest(self, after_id: int, limit: int, upto: int | None = None) -> list[Row]:
        """The oldest reports with after_id < id <= upto, in order of arrival; all of them are committed. []: none.

        One that the card has changed is set aside, its loss stated, and not among them.
        """
        last = self.last_id if upto is None else upto
        while True:
            rows, after_id = await self.some(after_id, limit, last)
            if rows or after_id >= last:
                return rows

    async def some(
        self, after_id: int, limit: int, upto: int, *, only: str | None = None, without: Collection[str] = ()
    ) -> tuple[list[Row], int]:
        """As oldest(), of one board only, or without these; and up to which id there are no others of them.

        Looks at LOOKS_AT rows at most when it is to pass over some: commits wait meanwhile.
        """
        at = after_id + 1 - self._fresh[0].id if self._fresh else -1
        if at >= 0:  # a route that keeps up needs no look at the disk
            wanted = (
                row
                for row in islice(self._fresh, at, None)
                if row.id <= upto and row.board not in without and (only is None or row.board == only)
            )
            rows = list(islice(wanted, limit))
            if rows:
                return rows, rows[-1].id if len(rows) == limit else upto
        end = min(upto, after_id + LOOKS_AT) if without or only is not None else upto
        query = (
            "select id, board, sequence, received_ms, closed_ms, body, crc from report where id > ? and id <= ? "
            # The plus: in the order of ids, and not by the index of boards, which would have to be sorted.
            + ("" if only is None else "and +board = ? ")
            + (f"and +board not in ({', '.join('?' * len(without))}) " if without else "")
            + "order by id limit ?"
        )
        given = (after_id, end, *(() if only is None else (only,)), *without, limit)
        read = await self._writer.read(lambda db, _: db.execute(query, given).fetchall())
        assert isinstance(read, list)
        found = [(Row._make(one[:6]), one[6]) for one in read]
        for row, crc in found:
            if buffered.crc(row) != crc:
                await self._take_out(row)
        seen = found[-1][0].id if len(found) == limit else end
        return [row for row, crc in found if buffered.crc(row) == crc], seen

    async def _take_out(self, row: Row) -> None:
        self._health.alarm(
            row.board, "card", f"report {row.sequence} was changed on the card and is set aside: replace the card"
        )
        while True:  # a lane must not pass it before its loss is stated
            try:
                await self._writer.write(lambda db, numbers: drops.take_out(db, numbers, row, None))
                return
            except StoreError as why:
                log.debug("%s: report %d is not set aside yet: %s", row.board, row.sequence, why)
                await asyncio.sleep(AGAIN_S)

    async def arrived(self, after_id: int) -> None:
        """Waits until there is a report whose id is greater than after_id."""
        await self._until(lambda: self.last_id > after_id)

    @contextmanager
    def watched(self, news: asyncio.Event) -> Iterator[None]:
        """Meanwhile it is set when anything has changed here: reports have arrived, the disk is back."""
        self._changes.add(news)
        try:
            yield
        finally:
            self._changes.discard(news)

    async def _until(self, happened: Callable[[], bool]) -> None:
        change = asyncio.Event()
        with self.watched(change):
            while not happened():
                change.clear()
                await change.wait()

    def part(self, route: str, left_behind: int = LEFT_BEHIND) -> list[Lane]:
        """A route begins: its lanes, oldest first, the last without an end.

        When more reports than left_behind are waiting in that one, another begins after it: what arrives from now on is
        not held behind.
        """
        lanes = self.lanes[route]
        live = lanes[-1]
        if self.last_id - live.delivered > left_behind and len(lanes) < MAX_LANES:
            lanes[-1:] = [replace(live, upto=self.last_id), Lane(route, self.last_id, self.last_id, None)]
            for lane in lanes[-2:]:
                self._writer.move(lane, 0)
        return list(lanes)

    def delivered(self, lane: Lane, up_to_id: int) -> None:
        """Every report of this lane up to this id has been delivered. Written with a later commit."""
        lanes = self.lanes[lane.route]
        for index, one in enumerate(lanes):
            if one.begins == lane.begins and one.delivered < up_to_id:
                now = lanes[index] = replace(one, delivered=up_to_id)
                if now.upto is not None and now.delivered >= now.upto:
                    del lanes[index]
                self._writer.move(now, up_to_id - one.delivered)
                return

    async def gaps(self, route: str, limit: int) -> list[Gap]:
        """The oldest gaps that this route has not told. Waits until there is one."""
        query = (
            "select board, first, last, reason, noticed_ms, id from gap "
            "where id > (select value from tally where name = ?) order by id limit ?"
        )
        given = (f"told {route}", limit)
        while True:
            seen = self.last_gap_id
            rows = await self._writer.read(lambda db, _: [Gap(*row) for row in db.execute(query, given)])
            if isinstance(rows, list) and rows:
                return rows
            await self._until(lambda: self.last_gap_id > seen)  # noqa: B023 - awaited before `seen` changes

    async def told(self, route: str, up_to_id: int) -> None:
        """This route has told every gap up to this one. Raises StoreError: they will be told again."""
        await self._writer.write(lambda db, _: ledger.told(db, route, up_to_id))

    async def pass_hour(self) -> None:
        """Another hour has passed: drops and states what has waited for more than max_days of them."""
        if self._settings.max_days is None:
            return
        keep = self._settings.max_days * HOURS_A_DAY
        try:
            old = await self._writer.write(lambda db, numbers: drops.mark_hour(db, numbers, keep))
            if isinstance(old, int):
                while await self._writer.write(
                    lambda db, numbers: drops.drop_oldest(db, numbers, old, buffered.TOO_OLD, None)
                ):
                    pass
        except StoreError as why:
            log.info("%s: nothing is dropped for its age now: %s", SUBJECT, why)

    async def close(self) -> None:
        """Commits what is there and closes the database."""
        await self._writer.close()
        self._broken.cancel()

    async def _count_hours(self) -> None:
        while True:
            await asyncio.sleep(HOUR_S)
            await self.pass_hour()

    def _known(self) -> salvage.Known:
        """For the thread. What is read here is replaced as a whole, so it is never half of two states."""
        lanes = tuple(lane for lanes in list(self.lanes.values()) for lane in list(lanes))
        return salvage.Known(dict(self.chains), lanes, self.last_id, self.last_gap_id)

    def _hear(self, news: News) -> None:
        if isinstance(news, Broken):
            if not self._broken.done():
                self._broken.set_exception(news.why)
        elif isinstance(news, Away):
            if self.away != news.why:
                self.away = news.why
            self._health.alarm(
                SUBJECT,
                "away",
                f"{news.why}: nothing is stored or acknowledged, boards keep their reports; tried again",
            )
        elif isinstance(news, Opened):
            self._hear_opened(news)
        else:
            self._hear_committed(news)
        for change in self._changes:
            change.set()

    def _hear_opened(self, news: Opened) -> None:
        self.away = ""
        self._health.clear(SUBJECT, "away", "the database can be used again")
        self.chains = news.ledger.chains
        self._fresh.clear()  # what was repaired may lack some of them, and has said so
        self.last_id, self.last_gap_id = news.ledger.last_id, news.ledger.last_gap_id
        if not self._is_opened:  # later, those in memory have moved further than those on the disk
            for lane in sorted(news.ledger.lanes.values(), key=lambda one: one.begins):
                self.lanes[lane.route].append(lane)
        self._is_opened = True
        if news.repaired is not None:
            log.warning(
                "%s: repaired: %d reports kept, %d known to be lost, %d more missing",
                SUBJECT,
                news.repaired.kept,
                news.repaired.lost,
                news.repaired.unnamed,
            )
        for file in salvage.set_aside_files(self._directory):
            self._health.alarm(
                SUBJECT,
                f"damaged {file.name}",
                f"the database was damaged; the damaged file is {file}: look at the card, then take that file away",
            )

    def _hear_committed(self, news: Committed) -> None:
        self.commits += 1
        self.commits_s.add(news.took_s)
        self.last_id, self.last_gap_id = news.last_id, news.last_gap_id
        self._fresh.extend(news.stored)
        while self._fresh and self._fresh[0].id <= news.dropped_to:
            self._fresh.popleft()
        for route, lanes in self.lanes.items():
            if any(lane.delivered < min(news.dropped_to, lane.upto or news.dropped_to) for lane in lanes):
                moved = [_at_least(lane, news.dropped_to) for lane in lanes]
                self.lanes[route] = [lane for lane in moved if lane.upto is None or lane.delivered < lane.upto]


def _set(done: "asyncio.Future[str]", outcome: str | StoreError) -> None:
    if done.done():
        return
    if isinstance(outcome, StoreError):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _at_least(lane: Lane, dropped_to: int) -> Lane:
    end = dropped_to if lane.upto is None else min(dropped_to, lane.upto)
    return replace(lane, delivered=max(lane.delivered, end))
