"""The coordinator compares both ends: what boards closed, and what a subscriber was handed in which order.

It knows reports and nothing of gateways. A subscriber may get a report again; it removes what it has by (board,
sequence). After that every report is there once, in order, the same bytes, and each names the one before (protocol/
README.md, 6) or states the gap.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from laterne_protocol import cose, report, report_reading

MAX_PROBLEMS = 10  # enough to see what kind it is


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


def compare(closed: Mapping[str, Mapping[int, bytes]], delivered: Iterable[tuple[str, bytes]]) -> Outcome:
    """closed: board -> sequence -> signed bytes. delivered: (board, signed bytes) as they came."""
    outcome = Outcome(sent=sum(len(reports) for reports in closed.values()))
    kept: dict[str, list[tuple[int, bytes, report.Report]]] = {board: [] for board in closed}
    seen: dict[tuple[str, int], bytes] = {}
    for board, body in delivered:
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
        kept[board].append((found.sequence, payload, found))
        outcome.delivered += 1
    for board, reports in closed.items():
        _judge(board, reports, kept[board], outcome)
    return outcome


@lru_cache(maxsize=4096)
def _read(body: bytes) -> tuple[bytes, report.Report]:
    payload = cose.parse(body, report.MAX_REPORT_BYTES).payload
    return payload, report_reading.report_of(payload)


def _judge(
    board: str, closed: Mapping[int, bytes], kept: list[tuple[int, bytes, report.Report]], outcome: Outcome
) -> None:
    sequences = [sequence for sequence, _, _ in kept]
    missing = sorted(set(closed) - set(sequences))
    outcome.lost += len(missing)
    if missing:
        outcome.problems.append(f"{board}: {len(missing)} reports lost: {_ranges(missing)}")
    if sequences != sorted(sequences):
        early, late = next(pair for pair in itertools.pairwise(sequences) if pair[0] > pair[1])
        outcome.problems.append(f"{board}: out of order: {early} came before {late}")
        return
    for (former, payload, _), (sequence, _, found) in itertools.pairwise(kept):
        stated = sum(gap[1] - gap[0] + 1 for gap in found.gaps if former < gap[0] <= gap[1] < sequence)
        if sequence == former + 1:
            if found.previous != report.digest(payload):
                outcome.problems.append(f"{board}: report {sequence} does not name {former} as the one before")
        elif stated != sequence - former - 1 and not missing:
            outcome.problems.append(f"{board}: {former + 1} to {sequence - 1} are missing and not stated")


def _ranges(numbers: list[int]) -> str:
    """1-3, 7"""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts[:5])
