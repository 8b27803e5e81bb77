"""The gateway's one database file: what is in it, how it is opened, how it is told from other files.

SQLite in WAL mode with synchronous=FULL: a commit is on the disk when it returns (gateway/README.md, "What a power
cut can cost"). There is one writer, the buffer's thread. FORMAT goes up with every change of the schema.

What a former process wrote may be in the machine's memory only: one that was killed between write and sync, or whose
sync failed (Linux then takes the pages for clean, and a second sync succeeds over lost data: facts/gateway.md, 7). So
at each opening the log is written once more, byte for byte, and synced, before anything in it is believed.
"""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = 4
OLDEST_FORMAT = 3  # that is brought up to date when it is opened (UPGRADES)
APPLICATION_ID = 0x4C54524E  # "LTRN": tells our file from another SQLite file
PAGE_BYTES = 1024  # a commit of one report writes 8.5 KB, with pages of 4096 bytes 19 KB (make bench: wear)
CACHE_KIB = 512  # a batch of 512 reports of 960 bytes; more would only be memory
WAL_KEPT_BYTES = 4 * 1024 * 1024  # the log is cut back to this after a checkpoint
BUSY_MS = 5000  # `status`, `check` and `buffer` read beside us and hold no lock longer than a query
REWRITE_BYTES = 65536

FILE_NAME = "gateway.sqlite3"
WAL_NAME = FILE_NAME + "-wal"
LOCK_NAME = "lock"

PASSED_OVER = """
-- What was refused for good and is no dead letter, because its board had its share of them (dead_letters.py): of the
-- reports from first to last so many, at most. A row goes when an operator has seen it.
create table passed_over (
    route      text    not null,
    board      text    not null,
    first      integer not null,
    last       integer not null,
    reports    integer not null,
    reason     text    not null,    -- the newest
    noticed_ms integer,             -- UTC, of that; null while this machine's clock was not credible
    primary key (route, board)
) strict, without rowid;
"""

SCHEMA = f"""
-- Reports that not every route has delivered yet. A row goes when no route waits for it any more.
create table report (
    id          integer primary key,  -- order of arrival; the buffer counts it, and never uses one twice: lanes do
    board       text    not null,
    sequence    integer not null,
    received_ms integer,            -- UTC; null while this machine's clock was not credible
    closed_ms   integer,            -- UTC by the board's clock; null while that was never set
    crc         integer not null,   -- CRC-32 of board, sequence and body: what the card has changed is not delivered
    body        blob    not null,   -- the board's signed bytes, untouched
    unique (board, sequence)        -- a repeated report is stored once
) strict;

-- Where each board's chain stands. It outlives the reports.
create table chain (
    board      text    primary key,
    credential blob    not null,    -- digest of the credential that the chain began with
    sequence   integer not null,    -- the last one stored, or passed over
    digest     blob                 -- of the last report; null after one that was passed over
) strict, without rowid;

-- What each route has to deliver: the reports with delivered < id <= upto. The lane without an end takes what arrives;
-- each of the others is what an outage left behind, and goes when it is done.
create table lane (
    route     text    not null,
    begins    integer not null,
    delivered integer not null,
    upto      integer,
    primary key (route, begins)
) strict, without rowid;

-- Reports that are not to be had here any more, for the platform. A row goes when every route has told it.
create table gap (
    id         integer primary key, -- as in report
    board      text    not null,
    first      integer,             -- null: nobody here knows where it began
    last       integer not null,
    reason     text    not null,
    noticed_ms integer
) strict;

-- What was refused, with the reason, for a person to look at. Bounded: the oldest of the board that has the most goes
-- first, and is counted.
create table set_aside (
    id          integer primary key,
    board       text    not null,
    sequence    integer,            -- null when it could not even be read
    reason      text    not null,
    received_ms integer,
    body        blob    not null
) strict;

-- What a platform has refused for good (dead_letters.py). A row goes when it was sent again and taken.
create table dead_letter (
    id         integer primary key,
    route      text    not null,
    board      text    not null,
    sequence   integer not null,
    place      text    not null,    -- which of the report's observations: 'channel/index'; 'report': all of it
    again      integer not null,    -- 1: an operator wants it to be sent again
    reason     text    not null,
    noticed_ms integer,             -- UTC; null while this machine's clock was not credible
    body       blob    not null,    -- the observation as JSON; of a report its signed bytes
    unique (route, board, sequence, place)
) strict;
{PASSED_OVER}
-- Numbers that must survive a restart; 'told <route>': the last gap that a route has told; 'left ...': ledger.LEFT.
create table tally (
    name  text    primary key,
    value integer not null
) strict, without rowid;

-- Each hour that this gateway ran, and the last report then: how long one has waited, by no clock that can jump.
create table hour (
    number  integer primary key,
    last_id integer not null
) strict;

-- What the authority has signed, as the files were: the last good roster, each trust that was followed, and each
-- credential of ours that boards may still need. Below these versions nothing is taken any more.
create table signed_file (
    kind    text    primary key,    -- 'roster', 'trust 3', 'credential 0a1b...'
    version integer not null,
    body    blob    not null
) strict, without rowid;
"""

