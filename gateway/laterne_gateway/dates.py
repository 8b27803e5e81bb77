"""When reports were closed whose board did not know the time yet: what this gateway can say of it afterwards.

A board that starts without a gateway closes reports that hold its start's number and the milliseconds since, and no UTC
(protocol/README.md, 6.1). It signs them, so nobody writes a time into them later. But one moment of the same start for
which UTC is known dates them all. Two things tell such moments: answers to our questions (board_clock), and reports of
that start that were closed later, when the board had been told.

What is said here is this gateway's word beside the board's. No report waits for it: one that leaves before anything is
known of its start leaves without a date, and whoever has kept the signed reports can date it himself (laterne verify).

All of it is in memory: BOOTS starts of each board and key, for a board that is enrolled anew counts its starts anew.
After our own restart the next answers tell it again, but not of a start that has ended meanwhile.
"""

from laterne_protocol import cose, fields, report, report_reading
from laterne_protocol.errors import WireError

BOOTS = 4  # of each board, the newest: a board in trouble starts a few times before it stays

Moment = tuple[int, int, int]
"""Milliseconds since the start, UTC in milliseconds, uncertainty in milliseconds."""


class Dates:
    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], dict[int, Moment]] = {}

    def learn_of(self, found: report.Report, kid: bytes) -> None:
        """A report of the board that has been judged good; one that does not know the time teaches nothing."""
        if found.clock[1] is not None:
            self.learn((found.board, kid), found.boot, (found.closed_ms, found.clock[1], found.clock[2]))

    def learn(self, whose: tuple[str, bytes], boot: int, moment: Moment) -> int:
        """UTC is known for a moment of a start. whose: board, and kid of the key with which it signs.

        By how many milliseconds it contradicts what was known, 0 when both may be right.
        """
        boots = self._known.setdefault(whose, {})
        former = boots.get(boot)
        apart_ms = 0 if former is None else _contradiction(moment, former)
        if former is None or _is_better(moment, former, apart_ms):
            boots[boot] = moment
            if len(boots) > BOOTS:
                del boots[min(boots)]
        return apart_ms

    def date(self, board: str, body: bytes) -> tuple[int, int] | None:
        """(UTC, uncertainty) in milliseconds of the closing of a report that we have believed; None: not known.

        body: its signed bytes, in which the board does not know the time.
        """
        try:
            signed = cose.parse(body, report.MAX_REPORT_BYTES)
            found = report_reading.report_of(signed.payload)
        except WireError:  # stored by a gateway that knew more than this one
            return None
        moment = self._known.get((board, signed.kid), {}).get(found.boot)
        if moment is None:
            return None
        utc_ms, within_ms = report_reading.utc_at(found.closed_ms, moment)
        # A board may claim any milliseconds; a date that cannot be written is none.
        return (utc_ms, within_ms) if 0 <= utc_ms <= fields.MAX_UTC_MS and within_ms <= fields.MAX_UINT32 else None


def _contradiction(moment: Moment, former: Moment) -> int:
    utc_ms, within_ms = report_reading.utc_at(moment[0], former)
    apart_ms = moment[1] - utc_ms
    return apart_ms if abs(apart_ms) > within_ms + moment[2] else 0


def _is_better(moment: Moment, former: Moment, apart_ms: int) -> bool:
    if apart_ms:
        # Our own clock has jumped between the two, or the board's ticks have. The later word counts: a clock that was
        # wrong is set right more often than the other way round.
        return moment[0] > former[0]
    # What has to be dated lies at the beginning of the start: the moment that says more about it.
    return report_reading.utc_at(0, moment)[1] < report_reading.utc_at(0, former)[1]
