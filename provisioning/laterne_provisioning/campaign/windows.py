"""Maintenance windows: when boards may be started anew ("Mo-Fr 02:00-04:00 Europe/Berlin"). Fetching needs none."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from laterne_provisioning.errors import UsageError

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_FORM = re.compile(r"([A-Z][a-z](?:[-,][A-Z][a-z])*)? ?(\d\d):(\d\d)-(\d\d):(\d\d)(?: ([A-Za-z_]+(?:/[A-Za-z_+-]+)*))?")
_MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Window:
    """Open on these days (0 Monday) from minute `since` of the day, for `minutes`; by the clocks of `zone` (IANA).

    One that ends past midnight belongs to the day on which it begins. text: as it was typed.
    """

    days: tuple[int, ...]
    since: int
    minutes: int
    zone: str
    text: str

    def closes(self, now: int) -> int | None:
        """Until when it is open, Unix seconds; None: it is shut at `now`."""
        zone = ZoneInfo(self.zone)
        local = datetime.fromtimestamp(now, zone)
        for day in (local.date(), local.date() - timedelta(days=1)):
            if day.weekday() in self.days:
                # Minutes are added in UTC: a window keeps its length on the nights when clocks change.
                begin = datetime(day.year, day.month, day.day, self.since // 60, self.since % 60, tzinfo=zone)
                opened = int(begin.astimezone(UTC).timestamp())
                if opened <= now < opened + 60 * self.minutes:
                    return opened + 60 * self.minutes
        return None


def closes(windows: tuple[Window, ...], now: int, longest_s: int) -> int | None:
    """Until when boards may be started anew, at most longest_s ahead; None: not now. No window: always."""
    if not windows:
        return now + longest_s
    found = [until for one in windows if (until := one.closes(now)) is not None]
    return min(max(found), now + longest_s) if found else None


def window_of(text: str) -> Window:
    """The window in a text: [days] HH:MM-HH:MM [zone]; no days: every day, no zone: UTC. Raises UsageError."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f'{text!r} is no window: write it as "Mo-Fr 02:00-04:00" or "Sa,Su 22:30-05:00 Europe/Berlin".'
        )
    days, *clock, zone = found.groups()
    hour, minute, to_hour, to_minute = map(int, clock)
    if hour > 23 or to_hour > 23 or minute > 59 or to_minute > 59:
        raise UsageError(f"{text!r}: a day has hours 00 to 23 and minutes 00 to 59.")
    since = 60 * hour + minute
    minutes = (60 * to_hour + to_minute - since) % _MINUTES_A_DAY
    if not minutes:
        raise UsageError(f"{text!r} ends when it begins: leave --window out to start boards at any time.")
    try:
        ZoneInfo(zone or "UTC")
    except (OSError, ValueError) as why:  # ZoneInfoNotFoundError is a KeyError only for names that look like one
        raise UsageError(f"{text!r}: this machine knows no zone {zone}.") from why
    except KeyError as why:
        raise UsageError(f"{text!r}: this machine knows no zone {zone}.") from why
    return Window(tuple(_days(text, days)), since, minutes, zone or "UTC", text.strip())


def _days(text: str, days: str | None) -> Iterator[int]:
    if days is None:
        yield from range(7)
        return
    for part in days.split(","):
        ends = part.split("-")
        if len(ends) > 2 or any(end not in DAYS for end in ends):
            raise UsageError(f"{text!r}: {part} are no days of {' '.join(DAYS)}.")
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        yield from ((first + step) % 7 for step in range((last - first) % 7 + 1))
