"""What SQLite says when a disk fails, as a code to decide by and as words for the operator."""

import sqlite3


def code(why: Exception) -> int | None:
    """SQLite's primary result code (sqlite.org/rescode.html)."""
    extended = getattr(why, "sqlite_errorcode", None)
    return None if extended is None else int(extended) & 0xFF


def name(why: Exception) -> str:
    return str(getattr(why, "sqlite_errorname", ""))


def in_words(why: Exception) -> str:
    primary = code(why)
    # The second: there is no room for the file by which connections share the log; SQLite tells no more.
    if primary == sqlite3.SQLITE_FULL or name(why) == "SQLITE_IOERR_SHMSIZE":
        return "the disk is full"
    if primary == sqlite3.SQLITE_BUSY:
        return "another program holds the database"
    return f"the disk fails ({why}{f', {name(why)}' if name(why) else ''})"
