"""Many boards in one go: a CSV says which boards there are to be, and each row is enrolled as enrol.py does it.

A row is done when the registry says that its board has confirmed its credential, so the command can be stopped anywhere
and given again, with the same boards plugged in or with the next ones. Rows do not depend on each other: what fails is
told at the end and tried again by the next run.

    id,port,post,latitude,longitude         the header names the columns; only id must be there
    LE-0001,/dev/ttyUSB0,P-1,48.1374,11.5755

Without a port a row takes the next of the ports given for all: a board that has an id already keeps it, the others get
the open ids in their order.
"""

import csv
import glob
import io
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from laterne_protocol import credential
from laterne_provisioning import enrol, keys
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line
from laterne_provisioning.registry import ENDED, Place

COLUMNS = ("id", "port", "post", "latitude", "longitude")
MAX_BYTES = 1 << 20
MAX_ROWS = 10_000

Job = TypeVar("Job")
Done = TypeVar("Done")

ENROLLED, ALREADY, WOULD, FAILED = RESULTS = "enrolled", "already", "would enrol", "failed"


BLANK = ""  # in place of an id: a board that no row knows


@dataclass(frozen=True)
class Row:
    """One board that there is to be. number: of its line in the file. place: None to leave it where it hangs."""

    number: int
    board: str
    port: str | None
    place: Place | None


@dataclass(frozen=True)
class Result:
    """What a row has come to: one of ENROLLED, ALREADY, WOULD, FAILED. said: the reason, or what was found."""

    row: Row
    result: str
    said: str


