"""`laterne-gateway buffer verify | export | vacuum`: the buffer as a person looks after it.

verify and export only read and so work while the agent runs: in steps of ROWS_AT_ONCE, for the log cannot be cut back
while somebody reads; only SQLite's own check of the file is one step. vacuum writes the file anew and needs the agent
stopped.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from laterne_gateway import buffered, primitives, salvage
from laterne_gateway.buffered import Row
from laterne_gateway.config import Config
from laterne_gateway.database import FILE_NAME, DatabaseError, DirectoryLock, open_database, opened_beside
from laterne_gateway.roster import verified_roster
from laterne_protocol import cose, credential, report, report_reading, trust
from laterne_protocol.errors import WireError

DONE, WRONG = 0, 1
ROWS_AT_ONCE = 1000
MAX_PROBLEMS = 100  # more are counted


class CommandError(Exception):
    """The command cannot be done; the sentence says what to do."""


@dataclass
class Verdict:
    """What verify has found. signatures: good ones; unknown: reports by keys that the kept roster does not hold."""

    reports: int = 0
    signatures: int = 0
    unknown: int = 0
    set_aside: int = 0
    gaps: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    lanes: list[dict[str, object]] = field(default_factory=list)

    def problem(self, sentence: str) -> None:
        self.wrong += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(sentence)


def run(config: Config, action: str, output: Path | None, *, as_json: bool) -> int:
    """Does it and prints what came of it. Returns the exit code."""
    try:
        if action == "verify":
            return _print_verdict(verify(config.gateway.directory, config.gateway.id), as_json=as_json)
        if action == "export":
            assert output is not None
            written, damaged = export(config.gateway.directory, output)
            document: dict[str, object] = {"file": str(output), "reports": written, "damaged": damaged}
            words = f"{output}: {written} reports, for `laterne verify`; {damaged} damaged ones left out"
            code = DONE if damaged == 0 else WRONG
        else:
            before, after = vacuum(config.gateway.directory)
            document = {"bytes_before": before, "bytes_after": after}
            words, code = f"{before} bytes before, {after} now", DONE
    except (CommandError, DatabaseError) as why:
        print(why, file=sys.stderr)
        return WRONG
    except sqlite3.Error as why:
        print(
            f"{config.gateway.directory / FILE_NAME}: {why}: start the gateway, it sets a damaged database aside",
            file=sys.stderr,
        )
        return WRONG
    print(json.dumps(document) if as_json else words)
    return code


def _print_verdict(verdict: Verdict, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": verdict.wrong == 0, **vars(verdict)}, indent=2))
    else:
        for problem in verdict.problems:
            print(f"WRONG: {problem}")
        if verdict.wrong > len(verdict.problems):
            print(f"WRONG: and {verdict.wrong - len(verdict.problems)} more")
        for lane in verdict.lanes:
            end = "" if lane["upto"] is None else f" up to {lane['upto']}"
            print(f"route {lane['route']}: delivered up to {lane['delivered']}{end}, {lane['waiting']} waiting")
        print(
            f"{verdict.reports} reports, {verdict.signatures} signatures good, {verdict.unknown} by keys that are not "
            f"in the kept roster, {verdict.gaps} gaps to tell, {verdict.set_aside} set aside"
        )
    return DONE if verdict.wrong == 0 else WRONG


def _reader(directory: Path) -> AbstractContextManager[sqlite3.Connection]:
    """Raises CommandError, DatabaseError, sqlite3.Error."""
    file = directory / FILE_NAME
    if not file.exists():
        raise CommandError(f"{file}: is not there: the gateway has not run yet, or the configuration is another's")
    return opened_beside(file)


def _rows(db: sqlite3.Connection) -> Iterator[tuple[Row, int]]:
    """Every report with its stored CRC, in order of arrival; those delivered meanwhile may be left out."""
    query = "select id, board, sequence, received_ms, closed_ms, body, crc from report where id > ? order by id limit ?"
    after = -1
    while rows := db.execute(query, (after, ROWS_AT_ONCE)).fetchall():
        for row in rows:
            yield Row(*row[:6]), row[6]
        after = rows[-1][0]


def verify(directory: Path, gateway: str) -> Verdict:
    """Pages, rows, signatures, chains, lanes. Raises CommandError, DatabaseError, sqlite3.Error."""
    verdict = Verdict()
    with _reader(directory) as db:
        for (sentence,) in db.execute(f"pragma integrity_check({MAX_PROBLEMS})"):
            if sentence != "ok":
                verdict.problem(f"the file: {sentence}")
        if verdict.wrong:
            return verdict  # what a damaged tree says of its rows is worth nothing
        keys = _keys(db, gateway, verdict)
        last: dict[str, int] = {}
        last_id = 0
        for row, crc in _rows(db):
            verdict.reports += 1
            if _check_row(row, crc, keys, verdict):  # by a former key it is of a former chain
                last[row.board] = max(last.get(row.board, 0), row.sequence)
            last_id = row.id
        _check_ledger(db, last, last_id, verdict)
        verdict.set_aside = db.execute("select count(*) from set_aside").fetchone()[0]
        verdict.gaps = db.execute("select count(*) from gap").fetchone()[0]
    for file in salvage.set_aside_files(directory):
        verdict.problem(f"{file} was damaged and waits for somebody to look at it")
    return verdict


def _keys(db: sqlite3.Connection, gateway: str, verdict: Verdict) -> dict[bytes, tuple[str, bytes]]:
    """kid -> board and signing key, of the roster that is kept in the database."""
    files = db.execute("select kind, body from signed_file order by version desc").fetchall()
    rosters = [body for kind, body in files if kind == "roster"]
    problem: WireError | None = None
    for body in [body for kind, body in files if kind.startswith("trust ")] if rosters else []:
        try:
            found = verified_roster(rosters[0], trust.trust_of(body, primitives.valid), gateway)
        except WireError as why:
            problem = problem or why  # of the newest
        else:
            return {credential.kid(entry.sign_key): (entry.board, entry.sign_key) for entry in found.entries}
    if rosters:
        verdict.problem(f"the kept roster: {problem or 'no trust is kept with it'}")
    return {}


def _check_row(row: Row, crc: int, keys: dict[bytes, tuple[str, bytes]], verdict: Verdict) -> bool:
    """Whether the board's key of today has signed it."""
    named = f"report {row.sequence} of {row.board}"
    if buffered.crc(row) != crc:
        verdict.problem(f"{named}: was changed on the card")
        return False
    try:
        signed = cose.parse(row.body, report.MAX_REPORT_BYTES)
        said = report_reading.report_of(signed.payload)
        if (said.board, said.sequence) != (row.board, row.sequence):
            verdict.problem(f"{named}: the report in it is {said.sequence} of {said.board}")
        elif signed.kid not in keys:
            verdict.unknown += 1
        elif keys[signed.kid][0] != row.board:
            verdict.problem(f"{named}: is signed with the key of {keys[signed.kid][0]}")
        else:
            cose.verify(signed, cose.REPORT, partial(primitives.valid, keys[signed.kid][1]))
            verdict.signatures += 1
            return True
    except WireError as why:
        verdict.problem(f"{named}: {why}")
    return False


