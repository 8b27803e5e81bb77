"""What a demo has shown, counted at its two ends: in the boards' sensors and at the verifying subscriber."""

import statistics
from dataclasses import dataclass, field

_SHOWN = {"Cel": "°C"}  # UCUM's names that people would not know


@dataclass
class BoardFigures:
    """One board, as the subscriber sees it. values: the last reading of each channel, ready to be shown."""

    reports: int = 0
    readings: int = 0
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Figures:
    """Counts of a whole run. Bytes are those on the lines, both ways, everything included."""

    seconds: float = 0.0
    readings_taken: int = 0
    line_bytes: int = 0
    refused: int = 0
    repeated: int = 0
    gateway_restarts: int = 0
    boards: dict[str, BoardFigures] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def take(self, line: dict[str, object]) -> None:
        """One line of `laterne verify --json-lines`: a report that was verified, or one that was refused."""
        if not line.get("ok"):
            self.refused += 1
            self.refusals.append(f"{line.get('board')} {line.get('sequence')}: {line.get('reason')}")
            return
        if line.get("repeated"):
            self.repeated += 1
            return
        board = self.boards.setdefault(str(line["board"]), BoardFigures())
        board.reports += 1
        board.readings += _integer(line["readings"])
        last = line.get("last")
        if isinstance(last, dict):
            board.values.update(
                {
                    str(name): f"{reading['value']} {_SHOWN.get(reading['unit'], reading['unit'])}"
                    for name, reading in last.items()
                }
            )
        closed, arrived = line.get("closed_utc_ms"), line.get("arrival_ms")
        if closed is not None and arrived is not None:  # before its clock is set a board cannot say when
            self.latencies_ms.append(float(_integer(arrived) - _integer(closed)))

    @property
    def readings_delivered(self) -> int:
        return sum(board.readings for board in self.boards.values())

    @property
    def reports_verified(self) -> int:
        return sum(board.reports for board in self.boards.values())

    @property
    def readings_lost(self) -> int:
        return max(0, self.readings_taken - self.readings_delivered)

    def summary(self, boards: int) -> dict[str, object]:
        """The demo's last line (design.md, 9)."""
        delivered = self.readings_delivered
        return {
            "boards": boards,
            "seconds": round(self.seconds, 1),
            "readings_taken": self.readings_taken,
            "readings_delivered": delivered,
            "readings_lost": self.readings_lost,
            "reports_verified": self.reports_verified,
            "reports_refused": self.refused,
            "reports_repeated": self.repeated,
            "latency_ms": {"p50": self._percentile(50), "p99": self._percentile(99)},
            "bytes_per_reading": round(self.line_bytes / delivered, 2) if delivered else None,
        }

    def _percentile(self, percent: int) -> float | None:
        if len(self.latencies_ms) < 2:
            return round(self.latencies_ms[0], 1) if self.latencies_ms else None
        return round(statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1], 1)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"not a count: {value!r}")
    return value
