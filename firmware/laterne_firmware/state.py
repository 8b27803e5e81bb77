"""The state record: how often the board has started, which sequence numbers may be in use, which reports were lost.

It is written at each start, once for SEGMENT_REPORTS reports, and when reports are lost: small enough for flash to
last (README.md, "Wear"). `recovery` reads it.
"""

from laterne_firmware.store import Record
from laterne_protocol import cbor
from laterne_protocol.report import FIRST_SEQUENCE


class State:
    """boot: this start's number, from 1. bound: no sequence at or above it has ever been used.

    gaps: [first, last, reason, stated in]: lost reports, and the sequence of the report that states them, 0 while none.
    """

    def __init__(self, path: str = "/st") -> None:
        self.record = Record(path)
        self.boot = 0
        self.bound = FIRST_SEQUENCE
        self.gaps = []  # type: list[list[int]]

    def save(self) -> None:
        """OSError when the flash refuses."""
        self.record.save(cbor.encode([self.boot, self.bound, self.gaps]))
