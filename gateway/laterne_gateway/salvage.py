"""What to do with a damaged database: take out of it what can be read, and set the damaged file aside.

The pages of the file are read one by one, without its trees: a damaged page costs what stands on it and no more, even
when it is the first or the root (database_pages.py). Rows are told by their shape, reports also by their CRC.

What must not go back, and why it does not:

- A lane. Where its row is lost it begins before the oldest report: something is delivered twice, nothing left out.
  Numbers of reports go on above every lane and every report that is found or that this process knows of.
- A chain. What this process has in memory (Known) is the least that it is set to. A new process has only the disk:
  where the chain's row is older than what was acknowledged, the board's next report does not follow it, and the
  difference is stated as a gap, because a board never uses a number twice. Where the row is lost, the chain begins
  anew with what the board still has; what came before and is not here is stated as a gap (buffered.LOST_TRACK).
- A report. One that stood on a damaged page is named by the index where that can be read, and stated as a gap.
- A report may come back: a page that was free still holds it, and it had been delivered. It is delivered again.

The steps, each of which may be the last before a power cut: the copy is made, synced, and renamed to REPAIRED-n: now it
is decided. The damaged file and its log go to DAMAGED-n, the copy takes the file's place. finish() does what is left of
this at the next start. Nothing is deleted but a copy that was not whole.
"""

import errno
import logging
import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from laterne_gateway import buffered, drops, ledger
from laterne_gateway.buffered import Chain, Lane, Row
from laterne_gateway.database import FILE_NAME, PAGE_BYTES, make_tables, sync_directory
from laterne_gateway.database_pages import NotReadableError, Pages, records
from laterne_gateway.ledger import Ledger

log = logging.getLogger("laterne")

HALF_MADE = FILE_NAME + ".half-made"
REPAIRED = FILE_NAME + ".repaired-"
DAMAGED = FILE_NAME + ".damaged-"
SUFFIXES = ("-wal", "-shm", "")
_NAMES = tuple(FILE_NAME + suffix for suffix in SUFFIXES)
PAGES_A_COMMIT = 4096
OPERATIONS_A_TURN = 100_000  # of SQLite's machine: some thousand rows


@dataclass(frozen=True)
class Known:
    """What the process knows without the disk: what was acknowledged at most, and where its lanes are."""

    chains: dict[str, Chain] = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    last_id: int = 0
    last_gap_id: int = 0


@dataclass(frozen=True)
class Outcome:
    """kept: reports that wait for delivery. lost: those known by name to be lost. unnamed: how many more are missing.

    file: where the damaged database is now.
    """

    why: str
    file: Path
    kept: int
    lost: int
    unnamed: int


def set_aside_files(directory: Path) -> list[Path]:
    """The damaged databases that wait for somebody to look at them."""
    return sorted(one for one in directory.glob(DAMAGED + "*") if not one.name.endswith(SUFFIXES[:2]))


def finish(directory: Path) -> None:
    """Does what is left of a repair that a power cut ended. Raises OSError."""
    for repaired in directory.glob(REPAIRED + "*"):
        _take_place(directory, repaired)
    (directory / HALF_MADE).unlink(missing_ok=True)


def repair(directory: Path, why: str, known: Known, turned: Callable[[], None] = lambda: None) -> Outcome:
    """Puts a new database with all that can be read into the damaged one's place. Raises OSError, sqlite3.Error.

    Nobody may have the database open. turned: is told again and again that it goes on, it may take a minute.
    """
    finish(directory)
    half_made = directory / HALF_MADE
    needed = sum(file.stat().st_size for file in map((directory / FILE_NAME).with_name, _NAMES) if file.exists())
    disk = os.statvfs(directory)
    if disk.f_bavail * disk.f_frsize < needed:
        raise OSError(errno.ENOSPC, f"the damaged database can be repaired when {needed} bytes are free")
    log.warning("buffer: %s is damaged (%s): what can be read is copied", directory / FILE_NAME, why)
    copy = sqlite3.connect(half_made, isolation_level=None)
    copy.set_progress_handler(turned, OPERATIONS_A_TURN)
    try:
        copy.execute(f"pragma page_size = {PAGE_BYTES}")
        copy.execute("pragma journal_mode = off")
        copy.execute("pragma synchronous = off")  # a copy that is not whole is thrown away; synced below
        make_tables(copy)
        kept, lost, unnamed = _fill(copy, directory / FILE_NAME, known)
    finally:
        copy.close()
    _sync(half_made)
    taken = [re.match(re.escape(DAMAGED) + r"(\d+)", one.name) for one in directory.iterdir()]
    number = 1 + max([0, *(int(one[1]) for one in taken if one is not None)])
    repaired = directory / f"{REPAIRED}{number}"
    half_made.rename(repaired)
    sync_directory(directory)
    damaged = _take_place(directory, repaired)
    return Outcome(why, damaged, kept, lost, unnamed)


