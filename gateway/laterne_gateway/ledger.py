"""The buffer's book-keeping: what a report, a refusal, a gap, a moved lane does to the tables (database.py).

Every function here runs in the buffer's thread, inside its transaction: all of a group is on the disk or nothing.
Whatever removes a report that a route still waited for writes the gap that says so in the same transaction.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from laterne_gateway.buffered import (
    FULL,
    LOST_TRACK,
    NOT_IN_TURN,
    OTHER,
    PAST,
    REPEATED,
    STORED,
    Accepted,
    Chain,
    Gap,
    Lane,
    Refused,
    Row,
    crc,
)
from laterne_gateway.database import PAGE_BYTES
from laterne_protocol import cose, report
from laterne_protocol.errors import WireError

MAX_SET_ASIDE = 1000  # about 1 MiB
MAX_GAPS = 10_000  # about 1 MiB; far more than an outage makes, as neighbours are joined
ROWS_A_STATEMENT = (16, 4, 1)  # as many statements are kept prepared, for each table

OVERLAPPING = (
    "select board from chain where exists "
    "(select 1 from report where report.board = chain.board and report.sequence > chain.sequence)"
)

# Tallies.
SET_ASIDE_DROPPED = "set aside and dropped"  # what MAX_SET_ASIDE cost
GAPS_DROPPED = "gaps never told"  # what MAX_GAPS cost
DAMAGED = "reports damaged in the buffer"
REPAIRS = "repairs"
LEFT = "left "  # and route, begins, upto of a lane of a route that has left: how far it had delivered


@dataclass
class Ledger:
    """What the thread knows without asking the disk, as it is there. Numbers are taken here and nowhere else."""

    last_id: int = 0  # dropped_to: reports up to this id were dropped, in this process
    last_gap_id: int = 0
    last_hour: int = 0
    dropped_to: int = 0
    lanes: dict[tuple[str, int], Lane] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    # Boards of which reports wait whose numbers are ahead of the chain: of the credential before, or the chain was
    # damaged and they were not.
    overlapping: set[str] = field(default_factory=set)
    # What the group under way has taken, and write() has still to bring to the tables.
    taken: list[Row] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)  # boards, of which the chain
    stored: list[Row] = field(default_factory=list)  # what the group has stored so far, in order

    def copy(self) -> "Ledger":
        """Between two groups, to go back to when a transaction fails."""
        return replace(
            self,
            lanes=dict(self.lanes),
            chains=dict(self.chains),
            overlapping=set(self.overlapping),
            taken=[],
            moved=set(),
            stored=[],
        )


def chains(db: sqlite3.Connection) -> dict[str, Chain]:
    """Where every board's chain stands."""
    found = db.execute("select board, credential, sequence, digest from chain")
    return {board: Chain(credential, sequence, digest) for board, credential, sequence, digest in found}


def load(db: sqlite3.Connection, routes: Iterable[str]) -> Ledger:
    """Reads it, makes what a new route needs and keeps what is of a former one: in a transaction of the caller's.

    No number may come again below a lane: what stood there would be taken for delivered.
    """
    found = Ledger(chains=chains(db))
    found.overlapping = {board for (board,) in db.execute(OVERLAPPING)}
    lanes = [Lane(*row) for row in db.execute("select route, begins, delivered, upto from lane order by begins")]
    left = _left(db)
    found.last_id = max(
        [_number(db, "select max(id) from report"), _number(db, "select max(last_id) from hour")]
        + [max(lane.begins, lane.delivered, lane.upto or 0) for lane in lanes + left]
    )
    told = db.execute("select value from tally where name glob 'told *'").fetchall()
    found.last_gap_id = max([_number(db, "select max(id) from gap"), *(value for (value,) in told)])
    found.last_hour = _number(db, "select max(number) from hour")
    oldest = db.execute("select min(id) from report").fetchone()[0]
    start = found.last_id if oldest is None else oldest - 1
    former = {lane.route for lane in lanes} - set(routes)
    for route in routes:
        if not any(lane.route == route for lane in lanes):  # it is new, or has come back: then it goes on where it was
            back = [lane for lane in left if lane.route == route]
            lanes += back
            _come_back(db, back)
        if not any(lane.route == route and lane.upto is None for lane in lanes):
            lanes.append(_without_end(db, route, [lane for lane in lanes if lane.route == route], start))
    found.lanes = {(lane.route, lane.begins): lane for lane in lanes if lane.route not in former}
    if former:  # they left the configuration: nothing waits for them any more
        _leave(db, [lane for lane in lanes if lane.route in former])
        db.executemany("delete from tally where name = ?", [(f"told {route}",) for route in former])
        _remove_delivered(db, 0, found.last_id)
    # Every route is waited for from the beginning, before it has told anything.
    db.executemany("insert into tally values (?, 0) on conflict do nothing", [(f"told {route}",) for route in routes])
    return found


