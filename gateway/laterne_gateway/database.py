"""The gateway's one database file: what is in it, how it is opened, how it is told from other files.

SQLite in WAL mode with synchronous=FULL: a commit is on the disk when it returns (gateway/README.md, "What a power
cut can cost"). There is one writer, the buffer's thread. FORMAT goes up with every change of the schema.
"""

import fcntl
import os
import sqlite3
from pathlib import Path

FORMAT = 1
APPLICATION_ID = 0x4C54524E  # "LTRN": tells our file from another SQLite file
CACHE_KIB = 512  # a batch of 512 reports of 960 bytes; more would only be memory
WAL_KEPT_BYTES = 4 * 1024 * 1024  # the log is cut back to this after a checkpoint
BUSY_MS = 5000  # `status` and `check` read beside us and hold no lock longer than a query

FILE_NAME = "gateway.sqlite3"
LOCK_NAME = "lock"

SCHEMA = """
-- Reports that not every route has delivered yet. A row goes when the slowest cursor has passed it.
create table report (
    id          integer primary key autoincrement,  -- order of arrival; never used twice, cursors depend on it
    board       text    not null,
    sequence    integer not null,
    received_ms integer,            -- UTC; null while this machine's clock was not credible
    closed_ms   integer,            -- UTC by the board's clock; null while that was never set
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

-- How far each route is: every report up to this id has been delivered by it.
create table cursor (
    route     text    primary key,
    delivered integer not null
) strict, without rowid;

-- What was refused, with the reason, for a person to look at. Bounded: the oldest goes first, and is counted.
create table set_aside (
    id          integer primary key autoincrement,
    board       text    not null,
    sequence    integer,            -- null when it could not even be read
    reason      text    not null,
    received_ms integer,
    body        blob    not null
) strict;

-- Numbers that must survive a restart.
create table tally (
    name  text    primary key,
    value integer not null
) strict, without rowid;

-- The last good trust and roster, as their files were: the versions below which nothing is taken any more.
create table signed_file (
    kind    text    primary key,    -- 'trust' or 'roster'
    version integer not null,
    body    blob    not null
) strict, without rowid;
"""


class DatabaseError(Exception):
    """The database cannot be used; the sentence says what to do."""


def open_database(directory: Path) -> sqlite3.Connection:
    """The database in a directory, made when it is not there. For the writing thread; raises DatabaseError."""
    file = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    except (OSError, sqlite3.Error) as why:
        raise DatabaseError(f"{file}: cannot be opened ({why}): check the directory's owner and free space") from why
    try:
        _prepare(connection, file)
    except sqlite3.Error as why:
        connection.close()
        raise DatabaseError(
            f"{file}: cannot be used ({why}): if it is damaged, keep it under another name and start again; "
            "boards send once more what was not acknowledged"
        ) from why
    except DatabaseError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    check_format(connection, file)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute(f"pragma cache_size = -{CACHE_KIB}")
    connection.execute(f"pragma journal_size_limit = {WAL_KEPT_BYTES}")
    if _number(connection, "user_version") == 0:
        # In one transaction with its format: a power cut leaves an empty file or a whole one.
        connection.executescript(
            f"begin immediate; pragma application_id = {APPLICATION_ID}; pragma user_version = {FORMAT};"
            f"{SCHEMA} commit;"
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
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
