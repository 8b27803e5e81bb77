"""Milliseconds since this start, and what UTC that is as far as the gateway has told.

Ticks of a board have 30 bits and wrap after 12.4 days: they are extended here, by differences only. now_ms() must
be called at least once in 6 days; the supervisor calls it every second. Nothing is decided by UTC (design 5).
"""

from time import ticks_diff, ticks_ms

from laterne_protocol.fields import MAX_UINT32, MAX_UTC_MS
from laterne_protocol.report import DRIFT_PPM, HELD, NEVER_SET, SET

HOLD_AFTER_MS = 600000  # a gateway that is there tells the time several times a minute


class Clock:
    """boot: how often the board has started, this time included."""

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self._now = 0
        self._ticks = ticks_ms()
        self._offset = None  # type: int | None
        self._uncertainty = 0
        self._set_at = 0

    def now_ms(self) -> int:
        """Milliseconds since this start; never runs backwards."""
        ticks = ticks_ms()
        passed = ticks_diff(ticks, self._ticks)
        self._ticks = ticks
        if passed > 0:
            self._now += passed
        return self._now

    def take_over(self, boot: int, offset_ms: int, uncertainty_ms: int) -> None:
        """UTC milliseconds = now_ms() + offset_ms, as the gateway estimates for that boot; another boot's is no use."""
        if boot == self.boot:
            self._offset = offset_ms
            self._uncertainty = uncertainty_ms
            self._set_at = self.now_ms()

    def at(self, now_ms: int) -> "tuple[int, int | None, int]":
        """(state, UTC milliseconds or None, uncertainty in milliseconds) for a moment of this boot."""
        if self._offset is None:
            return (NEVER_SET, None, 0)
        age_ms = abs(now_ms - self._set_at)
        state = SET if age_ms <= HOLD_AFTER_MS else HELD
        uncertainty = self._uncertainty - (-age_ms * DRIFT_PPM // 1000000)  # rounded up: never less than it is
        # A gateway may say anything. What does not fit into a report would make it one that nobody can read.
        return (state, min(now_ms + self._offset, MAX_UTC_MS), min(uncertainty, MAX_UINT32))
