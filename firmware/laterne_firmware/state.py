"""The state record: how often the board has started, which sequence numbers may be in use, which reports were lost.

It is written at each start, once for SEGMENT_REPORTS reports, and when reports are lost: small enough for flash to
last (README.md, "Wear").
"""

from laterne_firmware.store import Record
from laterne_protocol import cbor, fields
from laterne_protocol.errors import WireError
from laterne_protocol.report import FIRST_SEQUENCE

MAX_OPEN_GAPS = 16  # as many as one report can state

# A start whose number is not known for sure must not repeat one: reports and session would mix two starts.
DOUBTFUL_BOOTS = 2
LOST_BOOTS = 1000  # far more starts than a board makes within one segment of reports


class State:
    """boot: this start's number, from 1. bound: no sequence at or above it has ever been used.

    gaps: [first, last, reason, stated in]: lost reports, and the sequence of the report that states them, 0 while none.
    lost: there was a record and it cannot be read; the backlog then says what it knows.
    """

    def __init__(self, path: str = "/st") -> None:
        self._record = Record(path)
        self.boot = 0
        self.bound = FIRST_SEQUENCE
        self.gaps = []  # type: list[list[int]]
        body = self._record.load()
        self.lost = self._record.damaged
        self.doubtful = self._record.doubtful
        if body is not None:
            try:
                self._take(body)
            except WireError:
                self.lost = True

    def _take(self, body: bytes) -> None:
        boot, bound, gaps = fields.array(cbor.decode(body, 1024), "state", 3, 3)
        taken = []
        for item in fields.array(gaps, "gaps", 0, MAX_OPEN_GAPS):
            taken.append([fields.integer(number, "gap") for number in fields.array(item, "gap", 4, 4)])
        self.gaps = taken
        self.boot = fields.integer(boot, "boot count")
        self.bound = fields.integer(bound, "bound")

    def begin(self, boot_seen: int) -> None:
        """Counts this start, on flash before its number is used. boot_seen: the highest that a report carries, or 0."""
        step = LOST_BOOTS if self.lost else DOUBTFUL_BOOTS if self.doubtful else 1
        self.boot = max(self.boot, boot_seen) + step
        self.save()

    def save(self) -> None:
        """OSError when the flash refuses."""
        self._record.save(cbor.encode([self.boot, self.bound, self.gaps]))
