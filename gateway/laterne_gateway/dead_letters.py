"""What platforms have refused for good: kept, shown, and sent again when an operator asks for it.

A row is here before its route's lane passes the report, so nothing is ever neither here, nor waiting, nor delivered.

Two things must not happen: a platform that refuses everything empties the buffer into this list, and a board that
signs what fits nowhere fills it for all others.

- Nothing becomes a dead letter while its platform takes nothing at all (routes/blame.py).
- Of MAX_DEAD_LETTERS a board has a share: they are full when more than half of the boards have theirs. While fewer
  have, it is they: what else is refused of them is passed over. When they are full it is more likely the platform: what
  is refused waits then, with an alarm, whosever it is. Boards of which everything is taken go on. A board of which
  something waits goes on until what is under way in the lane is as much as memory holds (routes/feed.py, MAX_AHEAD);
  where that is every board the route stops.

Both are re-derived from these rows after a restart. A gateway with one board passes over nothing: its share is all.

What is passed over is lost to the platform, so it is stated, also when it was the platform's mistake: before the lane
passes the report there is a row for its route and board (table passed_over), or the row of these covers it: from which
report to which, of how many of them something was refused and not kept, and why at last. One commit a report, not one
for each observation: a board may sign 800 a minute. The number is the most that it can be: what a process had passed
over when it was killed is refused once more and counted again. An alarm stands until somebody has seen the rows
(`laterne-gateway dead seen`); there is one for each route and board, so they are bounded.

`laterne-gateway dead retry` marks rows from another process, in a transaction of its own; the route that runs looks
for marked ones every LOOK_EVERY_S.
"""

import sqlite3
from collections import deque
from dataclasses import dataclass

from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock

MAX_DEAD_LETTERS = 10_000  # of a route; about 4 MiB
MAX_REASON_BYTES = 300
LOOK_EVERY_S = 10.0
AGAIN_AT_ONCE = 100
STATED_REPORTS = 256  # passed over last, in memory; one that is forgotten here is counted once more
WHOLE_REPORT = "report"
HOW_MANY = "select count(*) from dead_letter where route = ?"


@dataclass(frozen=True)
class DeadLetter:
    """place: which observation of the report, or WHOLE_REPORT. body: JSON, or the report's signed bytes. id 0: new."""

    board: str
    sequence: int
    place: str
    reason: str
    body: bytes
    noticed_ms: int | None = None
    id: int = 0
    again: bool = False
    route: str = ""


@dataclass(frozen=True)
class PassedOver:
    """Of so many reports of a board, from first to last, something was refused and not kept. reason: the newest."""

    route: str
    board: str
    first: int
    last: int
    reports: int
    reason: str
    noticed_ms: int | None


class DeadLetters:
    """Those of one route."""

    def __init__(self, route: str, buffer: Buffer, clock: Clock) -> None:
        self._route = route
        self._buffer = buffer
        self._clock = clock
        self._stated: deque[tuple[str, int]] = deque(maxlen=STATED_REPORTS)

    async def put(self, letter: DeadLetter, boards: int) -> bool | None:
        """Keeps it; one that was refused again has a new reason. boards: of how many this route delivers.

        False: there are too many. None: its board has its share; it is passed over, and that is stated. Raises
        StoreError.
        """
        noticed_ms = self._clock.utc_ms()
        reason = letter.reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="replace")
        is_stated = (letter.board, letter.sequence) in self._stated

        def insert(db: sqlite3.Connection, _: object) -> bool | None:
            which = (self._route, letter.board, letter.sequence, letter.place)
            if not db.execute(f"{HOW_MANY} and board = ? and sequence = ? and place = ?", which).fetchone()[0]:
                of_all, of_board = db.execute(
                    "select count(*), count(*) filter (where board = ?2) from dead_letter where route = ?1", which[:2]
                ).fetchone()
                share = share_of(boards)
                if of_all >= share * majority_of(boards):
                    return False
                if of_board >= share:
                    _state(db, letter, self._route, reason, noticed_ms, is_stated=is_stated)
                    return None
            db.execute(
                "insert into dead_letter (route, board, sequence, place, again, reason, noticed_ms, body) "
                "values (?, ?, ?, ?, 0, ?, ?, ?) on conflict (route, board, sequence, place) do update set "
                "again = 0, reason = excluded.reason, noticed_ms = excluded.noticed_ms, body = excluded.body",
                (
                    self._route,
                    letter.board,
                    letter.sequence,
                    letter.place,
                    reason,
                    noticed_ms,
                    letter.body,
                ),
            )
            return True

        kept = await self._buffer.write(insert)
        if kept is None:
            if not is_stated:
                self._stated.append((letter.board, letter.sequence))
            return None
        return bool(kept)

    async def to_send_again(self) -> list[DeadLetter]:
        """Those that an operator wants to be sent again, AGAIN_AT_ONCE at most, the oldest first."""
        found = await self._buffer.read(lambda db, _: rows(db, self._route, only_again=True, limit=AGAIN_AT_ONCE))
        return found if isinstance(found, list) else []

    async def taken(self, letter: DeadLetter) -> None:
        """It was sent again and the platform has it. Raises StoreError: it will be sent once more."""
        await self._buffer.write(lambda db, _: db.execute("delete from dead_letter where id = ?", (letter.id,)))

    async def passed_over(self) -> list[PassedOver]:
        """What nobody has seen yet."""
        found = await self._buffer.read(lambda db, _: passed_over(db, self._route))
        return found if isinstance(found, list) else []

    async def count(self) -> int:
        found = await self._buffer.read(lambda db, _: db.execute(HOW_MANY, (self._route,)).fetchone()[0])
        return int(str(found))


