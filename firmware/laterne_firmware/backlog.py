"""Reports that the gateway has not acknowledged: on flash before they are sent, acknowledged before forgotten.

What it holds to (firmware/README.md, "The backlog"):
1 - a report is offered only when its record and the reservation of its number are on flash;
2 - a sequence number is never used twice, whatever is damaged: when the newest record cannot be trusted, the next
    number is the bound of the state record, and the skipped ones are stated;
3 - flash is bounded: the oldest segment goes first, and what was lost with it is stated in the next report;
4 - nothing is deleted because it could not be read: one damaged segment is set aside.
"""

import os

from laterne_firmware.segment import SEGMENT_REPORTS, Segment
from laterne_firmware.store import make_directory
from laterne_protocol import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from laterne_firmware.state import State

MAX_SEGMENTS = 24  # <= 30 entries a directory (littlefs #1079); 768 KiB, a day of minutes
FREE_BLOCKS = 12  # littlefs copies on write, and records need room, too
LOST_NUMBERS = 1 << 24  # skipped when nothing at all says which numbers were used: 32 years of minutes


class Backlog:
    """next_sequence: of the next report. head: digest of the newest report's payload, None before the first.

    newest_boot: the boot count in the newest report, 0 when there is none.
    """

    def __init__(
        self, state: "State", log: "Callable[[str], None]", directory: str = "/log", max_segments: int = MAX_SEGMENTS
    ) -> None:
        self._state = state
        self._log = log
        self._directory = directory
        self._max_segments = max_segments
        self._segments = []  # type: list[Segment]
        self._acknowledged = 0
        self.next_sequence = report.FIRST_SEQUENCE
        self.head = None  # type: bytes | None
        self.newest_boot = 0

    # At start -----------------------------------------------------------------------------------------------------

    def recover(self, enrolled: bool) -> "Generator[None, None, None]":
        """Finds what is there, a step for each segment. The state is changed, not saved: State.begin() does it.

        enrolled: whether the board may have made reports before.
        """
        make_directory(self._directory)
        names = sorted(name for name in os.listdir(self._directory) if len(name) == 8)
        for name in names:
            try:
                segment = Segment(self._directory, int(name, 16))
                segment.scan()
            except (OSError, ValueError) as why:
                self._log("log/%s cannot be read: %s" % (name, why))
                continue
            yield
            if segment.count:
                self._segments.append(segment)
            elif segment.damaged:
                self._set_aside(segment)
            else:
                os.remove(segment.path)  # a file that was being made when the power failed
        self._close_holes()
        self._find_head(enrolled)

    def _close_holes(self) -> None:
        for former, segment in zip(self._segments, self._segments[1:]):  # noqa: B905 - no `strict` on MicroPython
            if segment.first > former.last + 1:
                self._lose(
                    former.last + 1, segment.first - 1, report.DAMAGED if former.damaged else report.NUMBER_SKIPPED
                )

    def _find_head(self, enrolled: bool) -> None:
        state = self._state
        newest = self._segments[-1] if self._segments else None
        if newest is None:
            self.next_sequence = state.bound
            if state.lost and enrolled:
                self.next_sequence = LOST_NUMBERS
            if self.next_sequence > report.FIRST_SEQUENCE:
                self._lose(report.FIRST_SEQUENCE, self.next_sequence - 1, report.DAMAGED)
            return
        self.next_sequence = newest.last + 1
        self.newest_boot, self._acknowledged, self.head = newest.newest
        reserved = newest.first + SEGMENT_REPORTS
        # Three things may have happened to the newest segment:
        # 1 - it is whole and the bound is its own, or it was made and the bound was not yet saved: go on in it.
        # 2 - its end is damaged: any number below the bound may be on the way to the platform.
        # 3 - the bound belongs to a newer segment, which is gone: the same.
        if newest.damaged or state.bound > reserved:
            self.next_sequence = max(reserved, state.bound)
            if state.lost:
                self.next_sequence += LOST_NUMBERS
            newest.damaged = True
            self._lose(newest.last + 1, self.next_sequence - 1, report.DAMAGED)

    # Reports in and out -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Reports that are not acknowledged."""
        count = 0
        for segment in self._segments:
            count += max(0, segment.last - max(self._acknowledged, segment.first - 1))
        return count

    def append(self, body: bytes, payload: bytes) -> None:
        """The signed report with next_sequence, on flash when this returns. OSError when the flash refuses for good."""
        sequence = self.next_sequence
        digest = report.digest(payload)
        while True:
            try:
                segment = self._open_segment(sequence)
                segment.append(body, self._state.boot, self._acknowledged, digest)
                break
            except OSError as why:
                if not self._segments:
                    raise
                self._log("flash refuses report %d (%s): the oldest reports go" % (sequence, why))
                self._drop_oldest()
        if segment not in self._segments:
            # Only now, and before anybody sees the number: a cut in between leaves a whole record behind.
            self._state.bound = segment.first + SEGMENT_REPORTS
            self._state.save()
            self._segments.append(segment)
        self.next_sequence = sequence + 1
        self.head = digest

    def oldest_after(self, sequence: int) -> "bytes | None":
        """The oldest report with a greater sequence, None when there is none."""
        wanted = max(sequence, self._acknowledged) + 1
        for segment in list(self._segments):
            while wanted <= segment.last:
                wanted = max(wanted, segment.first)
                last = segment.last
                body = segment.read(wanted)
                if body is not None:
                    return body
                # segment.last has shrunk if all behind the damage is lost, too.
                lost_to = last if segment.last < last else wanted
                self._log("reports %d..%d are damaged on flash" % (wanted, lost_to))
                self._lose(wanted, lost_to, report.DAMAGED)
                self._state.save()
                wanted = lost_to + 1
        return None

    def acknowledge(self, up_to: int) -> None:
        """The gateway has all reports up to this sequence on disk. More than there are is taken for all."""
        up_to = min(up_to, self.next_sequence - 1)
        if up_to <= self._acknowledged:
            return
        self._acknowledged = up_to
        # The newest segment stays when it is empty of news: it says which number and digest come next.
        while len(self._segments) > 1 and self._segments[0].last <= up_to:
            self._forget(self._segments.pop(0))
        open_gaps = [gap for gap in self._state.gaps if not 0 < gap[3] <= up_to]
        if len(open_gaps) < len(self._state.gaps):
            self._state.gaps = open_gaps
            self._state.save()

    # What is lost -------------------------------------------------------------------------------------------------

    def gaps_to_state(self) -> "list[list[int]]":
        """[first, last, reason] of what no report that still exists has stated."""
        return [gap[:3] for gap in self._state.gaps if gap[3] == 0]

    def gaps_stated(self, gaps: "list[list[int]]", sequence: int) -> None:
        """The report with this sequence, on flash, states these gaps. They are forgotten with its acknowledgement."""
        for gap in self._state.gaps:
            if gap[:3] in gaps:
                gap[3] = sequence

    def _lose(self, first: int, last: int, reason: int) -> None:
        # Gaps stay in order and apart (protocol/README.md, 6): the new one takes in what it covers.
        kept = []
        for gap in self._state.gaps:
            if gap[0] <= first and last <= gap[1]:
                return
            if first <= gap[0] and gap[1] <= last:
                continue
            if gap[2] == reason and gap[0] <= last + 1 and first <= gap[1] + 1:
                first, last = min(first, gap[0]), max(last, gap[1])
                continue
            kept.append(gap)
        if len(kept) >= report.MAX_GAPS:
            # Not silent for the platform: it sees the missing number, it only does not learn why.
            self._log("reports %d..%d are lost; too many gaps to state this one" % (first, last))
            return
        kept.append([first, last, reason, 0])
        self._state.gaps = sorted(kept)

    def _open_segment(self, sequence: int) -> Segment:
        if self._segments and not self._segments[-1].full and self._segments[-1].last + 1 == sequence:
            return self._segments[-1]
        while self._segments and (len(self._segments) >= self._max_segments or free_blocks() < FREE_BLOCKS):
            self._drop_oldest()
        return Segment(self._directory, sequence)

    def _drop_oldest(self) -> None:
        segment = self._segments.pop(0)
        first = max(segment.first, self._acknowledged + 1)
        for gap in self._state.gaps:
            if segment.first <= gap[3] <= segment.last:
                gap[3] = 0  # the report that stated it goes, too
        if first <= segment.last:
            self._lose(first, segment.last, report.BACKLOG_FULL)
            self._log("backlog full, reports %d..%d are lost" % (first, segment.last))
        self._state.save()  # the statement is on flash before the reports go
        self._forget(segment)

    def _forget(self, segment: Segment) -> None:
        if segment.damaged:
            self._set_aside(segment)
        else:
            os.remove(segment.path)

    def _set_aside(self, segment: Segment) -> None:
        self._log("%s is damaged, kept as damaged.bad" % segment.path)
        os.rename(segment.path, self._directory + "/damaged.bad")


def free_blocks() -> int:
    """Blocks of the file system that are free."""
    return os.statvfs("/")[3]
