"""When reports were closed whose board did not know the time: from other signed reports of the same start.

A report carries the number of its start and the milliseconds since. One report of that start that knows the time dates
all the others (protocol/README.md, 6.1). Nobody's word is needed but the board's.

What the board knows it was told by its gateway, whose clock may have been wrong. When that was set right within a
start, reports of it contradict each other by more than they say they may be wrong. Which of them is right cannot be
seen here; so a date's uncertainty takes in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from laterne_protocol import fields, report_reading

MAX_BOOTS = 4096  # of each board, the newest: as many as chain.py keeps links of
MAX_UNDATED = 4320  # reports of each board that wait for a date: three days of a report a minute


class Dated(NamedTuple):
    """A report that was dated afterwards. within_ms: its uncertainty."""

    sequence: int
    closed_utc_ms: int
    within_ms: int


@dataclass
class _Boot:
    """A start. known: (milliseconds since it, UTC, uncertainty) of the earliest report that knows the time.

    wider_ms: how wrong that one may be because others contradict it. undated: (sequence, milliseconds since it).
    """

    known: tuple[int, int, int] | None = None
    wider_ms: int = 0
    undated: list[tuple[int, int]] = field(default_factory=list)


class Dating:
    """Of one board. undated: reports that did not know the time, in all. apart_ms: the most that reports of one start
    contradict each other: by so much a gateway's clock was wrong."""

    def __init__(self) -> None:
        self.undated = 0
        self.apart_ms = 0
        self._boots: dict[int, _Boot] = {}
        self._waiting = 0

    def take(self, sequence: int, boot: int, closed_ms: int, clock: tuple[int, int | None, int]) -> None:
        """A report that was verified, in whatever order they come, each once."""
        _, utc_ms, within_ms = clock
        of = self._boots.setdefault(boot, _Boot())
        if utc_ms is None:
            self.undated += 1
            if self._waiting < MAX_UNDATED:
                self._waiting += 1
                of.undated.append((sequence, closed_ms))
        else:
            self._learn(of, (closed_ms, utc_ms, within_ms))
        if len(self._boots) > MAX_BOOTS:
            self._waiting -= len(self._boots.pop(min(self._boots)).undated)

    def dated(self) -> Iterator[Dated]:
        """The reports that can be dated, by start."""
        for _, of in sorted(self._boots.items()):
            if of.known is None:
                continue
            for sequence, closed_ms in of.undated:
                utc_ms, within_ms = report_reading.utc_at(closed_ms, of.known)
                if 0 <= utc_ms <= fields.MAX_UTC_MS:  # a board may claim any milliseconds
                    yield Dated(sequence, utc_ms, within_ms + of.wider_ms)

    def _learn(self, of: _Boot, moment: tuple[int, int, int]) -> None:
        if of.known is None:
            of.known = moment
            return
        utc_ms, within_ms = report_reading.utc_at(moment[0], of.known)
        gap_ms = abs(utc_ms - moment[1])
        contradiction_ms = gap_ms - within_ms - moment[2]
        self.apart_ms = max(self.apart_ms, contradiction_ms)
        # So wrong is either of the two if the other one is right; the crystal's part in it is in within_ms.
        wrong_ms = gap_ms + within_ms + moment[2]
        if moment[0] < of.known[0]:
            of.known = moment
            of.wider_ms += wrong_ms if of.wider_ms or contradiction_ms > 0 else 0
        elif contradiction_ms > 0:
            of.wider_ms = max(of.wider_ms, wrong_ms)
