"""The buffer's thread: the one owner of the database. It commits in groups, and it lives on when the disk does not.

What may happen to a group, and why nothing of it is ever acknowledged wrongly:

1. The commit returns: its frames in the log have been synced. Only now are its jobs told their results.
2. The disk is full (SQLITE_FULL): the group is rolled back, and nobody is told but of the failure.
3. Another error of the disk. The commit may be on it or not. Its jobs are told StoreError, so nothing is acknowledged.
   The connection is not used on: pages of a failed sync look clean in memory. A new one is opened every AGAIN_S, and
   database.open_database() has written the log again and synced it before chains are read from it. Then the group is
   there, and its reports are found to be repeated, or it is not, and they are asked for again.
4. The file is damaged (SQLITE_CORRUPT, SQLITE_NOTADB, or a place that cannot be read UNREADABLE_TIMES): as 3, and
   salvage.repair() comes before the opening. It is given the chains and lanes that are in memory here: no chain goes
   back behind what was acknowledged, no number comes again below a lane.
5. The process is killed, anywhere: as 3, in the next process, without what is in memory here.
"""

import asyncio
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from laterne_gateway import buffered, disk_errors, drops, ledger, salvage
from laterne_gateway.buffered import Lane
from laterne_gateway.config import DROP_OLDEST, BufferSettings
from laterne_gateway.database import PAGE_BYTES, DatabaseError, open_database
from laterne_gateway.disk_news import Away, Broken, Committed, News, Opened
from laterne_gateway.ledger import Ledger

log = logging.getLogger("laterne")

MAX_BATCH = 512  # facts/gateway.md, 2: more rows a commit gain nothing
ENOUGH = 32  # a group of so many waits no longer: half of what one board may have under way (questions.MAX_UNCOMMITTED)
GATHER_S = 0.2  # the longest that a group waits for company unless the settings say more; boards are asked on meanwhile
GATHER_FACTOR = 2.0  # wait twice as long as the last commit took: a slow disk is synced less often
LANE_WITHIN_S = 30.0  # a moved lane waits this long for a commit to share; after a kill that much is sent again
LANE_ROWS = 512  # or until it has moved so far
TURN_WITHIN_S = 5.0  # so often an idle thread comes round: service.py sees that the disk does not hang
AGAIN_S = 5.0  # how often a database that failed is opened anew
REPAIR_AT_MOST_EVERY_S = 60.0
UNREADABLE_TIMES = 3  # a place that cannot be read so often is taken for damaged
MAX_DROPS = 16  # times drops.DROP_AT_ONCE in a group: a limit that was lowered is reached in steps
MIB = 1024 * 1024

# Of the size that the tables may have, and of what is free on the disk, this is not for reports: lanes must move, gaps
# be stated and a group be finished when there is no room any more.
RESERVE_BYTES = 4 * MIB


class StoreError(Exception):
    """Not stored: the disk is full or away, the buffer is full, or the report before it was not stored.

    Acknowledge nothing; the board keeps the report, ask it again later.
    """


Job = Callable[[sqlite3.Connection, Ledger], object]
Then = Callable[[object], None]  # told what became of a job, in the event loop: its result or a StoreError
Waiting = tuple[Job, Then]


