"""What the buffer's thread tells the event loop (writer.py): opened, committed, away, broken."""

from dataclasses import dataclass

from laterne_gateway import salvage
from laterne_gateway.buffered import Row
from laterne_gateway.ledger import Ledger


@dataclass(frozen=True)
class Opened:
    """The database is open. ledger: as it is on the disk."""

    ledger: Ledger
    repaired: salvage.Outcome | None


@dataclass(frozen=True)
class Committed:
    """dropped_to: reports up to this id were dropped, for want of room or for their age. stored: now, in order.

    took_s: from the first statement to the end of the sync.
    """

    last_id: int
    last_gap_id: int
    dropped_to: int
    stored: list[Row]
    took_s: float


@dataclass(frozen=True)
class Away:
    """There is no database. why: a sentence for the operator."""

    why: str


@dataclass(frozen=True)
class Broken:
    """The thread has ended of what is no error of the disk."""

    why: Exception


News = Opened | Committed | Away | Broken
