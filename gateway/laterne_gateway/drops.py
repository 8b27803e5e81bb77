"""What leaves the buffer undelivered: for want of room, for its age, or because the card has changed it.

Each function runs as those of the ledger do, in the buffer's thread and inside its transaction, and writes the gap that
states the loss in the same one.
"""

import sqlite3
from collections.abc import Iterable

from laterne_gateway import ledger
from laterne_gateway.buffered import CARD, Gap, Lane, Refused, Row
from laterne_gateway.ledger import Ledger

DROP_AT_ONCE = 256  # reports that go together when there must be room: about 0.25 MiB
DROPPED = "reports dropped"  # a tally


def drop_oldest(db: sqlite3.Connection, numbers: Ledger, up_to_id: int | None, reason: str, now_ms: int | None) -> int:
    """Drops the oldest reports, DROP_AT_ONCE at most and none after up_to_id, and states them. How many."""
    ledger.write(db, numbers)
    rows = db.execute(
        "select id, board, sequence from report where id <= ? order by id limit ?",
        (numbers.last_id if up_to_id is None else up_to_id, DROP_AT_ONCE),
    ).fetchall()
    if not rows:
        return 0
    for board, first, last in runs((board, sequence) for _, board, sequence in rows):
        ledger.add_gap(db, numbers, Gap(board, first, last, reason, now_ms))
    last_id = rows[-1][0]
    db.execute("delete from report where id <= ?", (last_id,))
    ledger.move_lanes(
        db,
        numbers,
        [
            Lane(lane.route, lane.begins, last_id if lane.upto is None else min(last_id, lane.upto), lane.upto)
            for lane in list(numbers.lanes.values())
            if lane.delivered < last_id
        ],
    )
    ledger.add_tally(db, DROPPED, len(rows))
    numbers.dropped_to = last_id
    return len(rows)


def take_out(db: sqlite3.Connection, numbers: Ledger, row: Row, now_ms: int | None) -> None:
    """A report that the card has changed is set aside and stated: nobody could believe it."""
    refused = Refused(row.board, row.sequence, CARD, b"", None, now_ms, None, row.body)
    ledger.set_aside(db, numbers, refused)
    ledger.add_gap(db, numbers, Gap(row.board, row.sequence, row.sequence, CARD, now_ms))
    db.execute("delete from report where id = ?", (row.id,))
    ledger.add_tally(db, ledger.DAMAGED, 1)


def mark_hour(db: sqlite3.Connection, numbers: Ledger, keep: int) -> int | None:
    """Another hour has passed. The last report that has waited for `keep` hours or longer, None: none has."""
    numbers.last_hour += 1
    db.execute("insert into hour values (?, ?)", (numbers.last_hour, numbers.last_id))
    found = db.execute("select max(last_id) from hour where number <= ?", (numbers.last_hour - keep,)).fetchone()[0]
    db.execute("delete from hour where number < ?", (numbers.last_hour - keep,))
    return None if found is None else int(found)


def runs(numbers: Iterable[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """[(board, first, last)] of neighbouring sequences, in the order of their beginning."""
    runs: list[tuple[str, list[int]]] = []
    of_board: dict[str, list[int]] = {}
    for board, sequence in numbers:
        run = of_board.get(board)
        if run is not None and run[1] + 1 == sequence:
            run[1] = sequence
        else:
            of_board[board] = run = [sequence, sequence]
            runs.append((board, run))
    return [(board, first, last) for board, (first, last) in runs]
