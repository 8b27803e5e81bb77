"""The coordinator compares both ends: what boards closed, and what a subscriber was handed in which order.

It knows reports and nothing of gateways. A subscriber may get a report again; it removes what it has by (board,
sequence). After that every report is there once, in order, the same bytes, and each names the one before (protocol/
README.md, 6) or states the gap.

In order means, of each board: what an outage left behind ascends, and what is live ascends. Only where an outage has
left more behind than a lane holds may a live report come before an older one (design 6; laterne_gateway.routes.mqtt).
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from laterne_protocol import cose, report, report_reading

MAX_PROBLEMS = 10  # enough to see what kind it is


class Delivered(NamedTuple):
    """As it came to a subscriber. board: in the topic. historical: the user property."""

    board: str
    body: bytes
    historical: bool = False


class _Kept(NamedTuple):
    sequence: int
    payload: bytes
    found: report.Report
    historical: bool


@dataclass
class Outcome:
    """sent, delivered: reports, without repetitions. again: came again and were removed. repeated: could not be."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    again: int = 0
    repeated: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """As Case.survived wants them."""
        return {name: getattr(self, name) for name in ("sent", "delivered", "lost", "again", "repeated")}

    def check(self) -> None:
        """Raises AssertionError with all that is wrong."""
        if self.problems:
            raise AssertionError("; ".join(self.problems[:MAX_PROBLEMS]))


def compare(
    closed: Mapping[str, Mapping[int, bytes]],
    delivered: Iterable[Delivered],
    *,
    lanes: bool = False,
    begins: Mapping[str, bytes] | None = None,
) -> Outcome:
    """closed: board -> sequence -> signed bytes. delivered: in the order in which they came.

    lanes: an outage has left more than LEFT_BEHIND reports, so what is live overtakes it: each stream has an order of
    its own. Else everything of a board has one order. begins: board -> what its first report names as the one before.
    """
    outcome = Outcome(sent=sum(len(reports) for reports in closed.values()))
    kept: dict[str, list[_Kept]] = {board: [] for board in closed}
    seen: dict[tuple[str, int], bytes] = {}
    for board, body, historical in delivered:
        payload, found = _read(body)
        key = (found.board, found.sequence)
        if key in seen:
            outcome.again += 1
            if seen[key] != body:
                outcome.repeated += 1
                outcome.problems.append(f"{board}: two different reports {found.sequence} were delivered")
            continue
        seen[key] = body
        if board != found.board or body != closed.get(board, {}).get(found.sequence):
            outcome.problems.append(f"{board}: report {found.sequence} was delivered, and no board closed it so")
            continue
        kept[board].append(_Kept(found.sequence, payload, found, historical))
        outcome.delivered += 1
    for board, reports in closed.items():
        missing = sorted(set(reports) - {one.sequence for one in kept[board]})
        outcome.lost += len(missing)
        if missing:
            outcome.problems.append(f"{board}: {len(missing)} reports lost: {_ranges(missing)}")
        _judge_order(board, kept[board], lanes, outcome)
        _judge_chain(board, kept[board], bool(missing), (begins or {}).get(board), outcome)
    return outcome


@lru_cache(maxsize=4096)
def _read(body: bytes) -> tuple[bytes, report.Report]:
    payload = cose.parse(body, report.MAX_REPORT_BYTES).payload
    return payload, report_reading.report_of(payload)


def _judge_order(board: str, kept: list[_Kept], lanes: bool, outcome: Outcome) -> None:
    if lanes:
        streams = {
            " in the backlog": [one.sequence for one in kept if one.historical],
            " live": [one.sequence for one in kept if not one.historical],
        }
    else:
        streams = {"": [one.sequence for one in kept]}
    for name, sequences in streams.items():
        for early, late in itertools.pairwise(sequences):
            if early > late:
                outcome.problems.append(f"{board}: out of order{name}: {early} came before {late}")
                break


def _judge_chain(board: str, kept: list[_Kept], some_missing: bool, begins: bytes | None, outcome: Outcome) -> None:
    chain = sorted(kept, key=lambda one: one.sequence)
    first = chain[0].found if chain else None
    if begins is not None and first and first.sequence == report.FIRST_SEQUENCE and first.previous != begins:
        outcome.problems.append(f"{board}: the first report does not name the credential as the one before")
    for former, one in itertools.pairwise(chain):
        gaps = one.found.gaps
        stated = sum(gap[1] - gap[0] + 1 for gap in gaps if former.sequence < gap[0] <= gap[1] < one.sequence)
        if one.sequence == former.sequence + 1:
            if one.found.previous != report.digest(former.payload):
                outcome.problems.append(
                    f"{board}: report {one.sequence} does not name {former.sequence} as the one before"
                )
        elif stated != one.sequence - former.sequence - 1 and not some_missing:
            outcome.problems.append(f"{board}: {former.sequence + 1} to {one.sequence - 1} are missing and not stated")


def _ranges(numbers: list[int]) -> str:
    """1-3, 7"""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts[:5])
