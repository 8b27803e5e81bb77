"""What is decided when a campaign begins, and never changes: which boards, in which waves, under which gates.

The list of boards is frozen: who joins later is not in it. All values are frozen; JSON is what lies on the disk.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from laterne_provisioning.campaign.windows import Window, window_of
from laterne_provisioning.errors import OperatorError, UsageError

CANARY = 0  # the number of the first wave
LEAST_CANARIES = 5  # of a large fleet, whatever its boards are like; of a small one a tenth, at least one


@dataclass(frozen=True)
class Target:
    """One board. traits: what may make it behave unlike others, as "model pico": each is among the canaries."""

    board: str
    tenant: str
    gateway: str
    post: str | None
    traits: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """digest: the release's name, 16 bytes, hex. trial_s: for how long a board tries it at most before it starts anew
    by itself."""

    version: str
    sequence: int
    digest: str
    trial_s: int


@dataclass(frozen=True)
class Gates:
    """When a campaign halts by itself.

    success_percent: of a wave's boards that must be confirmed. failures, failures_percent: boards that did worse or did
    not come back after they were armed, as a number and as a share of those armed; more than the larger of both halt
    it. Among the canaries one is enough. reports: so many of a board are compared with as many before. starts: more
    than it was told to make, from the trial to the end of its soak; a post whose feed is switched makes one a day.
    errors_percent: points by which the share of readings that are not good may rise.
    coverage_percent: of its former share of reports that each channel must still be in.
    link_percent: points by which the share of questions may rise that its gateway has to repeat, or that it leaves
    without an answer: the gateway's word.
    """

    success_percent: float = 95.0
    failures: int = 1
    failures_percent: float = 0.5
    reports: int = 5
    starts: int = 2
    errors_percent: float = 10.0
    coverage_percent: float = 50.0
    link_percent: float = 10.0


@dataclass(frozen=True)
class Pace:
    """How fast. All in seconds, but sending (boards of one gateway that fetch at once) and trial_percent (of one
    gateway's boards that may be armed or in trial at once; one always may). The rest: for how long a board may be in
    each state. arm_tries: how often a board is armed that then does not begin its trial. held_for: time stands
    still so long at most for a board that gets new keys."""

    soak: int = 1800
    sending: int = 4
    trial_percent: float = 25.0
    queued_for: int = 30 * 86400
    sending_for: int = 86400
    staged_for: int = 86400
    window_for: int = 8 * 86400  # a window comes once a week at least
    armed_for: int = 900
    trial_for: int = 0  # 0: three trials and a quarter of an hour
    silent_for: int = 7200  # a confirmed board whose next report does not come
    arm_tries: int = 5
    held_for: int = 7 * 86400


@dataclass(frozen=True)
class Plan:
    """One campaign. percents: of the boards, cumulative, after the canaries. approver: the key (64 bytes, hex) that
    must have signed the plan's digest before it runs, or "". made: Unix seconds."""

    id: str
    release: Release
    targets: tuple[Target, ...]
    canaries: tuple[str, ...]
    percents: tuple[float, ...]
    gates: Gates
    pace: Pace
    windows: tuple[Window, ...]
    approver: str
    made: int

    @cached_property
    def waves(self) -> tuple[tuple[str, ...], ...]:
        """The boards of each wave; the canaries are the first. Stable: by the digest of campaign and board."""
        canaries = set(self.canaries)
        others = [board for board in ranked(self.id, (one.board for one in self.targets)) if board not in canaries]
        found, begun = [tuple(self.canaries)], 0
        for percent in self.percents:
            end = max(begun, min(len(others), math.ceil(len(self.targets) * percent / 100) - len(canaries)))
            found.append(tuple(others[begun:end]))
            begun = end
        found[-1] += tuple(others[begun:])
        return tuple(wave for number, wave in enumerate(found) if wave or number == CANARY)

    @property
    def trial_for(self) -> int:
        return self.pace.trial_for or 3 * self.release.trial_s + 900

    def to_json(self) -> bytes:
        document = dataclasses.asdict(self) | {"windows": [window.text for window in self.windows]}
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of to_json(), hex: what a second person approves."""
        return hashlib.sha256(self.to_json()).hexdigest()


def plan_of(data: bytes) -> Plan:
    """The plan in these bytes. Raises OperatorError: this program did not write them."""
    try:
        parts: dict[str, Any] = json.loads(data)
        found = Plan(
            **parts
            | {
                "release": Release(**parts["release"]),
                "targets": tuple(Target(**one | {"traits": tuple(one["traits"])}) for one in parts["targets"]),
                "canaries": tuple(parts["canaries"]),
                "percents": tuple(parts["percents"]),
                "gates": Gates(**parts["gates"]),
                "pace": Pace(**parts["pace"]),
                "windows": tuple(window_of(text) for text in parts["windows"]),
            }
        )
        if found.to_json() != data:
            raise ValueError("it is not in its one form")
    except (ValueError, TypeError, KeyError, UsageError, RecursionError) as why:
        raise OperatorError(f"This is no plan of a campaign ({why}): bring it back from a backup.") from why
    return found


def ranked(campaign: str, boards: Iterable[str]) -> list[str]:
    """The boards in the order in which this campaign takes them: nobody's choice, and the same each time."""
    return sorted(boards, key=lambda board: hashlib.sha256(f"{campaign}:{board}".encode()).digest())


def canaries(campaign: str, targets: Sequence[Target], named: Sequence[str]) -> tuple[str, ...]:
    """The first boards: those that are named, and as many more as it takes that each trait is among them.

    Raises UsageError: a board is named that is no target.
    """
    known = {one.board: one for one in targets}
    for board in named:
        if board not in known:
            raise UsageError(f"{board} cannot be a canary: it is not among the boards of this campaign.")
    chosen = list(dict.fromkeys(named))
    missing = {trait for one in targets for trait in one.traits}
    for board in chosen:
        missing.difference_update(known[board].traits)
    order = ranked(campaign, known)
    while missing:
        # Greedy: the board that shows most of what is still missing.
        best = max(order, key=lambda board: len(missing.intersection(known[board].traits)))
        chosen.append(best)
        missing.difference_update(known[best].traits)
    least = 0 if named else min(LEAST_CANARIES, math.ceil(len(order) / 10))
    chosen.extend([board for board in order if board not in chosen][: max(0, least - len(chosen))])
    return tuple(chosen)
