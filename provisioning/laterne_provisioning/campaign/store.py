"""A campaign on the disk: AUTHORITY/campaigns/<id>/, written by one process at a time.

    plan.json         what was decided at the start; never changed
    release.laterne   the release file itself
    approval          the second person's signature over the plan's digest, if one is needed
    journal           one line for each moment at which something changed: what is in it took effect together
    lock              held by the one who writes
    request           what another command asks of the one who writes: pause, resume, abort
    shares            how much of the release boards have fetched, as their gateways say: a hint for who looks on

A line of the journal is JSON, a tab, the SHA-256 of that JSON (hex), a newline. It is on the disk before anything that
it says has an effect outside: an order that went out is known afterwards, whenever we were killed. A line that was not
finished is the last one, and nothing that it says has happened. Whoever opens the journal to write makes one line of
all of it first, beside, and renames.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laterne_provisioning import files
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.plan import Plan, plan_of
from laterne_provisioning.campaign.rows import Course, Row, row_of
from laterne_provisioning.errors import OperatorError, UsageError

FOLDER = "campaigns"
PLAN, RELEASE, APPROVAL, JOURNAL, LOCK, REQUEST, SHARES = (
    "plan.json",
    "release.laterne",
    "approval",
    "journal",
    "lock",
    "request",
    "shares",
)
REQUESTS = ("pause", "resume", "abort")
MAX_REQUEST_BYTES = 16


@dataclass
class State:
    """What a journal comes to. course: None before its first line."""

    course: Course | None
    rows: dict[str, Row]


class Store:
    """One campaign's folder. Every method raises OperatorError when the disk fails or does not hold what it should."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal: int | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    def plan(self) -> Plan:
        with self._plainly():
            return plan_of((self.folder / PLAN).read_bytes())

    def release(self) -> bytes:
        """The release file."""
        with self._plainly():
            return (self.folder / RELEASE).read_bytes()

    def approval(self) -> bytes:
        """The second person's signature; b"": there is none."""
        with self._plainly():
            path = self.folder / APPROVAL
            return path.read_bytes() if path.exists() else b""

    def approve(self, signed: bytes) -> None:
        with self._plainly():
            files.write_public(self.folder / APPROVAL, signed)

    def read(self) -> State:
        """What the journal says now. Also while another process writes it."""
        with self._plainly():
            return _state_of((self.folder / JOURNAL).read_bytes(), self.folder)

    def engine(self) -> Engine:
        """The machine as it was stored."""
        state = self.read()
        return Engine(self.plan(), state.course, state.rows)

    def shares(self) -> dict[str, float]:
        """How much of the release boards have fetched, 0..1, as was heard last by the command that runs this."""
        try:
            found = json.loads((self.folder / SHARES).read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(board): float(share) for board, share in found.items()}

    def note_shares(self, shares: Mapping[str, float]) -> None:
        """For shares(). Renamed into place, never synced: it is worth nothing after a loss of power."""
        with self._plainly():
            beside = self.folder / f".{SHARES}"
            beside.write_text(json.dumps(shares))
            beside.rename(self.folder / SHARES)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one who writes. Raises OperatorError: another process is."""
        with self._plainly():
            lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE_FILE)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as why:
                raise OperatorError(f"{self.id} is being run by another command: one is enough.") from why
            with self._plainly():
                self._compact()
                self._journal = os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            yield
        finally:
            if self._journal is not None:
                os.close(self._journal)
                self._journal = None
            os.close(lock)

    def is_run(self) -> bool:
        """Whether a process writes it now."""
        try:
            with self._locked_for_a_moment():
                return False
        except BlockingIOError:
            return True

    def commit(self, course: Course, rows: Mapping[str, Row], at: int) -> None:
        """Bring these to the disk, all or nothing."""
        assert self._journal is not None, "only within writing()"
        with self._plainly():
            _write(self._journal, _line(at, course, rows))

    def ask(self, what: str) -> None:
        """Leave a request to the one who writes."""
        with self._plainly():
            files.write_public(self.folder / REQUEST, what.encode())

    def request(self) -> str | None:
        """What another command has asked for; it is taken away."""
        path = self.folder / REQUEST
        with self._plainly():
            try:
                with path.open("rb") as file:
                    found = file.read(MAX_REQUEST_BYTES).decode("ascii", "replace")
            except FileNotFoundError:
                return None
            path.unlink()
        return found if found in REQUESTS else None

    def _compact(self) -> None:
        path = self.folder / JOURNAL
        state = _state_of(path.read_bytes(), self.folder)
        course = state.course
        files.write_public(path, b"" if course is None else _line(course.since, course, state.rows))

    @contextmanager
    def _locked_for_a_moment(self) -> Iterator[None]:
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE_FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except OSError as why:
            raise OperatorError(f"The campaign in {self.folder} cannot be used: {why.strerror}.") from why


def create(authority: Path, plan: Plan, release: bytes) -> Store:
    """A new campaign's folder; whole, or not there. Raises OperatorError."""
    parent = authority / FOLDER
    folder = parent / plan.id
    beside = parent / f".{plan.id}.unfinished"
    try:
        parent.mkdir(mode=files.PRIVATE_DIRECTORY, exist_ok=True)
        beside.mkdir(mode=files.PRIVATE_DIRECTORY)
        files.write_public(beside / RELEASE, release)
        files.write_public(beside / PLAN, plan.to_json())
        files.write_public(beside / JOURNAL, b"")
        beside.rename(folder)
        files.sync_directory(parent)
    except OSError as why:
        raise OperatorError(f"The campaign cannot be written to {folder}: {why.strerror}.") from why
    return Store(folder)


def stores(authority: Path) -> list[Store]:
    """All campaigns of an authority, the oldest first."""
    parent = authority / FOLDER
    if not parent.is_dir():
        return []
    return [Store(path) for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def store_of(authority: Path, name: str | None) -> Store:
    """The campaign with this id, or the newest. Raises UsageError: there is none."""
    found = stores(authority)
    if name is None and found:
        return found[-1]
    chosen = next((one for one in found if one.id == name), None)
    if chosen is None:
        known = ", ".join(one.id for one in found[-5:]) or "none yet"
        raise UsageError(f"There is no campaign {name or ''}: {known}. Begin one with `laterne campaign start`.")
    return chosen


def _line(at: int, course: Course, rows: Mapping[str, Row]) -> bytes:
    document = {"at": at, "course": asdict(course), "rows": {board: row.document() for board, row in rows.items()}}
    content = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    return content + b"\t" + hashlib.sha256(content).hexdigest().encode() + b"\n"


def _parts_of(line: bytes) -> dict[str, Any] | None:
    content, _, digest = line.partition(b"\t")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    found: dict[str, Any] = json.loads(content)
    return found


def _state_of(data: bytes, folder: Path) -> State:
    course, rows = None, {}
    *whole, torn = data.split(b"\n")  # after the last newline stands nothing, or what was not finished
    for number, line in enumerate(whole, 1):
        try:
            parts = _parts_of(line)
            if parts is None:
                raise ValueError("its digest is not that of its content")
            course = Course(**parts["course"])
            rows.update({board: row_of(document) for board, document in parts["rows"].items()})
        except (ValueError, TypeError, KeyError) as why:
            raise OperatorError(
                f"Line {number} of {folder / JOURNAL} is damaged ({why}): bring it back from a backup."
            ) from why
    parts = None if not torn else _parts_of(torn)
    if parts is not None:  # only its newline is missing
        course = Course(**parts["course"])
        rows.update({board: row_of(document) for board, document in parts["rows"].items()})
    return State(course, rows)


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