def _check_ledger(db: sqlite3.Connection, last: dict[str, int], last_id: int, verdict: Verdict) -> None:
    # In one read: rows that arrived since are neither in `last` nor below a lane.
    chains = dict(db.execute("select board, sequence from chain").fetchall())
    for board, sequence in last.items():
        if chains.get(board, 0) < sequence:
            verdict.problem(f"{board}: its chain stands at {chains.get(board)}, report {sequence} is there")
    lanes = db.execute("select route, begins, delivered, upto from lane order by route, begins").fetchall()
    ends: dict[str, int] = {}
    for route, begins, delivered, upto in lanes:
        if not (begins <= delivered and (upto is None or delivered <= upto)) or begins < ends.get(route, 0):
            verdict.problem(f"route {route}: a lane from {begins} to {upto} stands at {delivered}")
        ends[route] = begins if upto is None else upto
        waiting = db.execute(
            "select count(*) from report where id > ? and id <= ?", (delivered, last_id if upto is None else upto)
        ).fetchone()[0]
        verdict.lanes.append({"route": route, "delivered": delivered, "upto": upto, "waiting": waiting})


def export(directory: Path, output: Path) -> tuple[int, int]:
    """Writes every report into a new file, a CBOR sequence (RFC 8742), synced. Reports written, damaged ones left out.

    Raises CommandError, DatabaseError, sqlite3.Error.
    """
    written = damaged = 0
    with _reader(directory) as db:
        try:
            with output.open("xb") as file:
                for row, crc in _rows(db):
                    if buffered.crc(row) == crc:
                        file.write(row.body)
                        written += 1
                    else:
                        damaged += 1
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError as why:
            raise CommandError(f"{output}: is there already: name a new file") from why
        except OSError as why:
            raise CommandError(f"{output}: cannot be written ({why.strerror}): give a place with room for it") from why
    return written, damaged


def vacuum(directory: Path) -> tuple[int, int]:
    """Writes the database anew, without the room that delivered reports have left. Its bytes before and after.

    Raises CommandError, DatabaseError, sqlite3.Error.
    """
    file = directory / FILE_NAME
    if not file.exists():
        raise CommandError(f"{file}: is not there: the gateway has not run yet, or the configuration is another's")
    lock = DirectoryLock(directory)
    try:
        lock.take()
    except DatabaseError as why:
        raise CommandError(f"the gateway runs: stop it first (systemctl stop laterne-gateway); {why}") from why
    try:
        before = file.stat().st_size
        disk = os.statvfs(directory)
        if disk.f_bavail * disk.f_frsize < 2 * before:  # the copy, and the log through which it comes back
            raise CommandError(f"{file}: needs {2 * before} free bytes for a while: make room first")
        salvage.finish(directory)
        db = open_database(directory)
        try:
            db.execute("vacuum")
            db.execute("pragma wal_checkpoint(truncate)")
        finally:
            db.close()
        return before, file.stat().st_size
    except OSError as why:
        raise CommandError(f"{directory}: {why.strerror}: see to the disk first") from why
    finally:
        lock.release()
