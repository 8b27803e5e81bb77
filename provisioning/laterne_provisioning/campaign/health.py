"""How a board does, compared with its own past: signed reports only, nothing that a gateway says."""

from dataclasses import dataclass, field

from laterne_protocol import channels
from laterne_provisioning.campaign.plan import Gates

SHORT_DIGEST = 16  # hex digits of a release's digest that a report carries
LEAST_READINGS = 20  # a share of fewer says nothing
LEAST_EXPECTED = 5  # reports in which a channel should have been


@dataclass(frozen=True)
class Heard:
    """What a verified report tells. closed_ms: since the start at closing. release: first 8 bytes of the digest of what
    runs (hex), and whether on trial; in the first report of a start and after a confirmation, else None. good: channels
    with at least one good reading."""

    sequence: int
    boot: int
    closed_ms: int
    release: tuple[str, bool] | None
    good: frozenset[int]
    readings: int
    bad: int


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


def worse(before: Past, after: Past, starts: int, gates: Gates) -> str | None:
    """What is worse than it was, as a sentence without its full stop. starts: besides those it was told to make."""
    if starts > gates.starts:
        return f"{starts} starts that nobody asked for"
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