class Writer:
    """hear: called in the event loop with what has happened. known: what the memory of this process holds, for 4.

    Raises DatabaseError: the database is not ours to use. A disk that fails is waited for.
    """

    def __init__(
        self,
        directory: Path,
        routes: tuple[str, ...],
        settings: BufferSettings,
        hear: Callable[[News], None],
        known: Callable[[], salvage.Known],
    ) -> None:
        self._directory = directory
        self._routes = routes
        self._settings = settings
        self._hear = hear
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition(threading.Lock())
        self._reads: list[Waiting] = []
        self._writes: list[Waiting] = []
        self._moved: dict[tuple[str, int], Lane] = {}  # not written yet
        self._moved_rows = 0
        self._writes_since_s = self._moved_since_s = 0.0
        self._stopping = False
        self.no_room = ""  # why the group under way may not hold reports
        self._db: sqlite3.Connection | None = None
        self._was_open = False
        self.turned_s = time.monotonic()
        self._ledger = Ledger()
        self._commit_s = 0.0
        self._away = ""
        self._again_s = 0.0
        self._unreadable = 0
        self._repaired_s = -REPAIR_AT_MOST_EVERY_S
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="buffer", daemon=True)
        try:
            self._open(None)
        except (OSError, sqlite3.Error) as why:
            self._raise_if_denied(why)
            self._trouble = why
        self._thread.start()

    def _raise_if_denied(self, why: Exception) -> None:
        # A directory that this user may not use will not be better tomorrow; a read-only or full disk may.
        denied = isinstance(why, PermissionError | NotADirectoryError | FileExistsError)
        if disk_errors.code(why) == sqlite3.SQLITE_CANTOPEN:  # SQLite does not say why
            try:
                tempfile.TemporaryFile(dir=self._directory).close()
            except OSError as reason:
                denied = isinstance(reason, PermissionError)
        if denied:
            raise DatabaseError(f"{self._directory}: cannot be used ({why}): check its owner and rights") from why

    def read(self, job: Job) -> "asyncio.Future[object]":
        """What the job returns; it waits while there is no database. Raises StoreError at the end."""
        future, then = self._awaited()
        self._add(job, then, writes=False)
        return future

    def write(self, job: Job) -> "asyncio.Future[object]":
        """What the job returned, once its group has been committed. Raises StoreError."""
        future, then = self._awaited()
        self._add(job, then, writes=True)
        return future

    def write_then(self, job: Job, then: Then) -> None:
        """As write(), for what comes by the thousand: `then` is told in the turn of the loop in which all its group is.

        Raises StoreError: the buffer is closed.
        """
        self._add(job, then, writes=True)

    def move(self, lane: Lane, rows: int) -> None:
        """The lane has moved by so many rows; a later group writes it."""
        with self._condition:
            if not self._moved:
                self._moved_since_s = time.monotonic()
            self._moved[lane.route, lane.begins] = lane
            self._moved_rows += rows
            self._condition.notify()

    def use(self, settings: BufferSettings) -> None:
        """Other bounds, from the next group on."""
        with self._condition:
            self._settings = settings
            self._condition.notify()

    async def close(self) -> None:
        """Commits what is there and closes the database."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        await self._loop.run_in_executor(None, self._thread.join)

    def _awaited(self) -> tuple["asyncio.Future[object]", Then]:
        future: asyncio.Future[object] = self._loop.create_future()
        return future, partial(_set, future)

    def _add(self, job: Job, then: Then, *, writes: bool) -> None:
        with self._condition:
            if self._stopping or not self._thread.is_alive():
                raise StoreError("the buffer is closed")
            if writes and not self._writes:
                self._writes_since_s = time.monotonic()
            # Chosen with the lock held: the thread puts other lists in their places.
            waiting = self._writes if writes else self._reads
            waiting.append((job, then))
            # It is waked for what changes when it has to be up: the first of a group, the last of one, a read.
            if not writes or len(waiting) in (1, ENOUGH):
                self._condition.notify()

    # Below: the thread.

    def _work(self) -> None:
        try:
            going_on = True
            while going_on:
                self._turned()
                try:
                    if self._trouble is not None:
                        why, self._trouble = self._trouble, None
                        self._put_away(why)
                    going_on = self._turn() if self._db is not None else self._wait_for_disk()
                except (OSError, sqlite3.Error) as why:
                    self._trouble = why
        except Exception as why:  # whatever it is: nobody must wait for a thread that has ended
            self._say(Broken(why))
        finally:
            with self._condition:
                left = self._reads + self._writes
                self._reads, self._writes = [], []
            self._settle([(then, StoreError("the buffer is closed")) for _, then in left])
            if self._db is not None:
                self._db.close()

    def _turned(self) -> None:
        self.turned_s = time.monotonic()

    def _turn(self) -> bool:
        with self._condition:
            while not self._reads and not self._stopping:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    break
                self._turned()
                self._condition.wait(TURN_WITHIN_S if wait_s is None else min(wait_s, TURN_WITHIN_S))
            stopping = self._stopping
            reads, self._reads = self._reads, []
            writes: list[Waiting] = []
            moved: dict[tuple[str, int], Lane] = {}
            wait_s = self._wait_s()
            if stopping or (wait_s is not None and wait_s <= 0):
                writes, self._writes = self._writes[:MAX_BATCH], self._writes[MAX_BATCH:]
                moved, self._moved = self._moved, {}
                self._moved_rows = 0
        self._answer(reads)
        if writes or moved:
            self._commit(writes, moved)
        return not (stopping and not reads and not writes and not moved)

    def _wait_s(self) -> float | None:
        """How long until the next commit is due; None: nothing to commit."""
        now, due = time.monotonic(), []
        if len(self._writes) >= ENOUGH or self._moved_rows >= LANE_ROWS:
            return 0.0
        if self._writes:
            gather_s = max(self._settings.gather_s, min(GATHER_S, self._commit_s * GATHER_FACTOR))
            due.append(self._writes_since_s + gather_s)
        if self._moved:
            due.append(self._moved_since_s + LANE_WITHIN_S)
        return min(due) - now if due else None

    def _answer(self, reads: list[Waiting]) -> None:
        assert self._db is not None
        for index, (job, then) in enumerate(reads):
            try:
                result = job(self._db, self._ledger)
            except sqlite3.Error:
                with self._condition:  # they wait for the database that comes next
                    self._reads = reads[index:] + self._reads
                raise
            self._settle([(then, result)])

    def _commit(self, writes: list[Waiting], moved: dict[tuple[str, int], Lane]) -> None:
        db, began = self._db, time.monotonic()
        assert db is not None
        before = self._ledger.copy()
        try:
            db.execute("begin immediate")
            ledger.move_lanes(db, self._ledger, moved.values())
            if writes:
                self._make_room(db)
            results = [(then, job(db, self._ledger)) for job, then in writes]
            ledger.write(db, self._ledger)
            db.execute("commit")
        except Exception as why:
            self._ledger = before
            with self._condition:
                if not self._moved:
                    self._moved_since_s = time.monotonic()
                self._moved = {**moved, **self._moved}
            sentence = disk_errors.in_words(why)
            self._settle([(then, StoreError(sentence)) for _, then in writes])
            if disk_errors.code(why) not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise
            if db.in_transaction:
                db.execute("rollback")
            return
        self._commit_s = time.monotonic() - began
        self._unreadable = 0
        numbers = self._ledger
        stored, numbers.stored = numbers.stored, []
        self._settle(
            results, Committed(numbers.last_id, numbers.last_gap_id, numbers.dropped_to, stored, self._commit_s)
        )

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Sets no_room; drops the oldest reports instead where the settings say so."""
        self.no_room = self._lacks(db)
        for _ in range(MAX_DROPS if self._settings.when_full == DROP_OLDEST else 0):
            if not self.no_room or not drops.drop_oldest(db, self._ledger, None, buffered.TOO_MANY, None):
                return
            self.no_room = self._lacks(db)

    def _lacks(self, db: sqlite3.Connection) -> str:
        used, limit = ledger.used_bytes(db), self._settings.max_mib * MIB
        if used > limit - RESERVE_BYTES:
            return f"the buffer is full ({used // MIB} of {limit // MIB} MiB)"
        disk = os.statvfs(self._directory)
        free = disk.f_bavail * disk.f_frsize
        inside = int(db.execute("pragma freelist_count").fetchone()[0]) * PAGE_BYTES  # free pages in the file itself
        if free < RESERVE_BYTES and inside < RESERVE_BYTES // 4:
            return f"the disk is full but for {free // 1024} KiB"
        return ""

    def _put_away(self, why: Exception) -> None:
        """The database is closed, and opened again when it is time; repaired before that if it is damaged."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._away = disk_errors.in_words(why)
        self._again_s = time.monotonic() + AGAIN_S
        if disk_errors.code(why) == sqlite3.SQLITE_IOERR and "read" in disk_errors.name(why).lower():
            self._unreadable += 1
        damaged = disk_errors.code(why) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        self._say(Away(self._away))
        soon = time.monotonic() - self._repaired_s < REPAIR_AT_MOST_EVERY_S  # it did not help: not again at once
        if (damaged or self._unreadable >= UNREADABLE_TIMES) and not soon:
            self._unreadable, self._repaired_s = 0, time.monotonic()
            outcome = salvage.repair(self._directory, str(why), self._known(), self._turned)
            self._open(outcome)

    def _wait_for_disk(self) -> bool:
        with self._condition:
            if not self._stopping and not self._writes:
                self._condition.wait(max(0.0, self._again_s - time.monotonic()))
            writes, self._writes = self._writes, []
            stopping = self._stopping
        self._settle([(then, StoreError(self._away)) for _, then in writes])
        if not stopping and time.monotonic() >= self._again_s:
            self._open(None)
        return not stopping

    def _open(self, repaired: salvage.Outcome | None) -> None:
        salvage.finish(self._directory)
        db = open_database(self._directory, may_make=not self._was_open)
        try:
            db.execute("begin immediate")
            found = ledger.load(db, self._routes)
            db.execute("commit")
        except BaseException:
            db.close()
            raise
        self._db, self._ledger, self._was_open = db, found, True
        opened = Opened(found.copy(), repaired)
        if threading.current_thread() is self._thread:
            self._say(opened)
        else:  # __init__(): who gets the buffer finds it open
            self._hear(opened)

    def _say(self, news: News) -> None:
        self._in_loop(lambda: self._hear(news))

    def _settle(self, results: list[tuple[Then, object]], first: News | None = None) -> None:
        """Tells each what became of its job; before that `first`, to all."""

        def tell() -> None:
            if first is not None:
                self._hear(first)
            for then, result in results:
                try:
                    then(result)
                except Exception:  # the others are told all the same
                    log.exception("buffer: whoever waited for a job failed")

        if results or first is not None:
            self._in_loop(tell)

    def _in_loop(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("buffer: nobody waits")


def _set(future: "asyncio.Future[object]", result: object) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
