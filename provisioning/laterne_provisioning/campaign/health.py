"""How a board does, compared with its own past: signed reports, and for its line what its gateway says.

A gateway's word can fail a board, and so halt a campaign, which it could by saying nothing, too; it can prove nothing.

The past is what it reported in the last DAYS before it was armed, by day, so that what is older falls away. A start
that nobody asked for may be usual where a post's feed is switched: so many a day as there were are no sign of harm.
"""

from dataclasses import dataclass, field
from typing import Any

from laterne_protocol import channels
from laterne_provisioning.campaign.plan import Gates

SHORT_DIGEST = 16  # hex digits of a release's digest that a report carries
LEAST_READINGS = 20  # a share of fewer says nothing
LEAST_EXPECTED = 5  # reports in which a channel should have been
LEAST_QUESTIONS = 100  # some minutes
DAYS = 7
DAY_S = 86400
Link = tuple[int, int]  # questions, and those repeated or not answered


@dataclass(frozen=True)
class Heard:
    """What a verified report tells. closed_ms: since the start at closing. release: first 8 bytes of the digest of what
    runs (hex), and whether on trial; in the first report of a start and after a confirmation, else None. good: channels
    with at least one good reading. utc_s: when it was closed, Unix seconds, as the board says; None: it does not know.
    """

    sequence: int
    boot: int
    closed_ms: int
    release: tuple[str, bool] | None
    good: frozenset[int]
    readings: int
    bad: int
    utc_s: int | None = None


@dataclass
class Past:
    """Sums over reports. seen: in how many each channel had a good reading."""

    reports: int = 0
    readings: int = 0
    bad: int = 0
    seen: dict[int, int] = field(default_factory=dict)

    def add(self, heard: Heard) -> None:
        self.reports += 1
        self.readings += heard.readings
        self.bad += heard.bad
        for channel in heard.good:
            self.seen[channel] = self.seen.get(channel, 0) + 1


@dataclass
class Baseline:
    """The past of a board. days: of each of the last DAYS on which it was heard, by number since 1970 (UTC).
    starts: how many it made on each of these. boot: its newest start.
    """

    days: dict[int, Past] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    boot: int = -1

    def add(self, heard: Heard, at: int, now: int) -> None:
        """One more report, of a moment, unless that is longer ago than DAYS. Unix seconds."""
        if not now - DAYS * DAY_S < at <= now:
            return
        day = at // DAY_S
        self.days.setdefault(day, Past()).add(heard)
        if 0 <= self.boot < heard.boot:
            self.starts[day] = self.starts.get(day, 0) + heard.boot - self.boot
        self.boot = max(self.boot, heard.boot)
        for old in [one for one in self.days if one <= now // DAY_S - DAYS]:
            del self.days[old]
            self.starts.pop(old, None)

    @property
    def reports(self) -> int:
        return sum(past.reports for past in self.days.values())

    @property
    def starts_a_day(self) -> float:
        return sum(self.starts.values()) / len(self.days) if self.days else 0.0

    def total(self) -> Past:
        """All of it."""
        found = Past()
        for past in self.days.values():
            found.reports += past.reports
            found.readings += past.readings
            found.bad += past.bad
            for channel, count in past.seen.items():
                found.seen[channel] = found.seen.get(channel, 0) + count
        return found

    def document(self) -> list[object]:
        """For the store."""
        days = [
            [day, self.starts.get(day, 0), past.reports, past.readings, past.bad, sorted(past.seen.items())]
            for day, past in sorted(self.days.items())
        ]
        return [self.boot, days]


def baseline_of(document: list[Any]) -> Baseline:
    """What document() describes. Raises TypeError, ValueError: it does not."""
    boot, days = document
    found = Baseline(boot=boot)
    for day, starts, reports, readings, bad, seen in days:
        found.days[day] = Past(reports, readings, bad, dict(seen))
        if starts:
            found.starts[day] = starts
    return found


def worse(baseline: Baseline, after: Past, starts: int, watched_s: int, gates: Gates) -> str | None:
    """What is worse than it was, as a sentence without its full stop. starts: besides those it was told to make, in
    watched_s."""
    usual = baseline.starts_a_day * watched_s / DAY_S
    if starts > gates.starts + usual:
        return f"{starts} starts that nobody asked for" + (f", {usual:.1f} are usual" if usual >= 0.05 else "")
    before = baseline.total()
    if after.readings >= LEAST_READINGS and before.readings >= LEAST_READINGS:
        now, then = 100 * after.bad / after.readings, 100 * before.bad / before.readings
        if now > then + gates.errors_percent:
            return f"{now:.0f} % of its readings are not good, {then:.0f} % were before"
    for channel, count in sorted(before.seen.items()):
        expected = after.reports * count / before.reports
        found = after.seen.get(channel, 0)
        if expected >= min(LEAST_EXPECTED, gates.reports) and found < expected * gates.coverage_percent / 100:
            name = channels.describe(channel)[0]
            return f"{name} is in {found} of {after.reports} reports, in {count} of {before.reports} before"
    return None


def worse_link(
    before: tuple[int, int] | None, then: tuple[int, int] | None, now: tuple[int, int], gates: Gates
) -> str | None:
    """What is worse on its line, as worse(). Counts since its gateway began to: when it was armed, when it was first
    met in its trial, and now."""
    if before is None or then is None:
        return None
    asked, missed = now[0] - then[0], now[1] - then[1]
    if asked < 0 or missed < 0:  # its gateway has started anew
        asked, missed = now
    if min(asked, before[0]) < LEAST_QUESTIONS:
        return None
    is_now, was = 100 * missed / asked, 100 * before[1] / before[0]
    if is_now <= was + gates.link_percent:
        return None
    return f"{is_now:.0f} % of its gateway's questions are repeated or not answered, {was:.0f} % were before"
