"""The registry: which boards there are, what they hold, where they hang, and which rosters have been issued.

One SQLite file in the authority directory, with a rollback journal and synchronous=FULL: what a command has said
is done is on the disk, and the file alone is the whole registry.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laterne_provisioning import files
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.order_book import DECOMMISSION, Done
from laterne_provisioning.registry_tables import FORMER_VERSIONS, SCHEMA, VERSION

WAIT_S = 10  # for another command that is writing: one transaction with one signature

PENDING, ENROLLED, REVOKED, REJECTED, REPLACED = "pending", "enrolled", "revoked", "rejected", "replaced"
DECOMMISSIONED = "decommissioned"
ENDED = (REVOKED, REJECTED, REPLACED, DECOMMISSIONED)  # no way leads back from these


@dataclass(frozen=True)
class Place:
    """Where a board hangs. post: its id. latitude, longitude: WGS 84, 1e-7 degrees, both or neither."""

    post: str
    latitude: int | None = None
    longitude: int | None = None


@dataclass(frozen=True)
class Hanging:
    """That a board hung at a place. since, until: Unix seconds; until is None while it hangs there."""

    place: Place
    since: int
    until: int | None


@dataclass(frozen=True)
class Former:
    """Keys that a board had until it got others. last: sequence of the last report that they signed."""

    sign_key: bytes
    agree_key: bytes
    credential: bytes
    credential_digest: bytes
    last: int
    until: int


@dataclass(frozen=True)
class Board:
    """A row of the registry. Times are Unix seconds, keys 64 bytes x and y.

    hangings: where it hung and hangs, the oldest first. decision: whether a second person must accept it.
    formers: the keys that it had before, the oldest first. receipts: what it has done by order, the oldest first.
    under_way: (act, step) of the order that is out (order_book.py).
    """

    id: str
    state: str
    sign_key: bytes
    agree_key: bytes
    tier: int
    model: str
    hardware: bytes
    credential: bytes
    credential_digest: bytes
    begun: int
    decision: bool
    delivered: int | None = None
    enrolled: int | None = None
    ended: int | None = None
    reason: str | None = None
    replaced_by: str | None = None
    hangings: tuple[Hanging, ...] = ()
    formers: tuple[Former, ...] = ()
    receipts: tuple[Done, ...] = ()
    under_way: tuple[str, str] | None = None

    @property
    def last(self) -> int | None:
        """Sequence of its last report, once it is decommissioned: its own word."""
        return next((done.last for done in self.receipts if done.act == DECOMMISSION), None)

    @property
    def chain_digest(self) -> bytes:
        """What its report 1 names as the one before: the credential that it had then. New keys begin no chain."""
        return next((one.credential_digest for one in self.formers if one.last), self.credential_digest)

    @property
    def place(self) -> Place | None:
        """Where it hangs now."""
        return next((hanging.place for hanging in self.hangings if hanging.until is None), None)


@dataclass(frozen=True)
class IssuedRoster:
    """The newest roster of a gateway. digest: of its payload, 32 bytes."""

    version: int
    digest: bytes


def create(path: Path) -> None:
    """A new registry, empty, 0600. Raises FileExistsError, OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, files.PRIVATE_FILE))
    database = sqlite3.connect(path)
    try:
        database.execute("pragma synchronous = full")
        database.executescript(f"begin; {SCHEMA} pragma user_version = {VERSION}; commit;")
    finally:
        database.close()


