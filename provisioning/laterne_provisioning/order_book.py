"""The order book: which orders are under way, and what boards have answered. Tables of the
registry (registry_tables.py).

At most one thing is under way with a board. Its row is on the disk before its order goes out and stays until nothing
is left to be done, so that the same command goes on where a former one was stopped.
"""

from dataclasses import dataclass
from typing import Any, Protocol

ROTATE, DECOMMISSION = "rotate", "decommission"
# What is under way. ASKED: the first order is out. GIVEN: the new credential is out. TOLD: the board's word is in the
# registry; what is left is to take the order away from the broker.
ASKED, GIVEN, TOLD = "asked", "given", "told"


@dataclass(frozen=True)
class UnderWay:
    """What is under way with a board; as the table's row."""

    board: str
    act: str
    step: str
    counter: int
    ordered: bytes
    credential: bytes | None
    reason: str | None
    begun: int


@dataclass(frozen=True)
class Done:
    """What a board has done and said; as the table's row. at: Unix seconds."""

    board: str
    counter: int
    act: str
    ordered: bytes
    body: bytes
    last: int
    at: int


class Store(Protocol):
    """The registry, as far as this module needs it."""

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]: ...


class OrderBook:
    """Reads and writes the tables. Whoever changes more than one row does it within a transaction of the registry."""

    def __init__(self, registry: Store) -> None:
        self._registry = registry

    def next_counter(self, board: str, now: int) -> int:
        """The counter of the next order to a board, higher than all before, and stored as given. now: Unix seconds.

        It follows the clock where that is ahead: so an authority brought back from a backup is not behind its boards,
        which have seen counters that the backup does not know.
        """
        rows = self._registry.execute("select value from counter where board = ?", board)
        former = rows[0][0] if rows else 0
        value = max(former + 1, now)
        self._registry.execute(
            "insert into counter values (?, ?) on conflict (board) do update set value = excluded.value", board, value
        )
        return value

    def under_way(self, board: str) -> UnderWay | None:
        """What is under way with this board."""
        found = self._registry.execute("select * from under_way where board = ?", board)
        return UnderWay(*found[0]) if found else None

    def put(self, what: UnderWay) -> None:
        """The row of this board, new or instead of the one that is there."""
        self._registry.execute(
            "insert or replace into under_way values (?, ?, ?, ?, ?, ?, ?, ?)",
            what.board,
            what.act,
            what.step,
            what.counter,
            what.ordered,
            what.credential,
            what.reason,
            what.begun,
        )

    def end(self, board: str) -> None:
        """Nothing is under way with this board any more."""
        self._registry.execute("delete from under_way where board = ?", board)

    def keep(self, done: Done) -> None:
        """The board's word, for ever."""
        self._registry.execute(
            "insert into receipt values (?, ?, ?, ?, ?, ?, ?)",
            done.board,
            done.counter,
            done.act,
            done.ordered,
            done.body,
            done.last,
            done.at,
        )