# What makes the next format of one. Nothing is taken away, so what stands in a file of a former release stays.
UPGRADES = {3: PASSED_OVER}


class DatabaseError(Exception):
    """The database cannot be used; the sentence says what to do."""


def open_database(directory: Path, *, may_make: bool = True) -> sqlite3.Connection:
    """The database in a directory. For the writing thread, with the directory's lock held.

    may_make: whether one is made when there is none. A process that has had one may not: where a disk is gone its mount
    point is an empty directory, and what began there would be hidden when the disk is back, acknowledged reports in it.

    Raises DatabaseError: it is not ours to use. sqlite3.Error, OSError: the disk or the file is at fault.
    """
    file = directory / FILE_NAME
    if may_make:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not file.exists():
        raise FileNotFoundError(errno.ENOENT, "the database is gone: is its disk mounted?", str(file))
    _write_again(directory / WAL_NAME)
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={'rwc' if may_make else 'rw'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_MS / 1000,
    )
    try:
        _prepare(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _write_again(log: Path) -> None:
    # The same bytes at the same place: whoever reads the log meanwhile sees no change.
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = 0
        while data := os.pread(descriptor, REWRITE_BYTES, at):
            if os.pwrite(descriptor, data, at) != len(data):
                raise OSError(f"{log}: cut short while it was written again")
            at += len(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(log.parent)


def sync_directory(directory: Path) -> None:
    """What was made, renamed or removed in it is on the disk when this returns (fsync(2)). Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    check_format(connection, file)
    connection.execute(f"pragma page_size = {PAGE_BYTES}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute(f"pragma cache_size = -{CACHE_KIB}")
    connection.execute(f"pragma journal_size_limit = {WAL_KEPT_BYTES}")
    version = _number(connection, "user_version")
    if version == 0:
        make_tables(connection)
        return
    # Each in one transaction with its number: a power cut leaves one or the other.
    for former in range(version, FORMAT):
        connection.executescript(f"begin immediate;{UPGRADES[former]} pragma user_version = {former + 1}; commit;")


def make_tables(connection: sqlite3.Connection) -> None:
    """Fills an empty file, in one transaction with its format: a power cut leaves an empty file or a whole one."""
    connection.executescript(
        f"begin immediate; pragma application_id = {APPLICATION_ID}; pragma user_version = {FORMAT};{SCHEMA} commit;"
    )


def check_format(connection: sqlite3.Connection, file: Path) -> None:
    """Whether the file is a gateway's, of a format we read; an empty one passes. Raises DatabaseError."""
    tables = connection.execute("select count(*) from sqlite_schema").fetchone()[0]
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    if tables and application != APPLICATION_ID:
        raise DatabaseError(f"{file}: is another program's database: give the gateway a directory of its own")
    if version > FORMAT:
        raise DatabaseError(
            f"{file}: has format {version}, this program reads up to {FORMAT}: install the newer laterne again"
        )
    if tables and version < OLDEST_FORMAT:
        raise DatabaseError(
            f"{file}: has format {version} of a laterne before the first release: let that one deliver what waits, "
            "then begin with a new directory"
        )


@contextmanager
def opened_beside(file: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """For commands beside the gateway: a database that is there, of a format we read, closed with the block.

    Raises DatabaseError, sqlite3.Error.
    """
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_MS / 1000)
    try:
        check_format(connection, file)
        yield connection
    finally:
        connection.close()


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"pragma {pragma}").fetchone()[0])


class DirectoryLock:
    """At most one gateway works in a directory. The lock goes with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / LOCK_NAME
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises DatabaseError when another process has it."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Opened for reading where it is there: a disk that is read-only now must not keep us from waiting for it.
            flags = os.O_RDONLY if self._file.exists() else os.O_RDWR | os.O_CREAT
            descriptor = os.open(self._file, flags | os.O_CLOEXEC, 0o600)
        except OSError as why:
            raise DatabaseError(f"{self._file}: {why.strerror}: check the owner of the directory") from why
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as why:
            os.close(descriptor)
            raise DatabaseError(
                f"{self._file}: another laterne-gateway runs in this directory: stop it, or give each its own"
            ) from why
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