def _take_place(directory: Path, repaired: Path) -> Path:
    damaged = directory / (DAMAGED + repaired.name.removeprefix(REPAIRED))
    # The log first: it must never lie beside a file that it does not belong to.
    for suffix in SUFFIXES:
        former = directory / (FILE_NAME + suffix)
        if former.exists():
            former.rename(f"{damaged}{suffix}")
    sync_directory(directory)
    repaired.rename(directory / FILE_NAME)
    sync_directory(directory)
    return damaged


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(copy: sqlite3.Connection, damaged: Path, known: Known) -> tuple[int, int, int]:
    """Reports kept, lost by name, lost without one."""
    copy.execute("create temp table named (board text, sequence integer, id integer)")
    found = _Found(copy, Ledger(last_gap_id=known.last_gap_id))
    copy.execute("begin")
    with Pages(damaged) as pages:
        for number in range(1, pages.count + 1):
            try:
                for rowid, values in records(pages.page, number):
                    found.take(rowid, values)
            except (OSError, NotReadableError) as why:
                log.debug("buffer: page %d: %s", number, why)
            if number % PAGES_A_COMMIT == 0:
                copy.execute("commit")
                copy.execute("begin")
    outcome = found.end(known)
    copy.execute("commit")
    return outcome


class _Found:
    """Files each record where it belongs, by its shape."""

    def __init__(self, copy: sqlite3.Connection, numbers: Ledger) -> None:
        self._copy = copy
        self._ledger = numbers
        self._damaged: list[Row] = []

    def take(self, rowid: int | None, values: list[object]) -> None:
        shape = "".join(_LETTERS[type(value)] for value in values)
        copy = self._copy
        if rowid is None:
            if re.fullmatch("tbi[bn]", shape):  # chain: the furthest, should an old page hold it too
                copy.execute(
                    "insert into chain values (?, ?, ?, ?) on conflict (board) do update set "
                    "credential = excluded.credential, sequence = excluded.sequence, digest = excluded.digest "
                    "where excluded.sequence > chain.sequence",
                    values,
                )
            elif re.fullmatch("tii[in]", shape):
                copy.execute("insert or ignore into lane values (?, ?, ?, ?)", values)
            elif shape == "tii":  # the index of the reports: board, sequence, id
                copy.execute("insert into named values (?, ?, ?)", values)
            elif shape == "tib" and str(values[0]).partition(" ")[0] in ("trust", "roster", "credential"):
                copy.execute(
                    "insert into signed_file values (?, ?, ?) on conflict (kind) do update set "
                    "version = excluded.version, body = excluded.body where excluded.version > signed_file.version",
                    values,
                )
            elif re.fullmatch("ttiiit[in]", shape):  # an old page may hold a part of it
                copy.execute(
                    "insert into passed_over values (?, ?, ?, ?, ?, ?, ?) on conflict (route, board) do update set "
                    "first = min(first, excluded.first), last = max(last, excluded.last), "
                    "reports = max(reports, excluded.reports)",
                    values,
                )
            elif shape == "ti":
                copy.execute("insert or ignore into tally values (?, ?)", values)
        elif re.fullmatch("nti[in][in]ib", shape):
            _, board, sequence, received_ms, closed_ms, _, body = values
            row = Row(rowid, board, sequence, received_ms, closed_ms, body)  # type: ignore[arg-type]  # told by the shape
            if buffered.crc(row) == values[5]:
                copy.execute("insert or ignore into report values (?, ?, ?, ?, ?, ?, ?)", (rowid, *values[1:]))
            elif len(self._damaged) < ledger.MAX_SET_ASIDE:
                self._damaged.append(row)
        elif re.fullmatch("nttitit[in]b", shape):
            copy.execute("insert or ignore into dead_letter values (?, ?, ?, ?, ?, ?, ?, ?, ?)", (rowid, *values[1:]))
        elif re.fullmatch("nt[in]t[in]b", shape):
            copy.execute("insert or ignore into set_aside values (?, ?, ?, ?, ?, ?)", (rowid, *values[1:]))
        elif re.fullmatch("nt[in]it[in]", shape):
            copy.execute("insert or ignore into gap values (?, ?, ?, ?, ?, ?)", (rowid, *values[1:]))

    def end(self, known: Known) -> tuple[int, int, int]:
        """Puts in what the process knows, states what is lost. Reports kept, lost by name, lost without one."""
        copy, numbers = self._copy, self._ledger
        for board, chain in known.chains.items():
            ledger.move_chain(copy, numbers, board, chain.credential, chain.sequence, chain.digest)
        ledger.write(copy, numbers)
        if known.lanes:
            copy.execute("delete from lane")
            rows = [(lane.route, lane.begins, lane.delivered, lane.upto) for lane in known.lanes]
            copy.executemany("insert into lane values (?, ?, ?, ?)", rows)
        # Numbers go on above all that was ever given, or a lane would take a new report for delivered.
        last_id = max(known.last_id, *(_number(copy, f"select max({one}) from {table}") for one, table in _IDS))
        copy.execute("insert into hour values (0, ?)", (last_id,))
        told = "select max(value) from tally where name glob 'told *'"
        numbers.last_gap_id = max(numbers.last_gap_id, _number(copy, "select max(id) from gap"), _number(copy, told))
        has_lanes = _number(copy, "select count(*) from lane") > 0
        if has_lanes:
            copy.execute(
                f"delete from report where not exists (select 1 from lane where {_BEFORE.format('report.id')})"
            )
        missing = (
            "select distinct board, sequence from named where not exists (select 1 from report where "
            "report.board = named.board and report.sequence = named.sequence)"
        )
        if has_lanes:
            missing += f" and exists (select 1 from lane where {_BEFORE.format('named.id')})"
        lost = copy.execute(f"{missing} order by board, sequence").fetchall()
        for board, first, last in drops.runs(lost):
            ledger.add_gap(copy, numbers, buffered.Gap(board, first, last, buffered.CARD, None))
        for row in self._damaged:
            refused = buffered.Refused(row.board, row.sequence, buffered.CARD, b"", None, None, None, row.body)
            ledger.set_aside(copy, numbers, refused)
        kept = _number(copy, "select count(*) from report")
        waited = _number(copy, f"select max({last_id} - delivered) from (select min(delivered) delivered from lane)")
        unnamed = max(0, waited - kept - len(lost)) if has_lanes else 0
        if unnamed or not has_lanes:
            self._state_holes(set(lost))
        ledger.add_tally(copy, ledger.REPAIRS, 1)
        ledger.add_tally(copy, ledger.DAMAGED, len(lost))
        return kept, len(lost), unnamed

    def _state_holes(self, lost: set[tuple[str, int]]) -> None:
        """Reports are missing that nothing names: every number of a board that may be one of them is stated."""
        chains = ledger.chains(self._copy)
        for board, chain in chains.items():
            former: int | None = None
            sequences = [
                *self._copy.execute("select sequence from report where board = ? order by sequence", (board,)),
                (chain.sequence + 1,),
            ]
            for (sequence,) in sequences:
                first = None if former is None else former + 1
                named = first is not None and all((board, one) in lost for one in range(first, sequence))
                if first != sequence and not named and (former is not None or sequence > chain.sequence):
                    gap = buffered.Gap(board, first, sequence - 1, buffered.LOST_TRACK, None)
                    ledger.add_gap(self._copy, self._ledger, gap)
                former = sequence


_IDS = (("id", "report"), ("id", "named"), ("delivered", "lane"), ("upto", "lane"))
_BEFORE = "lane.delivered < {0} and (lane.upto is null or {0} <= lane.upto)"
_LETTERS = {type(None): "n", int: "i", str: "t", bytes: "b", float: "f"}


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0] or 0)
