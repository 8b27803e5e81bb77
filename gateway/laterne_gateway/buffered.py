"""What the buffer holds, as values: reports, refusals, gaps, chains and lanes, and why something is not in it.

The ledger writes them into the tables; inbox, routes and repair speak in them. Nothing here reads a database.
"""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

# What became of a report: it is on disk now; it was there already; its number holds another report; it is older than
# what can still be compared; the buffer is full; the one before it was not stored.
STORED, REPEATED, OTHER, PAST, FULL, NOT_IN_TURN = "stored", "repeated", "other", "past", "full", "not in turn"

# Why reports are not to be had here any more.
TOO_MANY = "dropped: the buffer was full"
TOO_OLD = "dropped: waited too long"
CARD = "damaged in the gateway's buffer"
LOST_TRACK = "the gateway's buffer was damaged: what it held of this board is not known"


@dataclass(frozen=True)
class Gap:
    """Reports `first` to `last` of a board are not to be had here. first None: nobody here knows. id 0: not stored."""

    board: str
    first: int | None
    last: int
    reason: str
    noticed_ms: int | None
    id: int = 0


class Accepted(NamedTuple):
    """A report that the inbox has checked. digest: of its payload. credential: digest of the board's; 16 bytes each.

    follows: the sequence that the chain was at when it was judged, None when it begins here.
    received_ms, closed_ms: UTC, or None where the gateway's or the board's clock did not know. body: the signed bytes.
    missing: why reports between `follows` and this one are missing, when the board does not say it itself.
    """

    board: str
    sequence: int
    digest: bytes
    credential: bytes
    follows: int | None
    received_ms: int | None
    closed_ms: int | None
    body: bytes
    missing: str | None = None


@dataclass(frozen=True)
class Refused:
    """A report to set aside. passed_over: the board's chain moves from `follows` to this sequence; None: it stays."""

    board: str
    sequence: int | None
    reason: str
    credential: bytes
    follows: int | None
    received_ms: int | None
    passed_over: int | None
    body: bytes


class Chain(NamedTuple):
    """Where a board's chain stands: the last sequence that is on disk, and that report's digest when it is known."""

    credential: bytes
    sequence: int
    digest: bytes | None


class Row(NamedTuple):
    """A report on its way to a platform. id: what a lane moves to."""

    id: int
    board: str
    sequence: int
    received_ms: int | None
    closed_ms: int | None
    body: bytes


@dataclass(frozen=True)
class Lane:
    """The reports with delivered < id <= upto are for this route to deliver; upto None: and all that will arrive."""

    route: str
    begins: int
    delivered: int
    upto: int | None


def crc(row: Accepted | Row) -> int:
    """CRC-32 of what a row says: board, sequence and body."""
    return zlib.crc32(row.body, zlib.crc32(f"{row.board} {row.sequence} ".encode()))