def _leave(db: sqlite3.Connection, lanes: list[Lane]) -> None:
    """Nothing waits for these any more; where they were is kept, for a route that comes back."""
    for lane in lanes:
        db.execute("delete from lane where route = ? and begins = ?", (lane.route, lane.begins))
        name = f"{LEFT}{lane.route} {lane.begins} {'' if lane.upto is None else lane.upto}"
        db.execute("insert or replace into tally values (?, ?)", (name, lane.delivered))


def _left(db: sqlite3.Connection) -> list[Lane]:
    """What _leave() has kept."""
    found = []
    for name, delivered in db.execute(f"select name, value from tally where name glob '{LEFT}*'").fetchall():
        route, begins, upto = name.removeprefix(LEFT).rsplit(" ", 2)
        found.append(Lane(route, int(begins), delivered, int(upto) if upto else None))
    return sorted(found, key=lambda lane: lane.begins)


def _come_back(db: sqlite3.Connection, lanes: list[Lane]) -> None:
    for lane in lanes:
        _write_lane(db, lane)
        db.execute("delete from tally where name glob ?", (f"{LEFT}{lane.route} {lane.begins} *",))


def _without_end(db: sqlite3.Connection, route: str, others: list[Lane], start: int) -> Lane:
    begins = max([lane.upto or 0 for lane in others], default=start)
    lane = Lane(route, begins, begins, None)
    _write_lane(db, lane)
    return lane


def insert(db: sqlite3.Connection, ledger: Ledger, new: Accepted, has_room: bool) -> str:
    """Stores a report on top of its board's chain. STORED, REPEATED, OTHER, PAST, FULL or NOT_IN_TURN."""
    at = chain_sequence(ledger, new.board, new.credential)
    # What its number tells needs no look at the disk: chains move with their reports.
    if at is None or new.sequence <= at:
        known = _compare(db, ledger, new)
        if known == REPEATED and at is None:  # the chain was damaged and the report was not: the chain is there
            move_chain(db, ledger, new.board, new.credential, new.sequence, new.digest)
        if known is not None:
            return known
        if at is not None:
            return PAST
    if at != new.follows:
        # One before it could not be stored. To store this one would let the board forget both.
        return NOT_IN_TURN
    if not has_room:
        return FULL
    if new.board in ledger.overlapping and (known := _compare(db, ledger, new)) is not None:
        return known
    ledger.last_id += 1
    row = Row(ledger.last_id, new.board, new.sequence, new.received_ms, new.closed_ms, new.body)
    ledger.taken.append(row)
    ledger.stored.append(row)
    move_chain(db, ledger, new.board, new.credential, new.sequence, new.digest)
    gap = _gap_before(db, ledger, new, at)
    if gap is not None:
        add_gap(db, ledger, gap)
    return STORED


def write(db: sqlite3.Connection, ledger: Ledger) -> None:
    """Brings what a group has taken to the tables; whoever reads those tables in a group, and the commit, comes after.

    Few statements for many rows: at each one another thread may take the interpreter, and this one waits for it.
    """
    taken, ledger.taken = ledger.taken, []
    _insert(db, "insert into report values", 7, [(*row[:5], crc(row), row.body) for row in taken], "")
    moved, ledger.moved = ledger.moved, set()
    rows = [(board, *ledger.chains[board]) for board in moved]
    _insert(
        db,
        "insert into chain values",
        4,
        rows,
        "on conflict (board) do update set "
        "credential = excluded.credential, sequence = excluded.sequence, digest = excluded.digest",
    )