def rows_of(path: Path) -> list[Row]:
    """The rows of a CSV file in UTF-8, with commas or, as spreadsheets in German write it, semicolons.

    Raises UsageError that names the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as why:
        raise UsageError(f"The CSV file cannot be read: {why.strerror}: {path}") from why
    except UnicodeDecodeError as why:
        raise UsageError(f"{path} is not text in UTF-8: save it as CSV UTF-8.") from why
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes: split it.")
    separator = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, strict=True)
    rows: list[Row] = []
    seen: set[str] = set()
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if "id" not in names or set(names) - set(COLUMNS) or len(set(names)) != len(names):
            raise UsageError(
                f"The first line of {path} must name the columns: id, and any of {', '.join(COLUMNS[1:])}."
            )
        reader.fieldnames = names
        for cells in reader:
            row = _row(cells, reader.line_num, separator == ";")
            for mark in (row.board, f"port {row.port}"):
                if mark in seen and mark != "port None":
                    raise UsageError(f"line {row.number}: {mark} stands there twice")
                seen.add(mark)
            rows.append(row)
    except (UsageError, csv.Error) as why:
        raise UsageError(f"{path}: {str(why).rstrip('.')}. Nothing was done.") from why
    if not 0 < len(rows) <= MAX_ROWS:
        raise UsageError(f"{path} has {len(rows)} rows, 1 to {MAX_ROWS} can be enrolled in one go.")
    return rows


def enrol_rows(
    authority: Authority,
    rows: Sequence[Row],
    spare_ports: Sequence[str],
    key: keys.SigningKey | None,
    jobs: int,
    decision: bool,
) -> Iterator[Result]:
    """Enrol them, `jobs` at a time; a result for each as it comes.

    spare_ports: for the rows without one. key: the enrolment key, opened; None only says what would be done.
    decision: new boards wait for a second person. Stop by not asking for more: what is under way may be killed.
    """
    open_rows = []
    with authority.registry() as registry:
        for row in rows:
            board = registry.board(row.board)
            if board is not None and board.state not in ENDED and board.delivered is not None:
                # The board is not asked: it may hang on its post already.
                moved = row.place is not None and row.place != board.place
                if moved and row.place is not None and key is not None:
                    with registry.transaction():
                        enrol.hang(authority, registry, row.board, row.place, int(time.time()))
                yield Result(row, ALREADY, f"hangs at {row.place.post} now" if moved and row.place else "")
            else:
                open_rows.append(row)
    if any(row.port is None for row in open_rows):
        taken = {row.port for row in rows}
        open_rows = yield from _with_ports(authority, open_rows, [p for p in spare_ports if p not in taken], jobs)

    def work(row: Row) -> Result:
        assert row.port is not None
        try:
            with authority.registry() as registry, Line(row.port) as line:
                if key is None:
                    return Result(row, WOULD, enrol.foreseen(line, registry, row.board))
                done = enrol.enrol(
                    line, authority, registry, key, row.board, row.place, int(time.time()), lambda _: None, decision
                )
                return Result(
                    row, ALREADY if done.already else ENROLLED, enrol.fingerprint(credential.kid(done.board.sign_key))
                )
        except OperatorError as why:
            return Result(row, FAILED, str(why))

    yield from _side_by_side(work, open_rows, jobs)


def ports_of(patterns: Sequence[str]) -> list[str]:
    """The ports that patterns such as "/dev/serial/by-id/*" name, in the order people count. Raises UsageError."""
    found: list[str] = []
    for pattern in patterns:
        ports = sorted(glob.glob(pattern), key=_as_people_count)
        if not ports:
            raise UsageError(f"There is no port {pattern}: is the adapter plugged in?")
        found += [port for port in ports if port not in found]
    return found


def _with_ports(
    authority: Authority, rows: Sequence[Row], ports: Sequence[str], jobs: int
) -> Generator[Result, None, list[Row]]:
    """The rows with a port each; those for which there is none are yielded as failed."""
    wanted = {row.board for row in rows if row.port is None}
    with authority.registry() as registry:
        boards = registry.boards()
    ids = {credential.kid(board.sign_key): board.id for board in boards}
    # Who may hang on a port and be enrolled: boards whose confirmation was lost. The others are not asked for any more.
    unconfirmed = [board for board in boards if board.id in wanted and board.delivered is None]

    def asked(port: str) -> tuple[str, str | None]:
        try:
            with Line(port) as line:
                identity = enrol.identity(line)
                if identity is not None:
                    return port, ids.get(identity.kid or b"", BLANK)
                board = enrol.whose(line, unconfirmed)
                return port, None if board is None else board.id
        except OperatorError:
            return port, None  # nobody there: the rows that are left without a board say so

    found = dict(_side_by_side(asked, ports, jobs))
    by_id: dict[str, str] = {}
    blank: list[str] = []
    for port in ports:
        board_id = found[port]
        if board_id == BLANK:
            blank.append(port)
        elif board_id in wanted:
            by_id.setdefault(board_id, port)
    ready: list[Row] = []
    for row in rows:
        chosen = row.port or by_id.get(row.board)
        if chosen is None and blank:
            chosen = blank.pop(0)
        if chosen is None:
            yield Result(row, FAILED, "No board is left for it: plug in more and give the same command again.")
        else:
            ready.append(replace(row, port=chosen))
    return ready


def _side_by_side(work: Callable[[Job], Done], jobs: Sequence[Job], at_a_time: int) -> Iterator[Done]:
    """What `work` makes of each, as it comes. What it raises is raised here."""
    todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        todo.put(job)
    done: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                job = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(work(job))
            except BaseException as why:
                done.put(why)

    # Daemons: after Ctrl-C nobody waits for a board that does not answer. Killed anywhere is safe (enrol.py).
    for _ in range(min(at_a_time, len(jobs))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in jobs:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stop.set()


def _row(cells: "dict[str | None, str | list[str] | None]", number: int, german: bool) -> Row:
    if None in cells or None in cells.values():
        raise UsageError(f"line {number}: it has not as many cells as the first line")
    given = {str(name): str(value).strip() for name, value in cells.items()}
    post, latitude, longitude = (given.get(name, "") for name in COLUMNS[2:])
    place = None
    if bool(latitude) != bool(longitude) or (latitude and not post):
        raise UsageError(f"line {number}: a place has a post, a latitude and a longitude, or only a post, or nothing")
    if latitude:
        place = Place(post, _degrees(latitude, 90, number, german), _degrees(longitude, 180, number, german))
    elif post:
        place = Place(post)
    try:
        enrol.check_ids(given["id"], place)
    except UsageError as why:
        raise UsageError(f"line {number}: {why}") from why
    return Row(number, given["id"], given.get("port") or None, place)


def _degrees(text: str, most: int, number: int, german: bool) -> int:
    try:
        value = float(text.replace(",", ".") if german else text)
    except ValueError:
        value = math.nan
    if not abs(value) <= most:
        raise UsageError(f"line {number}: {text!r} is no number of degrees from -{most} to {most}")
    return round(value * 1e7)


def _as_people_count(port: str) -> list[tuple[int, str]]:
    # ttyUSB2 before ttyUSB10
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", port)]
