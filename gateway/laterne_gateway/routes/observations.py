"""A report's readings as observations: what routes that translate have in common.

An observation has the time of its reading by the board's clock, never ours; where the board did not know the time, what
dates.py says of it. Which report it comes from, and where in it, travels with it: (board, sequence, digest of the
report's payload, channel, position) names one observation for ever, whoever sends it again and with whatever time.
"""

import json
from typing import NamedTuple

from laterne_gateway.buffered import Row
from laterne_gateway.dates import Dates
from laterne_gateway.routes.quantities import LOST, quantity_of
from laterne_protocol import cose, report, report_reading
from laterne_protocol.errors import WireError
from laterne_protocol.fields import MAX_UTC_MS

SET, HELD, DATED = "set", "held", "dated"  # the board's clock was set, runs on since, or the gateway has dated it
_STATES = {report.SET: SET, report.HELD: HELD}


class Observation(NamedTuple):
    """at_ms: UTC. within_ms: its uncertainty. flag: QARTOD. position: which reading of the channel in the report.

    lost: of the quantity LOST: [first or None, last, reason], else None.
    """

    board: str
    sequence: int
    digest: str
    channel: int
    position: int
    at_ms: int
    value: float | int
    flag: int
    clock: str
    within_ms: int
    lost: tuple[int | None, int, str] | None = None

    @property
    def identity(self) -> tuple[int, str, int]:
        """What tells it from the others of its board and channel."""
        return self.sequence, self.digest, self.position

    @property
    def place(self) -> str:
        """Which of its report's observations it is, for people."""
        return f"{quantity_of(self.channel).reference}/{self.position}"

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()


def observation_of(data: bytes) -> Observation:
    """What to_json() wrote."""
    found = json.loads(data)
    lost = found.pop("lost")
    return Observation(**found, lost=None if lost is None else tuple(lost))


class NotReadable(Exception):
    """A stored report that this gateway cannot read: one that knew more has stored it."""


class NoTime(Exception):
    """Neither the board nor this gateway knows when it was closed."""


def observations_of(row: Row, dates: Dates) -> tuple[list[Observation], int]:
    """The observations of a report, in its order, and how many of its readings have no value.

    A reading without a value is none: platforms refuse null. Raises NotReadable, NoTime.
    """
    try:
        payload = cose.parse(row.body, report.MAX_REPORT_BYTES).payload
        found = report_reading.report_of(payload)
        readings = list(report_reading.readings_of(found))
    except WireError as why:
        raise NotReadable(str(why)) from why
    clock, closed_ms, within_ms = _STATES.get(found.clock[0], DATED), found.clock[1], found.clock[2]
    if closed_ms is None:
        dated = dates.date(row.board, row.body)
        if dated is None:
            raise NoTime("neither the board nor this gateway knows when it was closed")
        closed_ms, within_ms = dated
    digest = report.digest(payload).hex()
    made: list[Observation] = []
    without_value, channel, index = 0, -1, -1
    for reading_channel, age_ms, value, flag in readings:
        channel, index = reading_channel, index + 1 if reading_channel == channel else 0
        if value is None:
            without_value += 1
            continue
        meant = quantity_of(channel).value(value)
        made.append(
            Observation(
                row.board, row.sequence, digest, channel, index, closed_ms - age_ms, meant, flag, clock, within_ms
            )
        )
    for number, (first, last, reason) in enumerate(found.gaps):
        said = (first, last, report_reading.REASONS.get(reason, f"reason {reason}"))
        # One of a Datastream at a time: gaps that a report states follow each other by a millisecond.
        at_ms, count = min(closed_ms + number, MAX_UTC_MS), last - first + 1
        made.append(
            Observation(
                row.board, row.sequence, digest, LOST, number, at_ms, count, report.GOOD, clock, within_ms, said
            )
        )
    return made, without_value
