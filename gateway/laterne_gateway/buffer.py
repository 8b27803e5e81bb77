"""The buffer: reports that boards gave us and that not every route has delivered, on disk before acknowledged.

put() returns after the commit that holds the report has been synced; nobody may acknowledge before. One thread owns
the database and commits in groups: what arrives while a sync is under way shares the next one. Routes read from the
log in order of arrival and move their cursors; a row goes when the slowest cursor has passed it.

Memory and start-up time do not depend on how much is waiting: nothing is counted or loaded but the chains.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from laterne_protocol import cose, report

log = logging.getLogger("laterne")

MAX_BATCH = 512  # facts/gateway.md, 2: more rows a commit gain nothing
MAX_GATHER_S = 0.2  # the longest that a commit waits for company; boards are asked on meanwhile
GATHER_FACTOR = 2.0  # wait twice as long as the last commit took: a slow disk is synced less often
CURSOR_WITHIN_S = 1.0  # a cursor waits this long for a commit to share; after a kill that much is sent again
MAX_SET_ASIDE = 1000  # about 1 MiB
DROPPED = "set aside and dropped"  # the tally of what MAX_SET_ASIDE cost

# What became of a report: it is on disk now; it was there already; its number holds another report; it is older than
# what can still be compared.
STORED, REPEATED, OTHER, PAST = "stored", "repeated", "other", "past"
NOT_IN_TURN = "not in turn"  # put() and set_aside() raise StoreError for it


class StoreError(Exception):
    """Not stored: the disk is full, or the report before it was not stored.

    Acknowledge nothing; the board keeps the report, ask it again later.
    """


class NotInTurnError(StoreError):
    """Not stored because the report before it was not."""


@dataclass(frozen=True)
class Accepted:
    """A report that the inbox has checked. digest: of its payload. credential: digest of the board's; 16 bytes each.

    follows: the sequence that the chain was at when it was judged, None when it begins here.
    received_ms, closed_ms: UTC, or None where the gateway's or the board's clock did not know. body: the signed bytes.
    """

    board: str
    sequence: int
    digest: bytes
    credential: bytes
    follows: int | None
    received_ms: int | None
    closed_ms: int | None
    body: bytes


@dataclass(frozen=True)
class Refused:
    """A report to set aside. passed_over: the board's chain moves from `follows` to this sequence; None: it stays."""

    board: str
    sequence: int | None
    reason: str
    credential: bytes
    follows: int | None
    received_ms: int | None
    passed_over: int | None
    body: bytes


@dataclass(frozen=True)
class Chain:
    """Where a board's chain stands: the last sequence that is on disk, and that report's digest when it is known."""

    credential: bytes
    sequence: int
    digest: bytes | None


@dataclass(frozen=True)
class Row:
    """A report on its way to a platform. id: what a cursor moves to."""

    id: int
    board: str
    sequence: int
    received_ms: int | None
    closed_ms: int | None
    body: bytes


Job = Callable[[sqlite3.Connection], object]