def share_of(boards: int) -> int:
    """How many dead letters a board may have where a route delivers those of so many."""
    return max(1, MAX_DEAD_LETTERS // majority_of(boards))


def majority_of(boards: int) -> int:
    return boards // 2 + 1


def rows(
    db: sqlite3.Connection, route: str | None, *, only_again: bool = False, limit: int = MAX_DEAD_LETTERS
) -> list[DeadLetter]:
    """Dead letters of a route, or of all, the oldest first."""
    found = db.execute(
        "select board, sequence, place, reason, body, noticed_ms, id, again, route from dead_letter "
        "where (?1 is null or route = ?1) and (again or not ?2) order by id limit ?3",
        (route, only_again, limit),
    )
    return [
        DeadLetter(board, sequence, place, reason, body, noticed_ms, identifier, bool(again), of_route)
        for board, sequence, place, reason, body, noticed_ms, identifier, again, of_route in found
    ]


def mark(db: sqlite3.Connection, route: str | None, identifiers: list[int]) -> int:
    """Marks those with these ids, or all of the route, to be sent again. How many were not marked before."""
    wanted = ", ".join(str(int(one)) for one in identifiers)
    return db.execute(
        "update dead_letter set again = 1 where again = 0 and (?1 is null or route = ?1)"
        + (f" and id in ({wanted})" if identifiers else ""),
        (route,),
    ).rowcount


def _state(
    db: sqlite3.Connection, letter: DeadLetter, route: str, reason: str, noticed_ms: int | None, *, is_stated: bool
) -> None:
    """is_stated: its report was counted, unless somebody has seen that and the row is gone."""
    key = (route, letter.board)
    if is_stated and db.execute("select 1 from passed_over where route = ? and board = ?", key).fetchone():
        return
    db.execute(
        "insert into passed_over values (?1, ?2, ?3, ?3, 1, ?4, ?5) on conflict (route, board) do update set "
        "first = min(first, ?3), last = max(last, ?3), "
        "reports = min(reports + 1, max(last, ?3) - min(first, ?3) + 1), reason = ?4, noticed_ms = ?5",
        (*key, letter.sequence, reason, noticed_ms),
    )


def passed_over(db: sqlite3.Connection, route: str | None) -> list[PassedOver]:
    """What was passed over of a route, or of all, and nobody has seen."""
    if not db.execute("select 1 from sqlite_schema where name = 'passed_over'").fetchone():
        return []  # a former release has made the file, and this gateway has not opened it yet
    found = db.execute(
        "select route, board, first, last, reports, reason, noticed_ms from passed_over "
        "where ?1 is null or route = ?1 order by route, board",
        (route,),
    )
    return [PassedOver(*one) for one in found]


def seen(db: sqlite3.Connection, shown: list[PassedOver]) -> None:
    """Takes these rows out. One that says more by now stays: nobody has seen that."""
    db.executemany(
        "delete from passed_over where (route, board, first, last, reports) = (?, ?, ?, ?, ?)",
        [(one.route, one.board, one.first, one.last, one.reports) for one in shown],
    )