def _insert(db: sqlite3.Connection, what: str, columns: int, rows: Sequence[tuple[object, ...]], then: str) -> None:
    at, one = 0, f"({', '.join('?' * columns)})"
    for size in ROWS_A_STATEMENT:
        while len(rows) - at >= size:
            values = [value for row in rows[at : at + size] for value in row]
            db.execute(f"{what} {', '.join([one] * size)} {then}", values)
            at += size


def _compare(db: sqlite3.Connection, ledger: Ledger, new: Accepted) -> str | None:
    """REPEATED, OTHER, or None: there is none with its number."""
    write(db, ledger)
    found = db.execute("select body from report where board = ? and sequence = ?", (new.board, new.sequence)).fetchone()
    if found is None:
        return None
    # The payload decides: a board that lost power while signing signs the same payload again.
    return REPEATED if _digest(found[0]) == new.digest else OTHER


def _digest(body: bytes) -> bytes | None:
    try:
        return report.digest(cose.parse(body, report.MAX_REPORT_BYTES).payload)
    except WireError:  # the card has changed it: it will be set aside when its turn comes
        return None


def _gap_before(db: sqlite3.Connection, ledger: Ledger, new: Accepted, at: int | None) -> Gap | None:
    if at is not None:
        if new.missing is None or new.sequence == at + 1:
            return None
        return Gap(new.board, at + 1, new.sequence - 1, new.missing, new.received_ms)
    repaired = db.execute("select 1 from tally where name = ?", (REPAIRS,)).fetchone()
    if repaired is None or new.sequence == 1:
        return None  # it is new here, or comes from another gateway
    # Its chain may have been in the damaged part: then nobody knows what was acknowledged to it.
    write(db, ledger)
    before = db.execute(
        "select max(sequence) from report where board = ? and sequence < ?", (new.board, new.sequence)
    ).fetchone()[0]
    if before == new.sequence - 1:
        return None
    return Gap(new.board, None if before is None else before + 1, new.sequence - 1, LOST_TRACK, new.received_ms)


def set_aside(db: sqlite3.Connection, ledger: Ledger, refused: Refused) -> str:
    """Keeps what was refused; the chain passes over it if it should. STORED or NOT_IN_TURN."""
    at = refused.follows
    if refused.passed_over is not None:
        if chain_sequence(ledger, refused.board, refused.credential) != at:
            return NOT_IN_TURN
        move_chain(db, ledger, refused.board, refused.credential, refused.passed_over, None)
        reason = f"refused: {refused.reason}"
        add_gap(db, ledger, Gap(refused.board, (at or 0) + 1, refused.passed_over, reason, refused.received_ms))
    db.execute(
        "insert into set_aside (board, sequence, reason, received_ms, body) values (?, ?, ?, ?, ?)",
        (refused.board, refused.sequence, refused.reason, refused.received_ms, refused.body),
    )
    add_tally(db, SET_ASIDE_DROPPED, _bounded(db, "set_aside", MAX_SET_ASIDE))
    return STORED


def add_gap(db: sqlite3.Connection, ledger: Ledger, gap: Gap) -> None:
    """States a loss. One that follows the board's last and has its reason is joined to that, under a new number.

    The joined one is told whole, even if its first part is on its way already: the platform takes both together.
    """
    last = db.execute(
        "select id, first, last from gap where board = ? and reason = ? order by id desc limit 1",
        (gap.board, gap.reason),
    ).fetchone()
    first = gap.first
    if last is not None and first is not None and last[2] + 1 == first:
        db.execute("delete from gap where id = ?", (last[0],))
        first = last[1]
    ledger.last_gap_id += 1
    db.execute(
        "insert into gap values (?, ?, ?, ?, ?, ?)",
        (ledger.last_gap_id, gap.board, first, gap.last, gap.reason, gap.noticed_ms),
    )
    add_tally(db, GAPS_DROPPED, _bounded(db, "gap", MAX_GAPS))


