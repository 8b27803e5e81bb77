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

from laterne_provisioning import files
from laterne_provisioning.errors import OperatorError, UsageError

VERSION = 2
WAIT_S = 10  # for another command that is writing: one transaction with one signature

PENDING, ENROLLED, REVOKED, REJECTED, REPLACED = "pending", "enrolled", "revoked", "rejected", "replaced"
ENDED = (REVOKED, REJECTED, REPLACED)  # no way leads back from these

BOARDS = """
create table board (
    id                text    primary key,          -- painted on the board, 1..32 characters
    state             text    not null check (state in ('pending', 'enrolled', 'revoked', 'rejected', 'replaced')),
                      -- pending: the credential is signed and may be on the board; something is still missing:
                      -- that the board confirms it, or that a second person accepts the board
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    tier              integer not null,             -- 0 software, 1 chip, 2 secure element
    model             text    not null,
    hardware          blob    not null,             -- machine.unique_id()
    credential        blob    not null,             -- the COSE_Sign1 that the board holds, byte for byte
    credential_digest blob    not null,             -- 16 bytes; the predecessor of its first report
    begun             integer not null,             -- Unix seconds: the credential was signed
    decision          integer not null,             -- 1: a second person must accept it
    delivered         integer,                      -- Unix seconds: the board confirmed
    enrolled          integer,                      -- Unix seconds: confirmed, and accepted if that was needed
    ended             integer,                      -- Unix seconds: revoked, rejected or replaced
    reason            text,                         -- why it ended
    replaced_by       text,                         -- the board that took its post
    check ((enrolled is null) or state <> 'pending'),
    check ((ended is null) = (state in ('pending', 'enrolled')))
) strict
"""
HANGINGS = """
create table hanging (                              -- which board hung at which post: never deleted
    board     text    not null,
    post      text    not null,                     -- the id of the post
    latitude  integer,                              -- WGS 84, 1e-7 degrees
    longitude integer,
    since     integer not null,                     -- Unix seconds
    until     integer,                              -- Unix seconds; null: it hangs there
    check ((latitude is null) = (longitude is null))
) strict
"""
SCHEMA = f"""
{BOARDS};
{HANGINGS};
create unique index hangs on hanging (board) where until is null;
create table roster (
    gateway text    not null,
    version integer not null,                       -- one more for each roster of a gateway
    issued  integer not null,                       -- Unix seconds
    digest  blob    not null,                       -- SHA-256 of its payload, 32 bytes
    body    blob    not null,                       -- the COSE_Sign1
    primary key (gateway, version)
) strict;
create table if not exists roster_floor (           -- after a restore: what may have been given out since the backup
    version integer not null                        -- no roster gets a lower one
) strict;
"""
# Version 1 had the place in the board's row, and knew no second person and no replacing.
FROM_1 = f"""
alter table board rename to former;
{BOARDS};
{HANGINGS};
create unique index hangs on hanging (board) where until is null;
insert into board select id, state, sign_key, agree_key, tier, model, hardware, credential, credential_digest, begun, 0,
    enrolled, enrolled, revoked, reason, null from former;
insert into hanging select id, post, latitude, longitude, coalesce(enrolled, begun), revoked
    from former where post is not null;
drop table former;
create table if not exists roster_floor (version integer not null) strict
"""


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
class Board:
    """A row of the registry. Times are Unix seconds, keys 64 bytes x and y.

    hangings: where it hung and hangs, the oldest first. decision: whether a second person must accept it.
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
            if version == 1:
                version = self._from_1()
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

    def board(self, board_id: str) -> Board | None:
        """The board with this id."""
        return next(iter(self._boards("where id = ?", board_id)), None)

    def board_with_key(self, sign_key: bytes) -> Board | None:
        """The board with this signing key."""
        return next(iter(self._boards("where sign_key = ?", sign_key)), None)

    def board_with_agree_key(self, agree_key: bytes) -> Board | None:
        """A board with this agreement key."""
        return next(iter(self._boards("where agree_key = ?", agree_key)), None)

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
        hangings: dict[str, list[Hanging]] = {}
        for board, post, latitude, longitude, since, until in hung:
            hangings.setdefault(board, []).append(Hanging(Place(post, latitude, longitude), since, until))
        return [Board(*[*row[:10], bool(row[10]), *row[11:], tuple(hangings.get(row[0], ()))]) for row in rows]

    def _from_1(self) -> int:
        """Bring a registry of version 1 to this one. Its version now: another command may have been faster."""
        with self.transaction(), self._plainly():
            version: int = self._database.execute("pragma user_version").fetchone()[0]
            if version == 1:
                for statement in FROM_1.split(";\n"):
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
