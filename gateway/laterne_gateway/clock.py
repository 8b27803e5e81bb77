"""The process's clocks, passed to whoever needs one, so that tests can set them.

Two clocks: the monotonic one measures, UTC only dates. Nothing is decided by UTC but what is told to boards and
written beside reports, and that only while it is credible.
"""

import time
from functools import lru_cache
from typing import Protocol

CREDIBLE_FROM_UTC_MS = 1_767_225_600_000  # 2026-01-01: before this software was written no clock of ours is right
CREDIBLE_UNTIL_UTC_MS = 4_102_444_800_000  # 2100-01-01


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds since some moment, never back; the event loop's clock."""

    def utc_ms(self) -> int | None:
        """Milliseconds since 1970, or None while this machine's clock is not credible."""


class SystemClock:
    """The clocks of this machine."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def utc_ms(self) -> int | None:
        return credible(time.time_ns() // 1_000_000)


def credible(utc_ms: int) -> int | None:
    """The time, or None when a machine without a clock battery is still near 1970 (or its clock has run away)."""
    return utc_ms if CREDIBLE_FROM_UTC_MS <= utc_ms < CREDIBLE_UNTIL_UTC_MS else None


def rfc3339(utc_ms: int) -> str:
    """RFC 3339, UTC, with milliseconds: 2026-11-21T08:15:30.250Z."""
    seconds, milliseconds = divmod(utc_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4)  # report after report has the same
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