def _bounded(db: sqlite3.Connection, table: str, most: int) -> int:
    """Removes what is more than that: the oldest rows of the board that has the most. How many.

    Of that board and not the oldest of all: else one board that lies without an end would take from the others what is
    the last that is known of their reports.
    """
    gone = 0
    while (over := _number(db, f"select count(*) from {table}") - most) > 0:
        gone += db.execute(
            f"delete from {table} where id in (select id from {table} where board = "
            f"(select board from {table} group by board order by count(*) desc, board limit 1) order by id limit ?)",
            (over,),
        ).rowcount
    return gone


def told(db: sqlite3.Connection, route: str, up_to_id: int) -> None:
    """This route has told every gap up to this one."""
    db.execute(
        "insert into tally values (?, ?) on conflict (name) do update set value = max(value, excluded.value)",
        (f"told {route}", up_to_id),
    )
    db.execute("delete from gap where id <= (select min(value) from tally where name glob 'told *')")


def move_lanes(db: sqlite3.Connection, ledger: Ledger, moved: Iterable[Lane]) -> None:
    """Writes lanes, removes finished ones and the reports that nobody waits for any more."""
    ranges: list[tuple[int, int]] = []
    for lane in moved:
        key = (lane.route, lane.begins)
        former = ledger.lanes.get(key)
        before = lane.begins if former is None else former.delivered
        if lane.delivered < before:  # drop_oldest() has been there meanwhile
            lane = replace(lane, delivered=before)
        if lane.delivered > before:
            ranges.append((before, lane.delivered))
        if lane.upto is not None and lane.delivered >= lane.upto:
            db.execute("delete from lane where route = ? and begins = ?", key)
            ledger.lanes.pop(key, None)
        else:
            _write_lane(db, lane)
            ledger.lanes[key] = lane
    for after, upto in ranges:
        _remove_delivered(db, after, upto)


def _write_lane(db: sqlite3.Connection, lane: Lane) -> None:
    db.execute(
        "insert into lane values (?, ?, ?, ?) on conflict (route, begins) do update set "
        "delivered = excluded.delivered, upto = excluded.upto",
        (lane.route, lane.begins, lane.delivered, lane.upto),
    )


def _remove_delivered(db: sqlite3.Connection, after: int, upto: int) -> None:
    db.execute(
        "delete from report where id > ? and id <= ? and not exists (select 1 from lane "
        "where lane.delivered < report.id and (lane.upto is null or report.id <= lane.upto))",
        (after, upto),
    )


def used_bytes(db: sqlite3.Connection) -> int:
    """What the tables take; pages that are free inside the file do not count. Needs no reading of rows."""
    pages = _number(db, "pragma page_count") - _number(db, "pragma freelist_count")
    return pages * PAGE_BYTES


def add_tally(db: sqlite3.Connection, name: str, by: int) -> None:
    if by:
        db.execute(
            "insert into tally values (?, ?) on conflict (name) do update set value = value + excluded.value",
            (name, by),
        )


def chain_sequence(ledger: Ledger, board: str, credential: bytes) -> int | None:
    """Where the chain of this credential stands on the disk; None: it has not begun."""
    found = ledger.chains.get(board)
    return None if found is None or found.credential != credential else found.sequence


def move_chain(
    db: sqlite3.Connection, ledger: Ledger, board: str, credential: bytes, sequence: int, digest: bytes | None
) -> None:
    """The board's chain stands at this sequence now. digest: of that report, None when nobody here has it."""
    if chain_sequence(ledger, board, credential) is None:  # it begins here
        write(db, ledger)
        later = "select 1 from report where board = ? and sequence > ?"
        if db.execute(later, (board, sequence)).fetchone() is not None:
            ledger.overlapping.add(board)
    ledger.chains[board] = Chain(credential, sequence, digest)
    ledger.moved.add(board)


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0] or 0)
