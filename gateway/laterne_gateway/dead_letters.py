"""What platforms have refused for good: kept, shown, and sent again when an operator asks for it.

A row is here before its route's lane passes the report, so nothing is ever neither here, nor waiting, nor delivered.

Two things must not happen: a platform that refuses everything empties the buffer into this list, and a board that
signs what fits nowhere fills it for all others.

- Nothing becomes a dead letter while its platform takes nothing at all (routes/blame.py).
- Of MAX_DEAD_LETTERS a board has a share: they are full when more than half of the boards have theirs. While fewer
  have, it is they: what else is refused of them is counted, an alarm states it, and it is passed over. When they are
  full it is more likely the platform: what is refused waits then, with an alarm, whosever it is. What is taken goes on
  (routes/feed.py).

Both are re-derived from these rows after a restart. A gateway with one board passes over nothing: its share is all.

`laterne-gateway dead retry` marks rows from another process, in a transaction of its own; the route that runs looks
for marked ones every LOOK_EVERY_S.
"""

import sqlite3
from dataclasses import dataclass

from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock

MAX_DEAD_LETTERS = 10_000  # of a route; about 4 MiB
MAX_REASON_BYTES = 300
LOOK_EVERY_S = 10.0
AGAIN_AT_ONCE = 100
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


class DeadLetters:
    """Those of one route."""

    def __init__(self, route: str, buffer: Buffer, clock: Clock) -> None:
        self._route = route
        self._buffer = buffer
        self._clock = clock

    async def put(self, letter: DeadLetter, boards: int) -> bool | None:
        """Keeps it; one that was refused again has a new reason. boards: of how many this route delivers.

        False: there are too many. None: its board has its share, and it is passed over. Raises StoreError.
        """
        noticed_ms = self._clock.utc_ms()

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
                    letter.reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="replace"),
                    noticed_ms,
                    letter.body,
                ),
            )
            return True

        kept = await self._buffer.write(insert)
        return None if kept is None else bool(kept)

    async def to_send_again(self) -> list[DeadLetter]:
        """Those that an operator wants to be sent again, AGAIN_AT_ONCE at most, the oldest first."""
        found = await self._buffer.read(lambda db, _: rows(db, self._route, only_again=True, limit=AGAIN_AT_ONCE))
        return found if isinstance(found, list) else []

    async def taken(self, letter: DeadLetter) -> None:
        """It was sent again and the platform has it. Raises StoreError: it will be sent once more."""
        await self._buffer.write(lambda db, _: db.execute("delete from dead_letter where id = ?", (letter.id,)))

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