class Registry:
    """An open registry. Use it in a `with`. Every method raises OperatorError when SQLite cannot do its work."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"The registry is missing: {path}. Bring it back from a backup.")
        self._path = path
        # Transactions are begun and ended in transaction() only.
        self._database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
        try:
            with self._plainly():
                self._database.execute("pragma synchronous = full")
                version = self._database.execute("pragma user_version").fetchone()[0]
            if version in FORMER_VERSIONS:
                version = self._from_former()
            if version != VERSION:
                raise UsageError(
                    f"{path} is a registry of version {version}, this program knows {VERSION}: use the laterne "
                    "that wrote it."
                )
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One writer at a time; all of it or nothing."""
        with self._plainly():
            self._database.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._database.execute("rollback")
            raise
        with self._plainly():
            self._database.execute("commit")

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """For what keeps tables of its own in this file (order_book.py, grants.py): the rows found."""
        with self._plainly():
            return self._database.execute(statement, values).fetchall()

    def board(self, board_id: str) -> Board | None:
        """The board with this id."""
        return next(iter(self._boards("where id = ?", board_id)), None)

    def board_with_key(self, key: bytes) -> Board | None:
        """The board that has this key, or had it, whether it signs or agrees with it."""
        # A board proves that it has its signing key, and only names the other one. If that were another's, of either
        # kind, no gateway would take a roster with both of them (protocol/README.md, 7).
        has = "sign_key = ?1 or agree_key = ?1"
        return next(iter(self._boards(f"where {has} or id in (select board from former where {has})", key)), None)

    def boards(self) -> list[Board]:
        """All boards, by id."""
        return self._boards("order by id")

    def add(self, board: Board) -> None:
        """A new row, without a place."""
        with self._plainly():
            self._database.execute(
                "insert into board values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    board.id,
                    board.state,
                    board.sign_key,
                    board.agree_key,
                    board.tier,
                    board.model,
                    board.hardware,
                    board.credential,
                    board.credential_digest,
                    board.begun,
                    int(board.decision),
                    board.delivered,
                    board.enrolled,
                    board.ended,
                    board.reason,
                    board.replaced_by,
                ),
            )

    def hang(self, board_id: str, place: Place, now: int) -> None:
        """The board hangs there from now on, Unix seconds; where it hung before stays known."""
        with self._plainly():
            found = self._database.execute(
                "update hanging set latitude = ?, longitude = ? where board = ? and post = ? and until is null",
                (place.latitude, place.longitude, board_id, place.post),
            )
            if found.rowcount:
                return  # the same post; its place may have been measured anew
            self.take_down(board_id, now)
            self._database.execute(
                "insert into hanging values (?, ?, ?, ?, ?, null)",
                (board_id, place.post, place.latitude, place.longitude, now),
            )

    def take_down(self, board_id: str, now: int) -> None:
        """The board hangs nowhere from now on, Unix seconds."""
        with self._plainly():
            self._database.execute("update hanging set until = ? where board = ? and until is null", (now, board_id))

    def confirm(self, board_id: str, now: int) -> None:
        """The board has confirmed its credential; it is enrolled, unless a second person decides. now: Unix seconds."""
        with self._plainly():
            self._database.execute(
                "update board set delivered = ? where id = ? and state = 'pending' and delivered is null",
                (now, board_id),
            )
            self._database.execute(
                "update board set state = 'enrolled', enrolled = ? where id = ? and state = 'pending' and decision = 0",
                (now, board_id),
            )

    def accept(self, board_id: str, now: int) -> None:
        """A second person has accepted the board. now: Unix seconds."""
        with self._plainly():
            self._database.execute(
                "update board set state = 'enrolled', enrolled = ?"
                " where id = ? and state = 'pending' and delivered is not null",
                (now, board_id),
            )

    def end(self, board_id: str, state: str, now: int, reason: str) -> None:
        """The board is one of ENDED from now on, Unix seconds, and hangs nowhere."""
        with self._plainly():
            self._database.execute(
                "update board set state = ?, ended = ?, reason = ? where id = ? and state in ('pending', 'enrolled')",
                (state, now, reason, board_id),
            )
            self.take_down(board_id, now)

    def change_keys(self, new: Board, last: int, now: int) -> None:
        """The board has the keys and the credential of `new` from now on, Unix seconds.

        last: sequence of the last report that the former ones signed.
        """
        with self._plainly():
            self._database.execute(
                "insert into former select id, sign_key, agree_key, credential, credential_digest, ?, ? from board"
                " where id = ?",
                (last, now, new.id),
            )
            self._database.execute(
                "update board set sign_key = ?, agree_key = ?, credential = ?, credential_digest = ? where id = ?",
                (new.sign_key, new.agree_key, new.credential, new.credential_digest, new.id),
            )

    def succeed(self, old: str, new: str) -> None:
        """The board `new` has taken the place of `old`."""
        with self._plainly():
            self._database.execute("update board set replaced_by = ? where id = ?", (new, old))

    def newest_roster(self, gateway: str) -> IssuedRoster | None:
        """The roster of a gateway with the highest version."""
        with self._plainly():
            row = self._database.execute(
                "select version, digest from roster where gateway = ? order by version desc limit 1", (gateway,)
            ).fetchone()
        return None if row is None else IssuedRoster(*row)

    def rosters(self) -> list[tuple[str, int, bytes]]:
        """Gateway, version and digest of every roster issued."""
        with self._plainly():
            return self._database.execute("select gateway, version, digest from roster order by 1, 2").fetchall()

    def roster_floor(self) -> int:
        """The lowest version that a new roster may have."""
        with self._plainly():
            return int(self._database.execute("select coalesce(max(version), 1) from roster_floor").fetchone()[0])

    def raise_roster_floor(self, version: int) -> None:
        """No roster gets a lower version from now on."""
        with self._plainly():
            self._database.execute("insert into roster_floor values (?)", (version,))

    def copy(self) -> bytes:
        """The whole registry as the bytes of its file, all of one moment (sqlite.org/backup.html)."""
        # By a second connection: the backup of one that is writing is refused.
        with (
            self._plainly(),
            closing(sqlite3.connect(self._path)) as source,
            closing(sqlite3.connect(":memory:")) as to,
        ):
            source.backup(to)
            return to.serialize()

    def add_roster(self, gateway: str, version: int, issued: int, digest: bytes, body: bytes) -> None:
        """A roster that has been signed. body: the COSE_Sign1."""
        with self._plainly():
            self._database.execute(
                "insert into roster values (?, ?, ?, ?, ?)", (gateway, version, issued, digest, body)
            )

    def _boards(self, condition: str, *values: object) -> list[Board]:
        with self._plainly():
            rows = self._database.execute(
                "select id, state, sign_key, agree_key, tier, model, hardware, credential, credential_digest,"
                " begun, decision, delivered, enrolled, ended, reason, replaced_by from board " + condition,
                values,
            ).fetchall()
            hung = self._database.execute(
                "select board, post, latitude, longitude, since, until from hanging order by rowid"
            ).fetchall()
            had = self._database.execute(
                "select board, sign_key, agree_key, credential, credential_digest, last, until from former"
                " order by rowid"
            ).fetchall()
            done = self._database.execute("select * from receipt order by board, counter").fetchall()
            out = {row[0]: row[1:] for row in self._database.execute("select board, act, step from under_way")}
        hangings: dict[str, list[Hanging]] = {}
        for board, post, latitude, longitude, since, until in hung:
            hangings.setdefault(board, []).append(Hanging(Place(post, latitude, longitude), since, until))
        formers: dict[str, list[Former]] = {}
        for board, *parts in had:
            formers.setdefault(board, []).append(Former(*parts))
        receipts: dict[str, list[Done]] = {}
        for one in done:
            receipts.setdefault(one[0], []).append(Done(*one))
        found = []
        for row in rows:
            lists = tuple(tuple(by_board.get(row[0], ())) for by_board in (hangings, formers, receipts))
            more = (*lists, out.get(row[0]))
            found.append(Board(*[*row[:10], bool(row[10]), *row[11:], *more]))
        return found

    def _from_former(self) -> int:
        """Bring a registry of a former version to this one. Its version now: another command may have been faster."""
        with self.transaction(), self._plainly():
            version: int = self._database.execute("pragma user_version").fetchone()[0]
            if version in FORMER_VERSIONS:
                for statement in FORMER_VERSIONS[version].split(";\n"):
                    self._database.execute(statement)
                version = VERSION
                self._database.execute(f"pragma user_version = {version}")
        return version

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as why:
            if "locked" in str(why):
                raise OperatorError(
                    f"Another command has been writing to {self._path} for more than {WAIT_S} s: wait for it."
                ) from why
            raise OperatorError(f"The registry {self._path} cannot be used: {why}.") from why
        except sqlite3.DatabaseError as why:
            raise OperatorError(
                f"The registry {self._path} cannot be used: {why}. Bring it back from a backup."
            ) from why
