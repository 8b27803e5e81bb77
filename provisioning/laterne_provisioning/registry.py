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

VERSION = 1
WAIT_S = 10  # for another command that is writing: one transaction with one signature

PENDING, ENROLLED, REVOKED = "pending", "enrolled", "revoked"

SCHEMA = """
create table board (
    id                text    primary key,          -- painted on the post, 1..32 characters
    state             text    not null check (state in ('pending', 'enrolled', 'revoked')),
                      -- pending: the credential is signed and may be on the board; the board has not confirmed it
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    tier              integer not null,             -- 0 software, 1 chip, 2 secure element
    model             text    not null,
    hardware          blob    not null,             -- machine.unique_id()
    credential        blob    not null,             -- the COSE_Sign1 that the board holds, byte for byte
    credential_digest blob    not null,             -- 16 bytes; the predecessor of its first report
    post              text,                         -- the id of its post
    latitude          integer,                      -- WGS 84, 1e-7 degrees
    longitude         integer,
    begun             integer not null,             -- Unix seconds: the credential was signed
    enrolled          integer,                      -- Unix seconds: the board confirmed
    revoked           integer,                      -- Unix seconds
    reason            text,                         -- why it was revoked
    check ((latitude is null) = (longitude is null)),
    check ((enrolled is null) or state <> 'pending'),
    check ((revoked is null) = (state <> 'revoked'))
) strict;
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


@dataclass(frozen=True)
class Place:
    """Where a board hangs. post: its id. latitude, longitude: WGS 84, 1e-7 degrees, both or neither."""

    post: str
    latitude: int | None = None
    longitude: int | None = None


@dataclass(frozen=True)
class Board:
    """A row of the registry. Times are Unix seconds, keys 64 bytes x and y."""

    id: str
    state: str
    sign_key: bytes
    agree_key: bytes
    tier: int
    model: str
    hardware: bytes
    credential: bytes
    credential_digest: bytes
    place: Place | None
    begun: int
    enrolled: int | None
    revoked: int | None
    reason: str | None


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

    def boards(self) -> list[Board]:
        """All boards, by id."""
        return self._boards("order by id")

    def add(self, board: Board) -> None:
        """A new row; its place comes with it."""
        place = board.place or Place("")
        with self._plainly():
            self._database.execute(
                "insert into board (id, state, sign_key, agree_key, tier, model, hardware, credential,"
                " credential_digest, post, latitude, longitude, begun) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    place.post or None,
                    place.latitude,
                    place.longitude,
                    board.begun,
                ),
            )

    def hang(self, board_id: str, place: Place) -> None:
        """The board hangs there now."""
        with self._plainly():
            self._database.execute(
                "update board set post = ?, latitude = ?, longitude = ? where id = ?",
                (place.post, place.latitude, place.longitude, board_id),
            )

    def confirm(self, board_id: str, now: int) -> None:
        """The board has confirmed its credential. now: Unix seconds."""
        with self._plainly():
            self._database.execute(
                "update board set state = 'enrolled', enrolled = ? where id = ? and state = 'pending'", (now, board_id)
            )

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
                " post, latitude, longitude, begun, enrolled, revoked, reason from board " + condition,
                values,
            ).fetchall()
        boards = []
        for row in rows:
            place = None if row[9] is None else Place(row[9], row[10], row[11])
            boards.append(Board(*[*row[:9], place, *row[12:]]))
        return boards

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