class Buffer:
    """connection: from open_database(), given away to the buffer. routes: the names of all that deliver."""

    def __init__(self, connection: sqlite3.Connection, routes: tuple[str, ...]) -> None:
        self._connection = connection
        self._routes = routes
        self._condition = threading.Condition()
        self._reads: list[tuple[Job, asyncio.Future[object]]] = []
        self._writes: list[tuple[Job, asyncio.Future[object]]] = []
        self._cursors: dict[str, int] = {}  # moved, not yet written
        self._writes_since_s = 0.0
        self._cursors_since_s = 0.0
        self._stopping = False
        self._commit_s = 0.0
        self._inserted_id = 0  # the thread's; last_id is what has been committed of it
        self._arrivals: set[asyncio.Event] = set()
        self.commits = 0
        self.last_id = 0
        self.delivered_ids: dict[str, int] = {}
        self.chains: dict[str, Chain] = {}
        self._begin()
        self._loop = asyncio.get_running_loop()
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="buffer", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        db = self._connection
        last = db.execute("select seq from sqlite_sequence where name = 'report'").fetchone()
        self.last_id = self._inserted_id = last[0] if last else 0
        oldest = db.execute("select min(id) from report").fetchone()[0]
        start = self.last_id if oldest is None else oldest - 1
        db.execute("begin immediate")
        for (route,) in db.execute("select route from cursor").fetchall():
            if route not in self._routes:  # it left the configuration: nothing waits for it any more
                db.execute("delete from cursor where route = ?", (route,))
        for route in self._routes:
            db.execute("insert into cursor values (?, ?) on conflict do nothing", (route, start))
        db.execute("commit")
        self.delivered_ids = dict(db.execute("select route, delivered from cursor").fetchall())
        for board, credential, sequence, digest in db.execute("select * from chain").fetchall():
            self.chains[board] = Chain(credential, sequence, digest)

    async def run(self) -> None:
        """Waits until the disk fails; raises what it said. The agent ends then, and the next start repairs the log."""
        await asyncio.shield(self._broken)

    def waiting(self, route: str) -> int:
        """Reports that this route has not delivered."""
        return self.last_id - self.delivered_ids[route]

    async def put(self, accepted: Accepted) -> str:
        """Returns when the report is on disk: STORED, or else REPEATED, OTHER, PAST. Raises StoreError."""
        outcome = await self._write(lambda db: self._insert(db, accepted))
        if outcome == NOT_IN_TURN:
            raise NotInTurnError("the report before it was not stored")
        if outcome == STORED:
            # Several of a board's may be under way: the chain is at the last of them.
            former = self.chains.get(accepted.board)
            if former is None or former.credential != accepted.credential or former.sequence < accepted.sequence:
                self.chains[accepted.board] = Chain(accepted.credential, accepted.sequence, accepted.digest)
        return str(outcome)

    async def set_aside(self, refused: Refused) -> None:
        """Returns when it is on disk, and the chain has passed over it if it should. Raises StoreError."""
        outcome = await self._write(lambda db: _set_aside(db, refused))
        if outcome == NOT_IN_TURN:
            raise NotInTurnError("the report before it was not stored")
        if refused.passed_over is not None:
            self.chains[refused.board] = Chain(refused.credential, refused.passed_over, None)

    async def keep_file(self, kind: str, version: int, body: bytes) -> None:
        """Keeps a trust or roster that was found good. Raises StoreError."""
        await self._write(
            lambda db: db.execute(
                "insert into signed_file values (?, ?, ?) on conflict (kind) do update "
                "set version = excluded.version, body = excluded.body",
                (kind, version, body),
            )
        )

    async def kept_file(self, kind: str) -> bytes | None:
        """The last good trust or roster."""
        rows = await self._read(
            lambda db: db.execute("select body from signed_file where kind = ?", (kind,)).fetchall()
        )
        return bytes(rows[0][0]) if isinstance(rows, list) and rows else None

    async def tallies(self) -> dict[str, int]:
        """Numbers that survive restarts, and how many are set aside."""
        query = "select name, value from tally union all select 'set aside', count(*) from set_aside"
        rows = await self._read(lambda db: db.execute(query).fetchall())
        return dict(rows) if isinstance(rows, list) else {}

    async def oldest(self, after_id: int, limit: int) -> list[Row]:
        """The oldest reports whose id is greater than after_id, in order of arrival; all of them are committed."""
        query = "select id, board, sequence, received_ms, closed_ms, body from report where id > ? order by id limit ?"
        rows = await self._read(lambda db: [Row(*row) for row in db.execute(query, (after_id, limit))])
        return rows if isinstance(rows, list) else []

    async def arrived(self, after_id: int) -> None:
        """Waits until there is a report whose id is greater than after_id."""
        while self.last_id <= after_id:
            arrival = asyncio.Event()
            self._arrivals.add(arrival)
            try:
                await arrival.wait()
            finally:
                self._arrivals.discard(arrival)

    def delivered(self, route: str, up_to_id: int) -> None:
        """Every report up to this id has been delivered by this route. Written with a later commit, within a second."""
        self.delivered_ids[route] = up_to_id
        with self._condition:
            if not self._cursors:
                self._cursors_since_s = time.monotonic()
                self._condition.notify()
            self._cursors[route] = up_to_id

    async def close(self) -> None:
        """Commits what is there and closes the database."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        await self._loop.run_in_executor(None, self._thread.join)
        self._broken.cancel()

    def _read(self, job: Job) -> "asyncio.Future[object]":
        return self._add(self._reads, job)

    def _write(self, job: Job) -> "asyncio.Future[object]":
        return self._add(self._writes, job)

    def _add(self, jobs: "list[tuple[Job, asyncio.Future[object]]]", job: Job) -> "asyncio.Future[object]":
        future: asyncio.Future[object] = self._loop.create_future()
        with self._condition:
            if self._stopping or self._broken.done():
                raise StoreError("the buffer is closed")
            if not self._writes and jobs is self._writes:
                self._writes_since_s = time.monotonic()
            jobs.append((job, future))
            self._condition.notify()
        return future

    # Below: the thread.

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as why:  # whatever it is: nobody must wait for a thread that has ended
            # A failed sync may leave pages that look clean (facts/gateway.md, 7): trust nothing, let a new start
            # read back from the disk what is there.
            self._loop.call_soon_threadsafe(self._break, why)
        finally:
            self._connection.close()

    def _turn(self) -> bool:
        with self._condition:
            while not self._reads and not self._stopping:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    break
                self._condition.wait(wait_s)
            stopping = self._stopping
            reads, self._reads = self._reads, []
            writes: list[tuple[Job, asyncio.Future[object]]] = []
            cursors: dict[str, int] = {}
            wait_s = self._wait_s()
            if stopping or (wait_s is not None and wait_s <= 0):
                writes, self._writes = self._writes[:MAX_BATCH], self._writes[MAX_BATCH:]
                cursors, self._cursors = self._cursors, {}
        if reads:
            self._settle([(future, job(self._connection)) for job, future in reads])
        if writes or cursors:
            self._commit(writes, cursors)
        return not (stopping and not reads and not writes and not cursors)

    def _wait_s(self) -> float | None:
        """How long until the next commit is due; None: nothing to commit."""
        now, due = time.monotonic(), []
        if self._writes:
            if len(self._writes) >= MAX_BATCH:
                return 0.0
            due.append(self._writes_since_s + min(MAX_GATHER_S, self._commit_s * GATHER_FACTOR))
        if self._cursors:
            due.append(self._cursors_since_s + CURSOR_WITHIN_S)
        return min(due) - now if due else None

    def _commit(self, writes: "list[tuple[Job, asyncio.Future[object]]]", cursors: dict[str, int]) -> None:
        db, began = self._connection, time.monotonic()
        inserted_before = self._inserted_id
        try:
            db.execute("begin immediate")
            results = [(future, job(db)) for job, future in writes]
            for route, delivered in cursors.items():
                db.execute("update cursor set delivered = ? where route = ?", (delivered, route))
            if cursors:
                db.execute("delete from report where id <= (select min(delivered) from cursor)")
            db.execute("commit")
        except sqlite3.OperationalError as why:
            if why.sqlite_errorcode != sqlite3.SQLITE_FULL:
                self._settle([(future, StoreError(str(why))) for _, future in writes])
                raise
            if db.in_transaction:
                db.execute("rollback")
            self._inserted_id = inserted_before
            with self._condition:
                self._cursors = {**cursors, **self._cursors}
                self._cursors_since_s = time.monotonic()
            self._settle([(future, StoreError("the disk is full")) for _, future in writes])
            return
        self._commit_s = time.monotonic() - began
        self.commits += 1
        self._settle(results)

    def _insert(self, db: sqlite3.Connection, new: Accepted) -> str:
        found = db.execute(
            "select body from report where board = ? and sequence = ?", (new.board, new.sequence)
        ).fetchone()
        if found is not None:
            # The payload decides: a board that lost power while signing signs the same payload again.
            same = report.digest(cose.parse(found[0], report.MAX_REPORT_BYTES).payload) == new.digest
            return REPEATED if same else OTHER
        at = _chain_sequence(db, new.board, new.credential)
        if at is not None and new.sequence <= at:
            return PAST
        if at != new.follows:
            # One before it could not be stored. To store this one would let the board forget both.
            return NOT_IN_TURN
        row = db.execute(
            "insert into report (board, sequence, received_ms, closed_ms, body) values (?, ?, ?, ?, ?)",
            (new.board, new.sequence, new.received_ms, new.closed_ms, new.body),
        )
        self._inserted_id = row.lastrowid or self._inserted_id
        _move_chain(db, new.board, new.credential, new.sequence, new.digest)
        return STORED

    def _settle(self, results: "list[tuple[asyncio.Future[object], object]]") -> None:
        try:
            self._loop.call_soon_threadsafe(self._tell, results, self._inserted_id)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("buffer: nobody waits for %d results", len(results))

    # Below: the loop again.

    def _tell(self, results: "list[tuple[asyncio.Future[object], object]]", last_id: int) -> None:
        for future, result in results:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        if last_id > self.last_id:
            self.last_id = last_id
            for arrival in self._arrivals:
                arrival.set()

    def _break(self, why: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(why)
        for _, future in self._reads + self._writes:
            if not future.done():
                future.set_exception(StoreError(str(why)))


def _chain_sequence(db: sqlite3.Connection, board: str, credential: bytes) -> int | None:
    found = db.execute("select sequence from chain where board = ? and credential = ?", (board, credential)).fetchone()
    return None if found is None else int(found[0])


def _set_aside(db: sqlite3.Connection, refused: Refused) -> str:
    if refused.passed_over is not None and _chain_sequence(db, refused.board, refused.credential) != refused.follows:
        return NOT_IN_TURN
    db.execute(
        "insert into set_aside (board, sequence, reason, received_ms, body) values (?, ?, ?, ?, ?)",
        (refused.board, refused.sequence, refused.reason, refused.received_ms, refused.body),
    )
    gone = db.execute(
        "delete from set_aside where id in (select id from set_aside order by id desc limit -1 offset ?)",
        (MAX_SET_ASIDE,),
    ).rowcount
    if gone:
        db.execute(
            "insert into tally values (?, ?) on conflict (name) do update set value = value + excluded.value",
            (DROPPED, gone),
        )
    if refused.passed_over is not None:
        _move_chain(db, refused.board, refused.credential, refused.passed_over, None)
    return STORED


def _move_chain(db: sqlite3.Connection, board: str, credential: bytes, sequence: int, digest: bytes | None) -> None:
    db.execute(
        "insert into chain values (?, ?, ?, ?) on conflict (board) do update set "
        "credential = excluded.credential, sequence = excluded.sequence, digest = excluded.digest",
        (board, credential, sequence, digest),
    )
