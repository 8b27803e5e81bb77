"""The values of a campaign that change: a row for each board, the course of all; and what the machine gives out."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from laterne_provisioning.campaign.health import Baseline, Past, baseline_of
from laterne_provisioning.campaign.plan import CANARY
from laterne_provisioning.campaign.states import DRAFT, QUEUED


@dataclass(frozen=True)
class Told:
    """What the gateway tells of a board: of message 27, not signed. phase: in a word (gateway/README.md). Digests: hex
    or "". result: (code, digest). share: of the release that has arrived, 0..1, while it is fetched. link: questions on
    its line since the gateway first met it, and those repeated or not answered."""

    phase: str
    running: str
    nonce: bytes
    staged: str
    result: tuple[int, str] | None
    share: float | None = None
    link: tuple[int, int] | None = None


@dataclass
class Row:
    """One board. since: in this state. why: of FAILED and SKIPPED; said: the same as a sentence. stake: it was armed.

    armed_boot: its newest start when it was armed. line: the last report before the trial, by its receipt, 0 unknown.
    trial_boot: the start in which it first said that it runs the release, -1 before. proven: it has signed that it
    keeps it. boot: its newest start. soaked: it was well for the plan's soak after it was confirmed. heard_at: its
    newest report came. arms: how often it was armed. asked: the order that is out or was answered, (action, nonce, its
    digest; both hex); tries: how often orders went out in this state; again: it is to go out once
    more; taken: its receipt says that it is being done. found: in a trial that it was
    thought not to have begun. before, after: how it does; watched_at: since when after is looked at.
    link_before: of its gateway's last word before it was armed. link_at_trial: of its first in the trial.
    """

    state: str = QUEUED
    since: int = 0
    why: str = ""
    said: str = ""
    stake: bool = False
    armed_boot: int = -1
    line: int = 0
    trial_boot: int = -1
    boot: int = -1
    proven: bool = False
    soaked: bool = False
    heard_at: int = 0
    arms: int = 0
    tries: int = 0
    asked: tuple[int, str, str] | None = None
    again: bool = False
    taken: bool = False
    found: bool = False
    watched_at: int = 0
    link_before: tuple[int, int] | None = None
    link_at_trial: tuple[int, int] | None = None
    before: Baseline = field(default_factory=Baseline)
    after: Past = field(default_factory=Past)

    def document(self) -> dict[str, Any]:
        """What is not as in a new row, for the store."""
        found = {
            one.name: value for one in dataclasses.fields(self) if (value := getattr(self, one.name)) != _NEW[one.name]
        }
        if "before" in found:
            found["before"] = self.before.document()
        if "after" in found:
            past = self.after
            found["after"] = [past.reports, past.readings, past.bad, sorted(past.seen.items())]
        return found


def row_of(document: dict[str, Any]) -> Row:
    """The row that document() describes. Raises TypeError, ValueError: it is none."""
    parts = dict(document)
    if "before" in parts:
        parts["before"] = baseline_of(parts["before"])
    if "after" in parts:
        reports, readings, bad, seen = parts["after"]
        parts["after"] = Past(reports, readings, bad, dict(seen))
    if parts.get("asked") is not None:
        action, nonce, digest = parts["asked"]
        parts["asked"] = (action, nonce, digest)
    for name in ("link_before", "link_at_trial"):
        if parts.get(name) is not None:
            asked, missed = parts[name]
            parts[name] = (asked, missed)
    return Row(**parts)


_NEW = {one.name: getattr(Row(), one.name) for one in dataclasses.fields(Row)}


@dataclass
class Course:
    """The campaign itself. pardoned: failures that a person has decided to go on after. waived: the wave whose share of
    success was, -1 none."""

    state: str = DRAFT
    since: int = 0
    reason: str = ""
    wave: int = CANARY
    pardoned: int = 0
    waived: int = -1


@dataclass(frozen=True)
class Change:
    """One transition. board: "" for the campaign's own."""

    board: str
    former: str
    event: str
    state: str
    said: str


@dataclass(frozen=True)
class Wanted:
    """An order that a board is to get. not_after: of ARM, Unix seconds, else 0."""

    board: str
    action: int
    digest: str
    nonce: bytes
    not_after: int
