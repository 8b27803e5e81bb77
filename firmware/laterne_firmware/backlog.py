"""Reports that the gateway has not acknowledged: on flash before they are sent, acknowledged before forgotten.

What it holds to (firmware/README.md, "The backlog"):
1 - a report is offered only when its record and the reservation of its number are on flash;
2 - a sequence number is never used twice, whatever is damaged: when the newest record cannot be trusted, the next
    number is the bound of the state record, and the skipped ones are stated;
3 - flash is bounded: the oldest segment goes first, and what was lost with it is stated in the next report;
4 - nothing is deleted because it could not be read: one damaged segment is set aside;
5 - the open report is on flash as a draft from time to time. A start signs the draft and appends it, if it has the next
    number and follows the newest report: else its report was appended, or that number may have been seen by others.
"""

import os
import struct
from binascii import crc32

from micropython import const

from laterne_firmware.segment import SEGMENT_REPORTS, Segment
from laterne_firmware.store import free_blocks, replace
from laterne_protocol import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.state import State

MAX_SEGMENTS = 24  # <= 30 entries a directory (littlefs #1079); 768 KiB, a day of minutes
MAX_DAMAGED = 4  # 128 KiB for a person to look at
DRAFT = "/open"  # in the directory of the segments
_TRIES = const(3)
_FULL = (28, 36)  # ENOSPC; ENAMETOOLONG, as littlefs says it of a new file whose folder finds no block
FREE_BLOCKS = 12  # littlefs copies on write, and records need room, too


class Backlog:
    """next_sequence: of the next report. head: digest of the newest report's payload, None before the first.

    segments: from the oldest to the newest. acknowledged: the gateway has all reports up to this one.
    draft: the payload that the start before has left, and its boot count; None when there is none.
    cut_ms: readings of so long at most are lost with the starts before; for the next report to state.
    `recovery` fills all of these at a start.
    """

    def __init__(
        self, state: "State", log: "Callable[[str], None]", directory: str = "/log", max_segments: int = MAX_SEGMENTS
    ) -> None:
        self._state = state
        self._log = log
        self.directory = directory
        self._max_segments = max_segments
        self.segments = []  # type: list[Segment]
        self.acknowledged = 0
        self.next_sequence = report.FIRST_SEQUENCE
        self.head = None  # type: bytes | None
        self.draft = None  # type: tuple[bytes, int] | None
        self.cut_ms = 0
        self._known_to = 0  # the gateway has this report, though it is not here
        self._place = [0, 0]  # of the report that was read last (segment.py)

    # Reports in and out -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Reports that are not acknowledged."""
        count = 0
        for segment in self.segments:
            count += max(0, segment.last - max(self.acknowledged, segment.first - 1))
        return count

    def keep_draft(self, payload: bytes) -> None:
        """The open report as it is now, unsigned, on flash when this returns. OSError when the flash refuses."""
        replace(self.directory + DRAFT, struct.pack("<I", crc32(payload)) + payload)

    def append(self, body: bytes, payload: bytes, boot: int) -> None:
        """The signed report with next_sequence, made in this start, on flash when this returns.

        OSError when the flash refuses for good.
        """
        sequence = self.next_sequence
        digest = report.digest(payload)
        tries = _TRIES
        while True:
            try:
                segment = self._open_segment(sequence)
                segment.append(body, boot, self.acknowledged, digest)
                break
            except OSError as why:
                if not self.segments:
                    raise
                # Only a full flash has more room without them; what else it refuses it may take at another place.
                if why.errno in _FULL:
                    self._log("flash refuses report %d (%s): the oldest reports go" % (sequence, why))
                    self._drop_oldest()
                    continue
                tries -= 1
                if not tries:
                    raise
                self._log("flash refuses report %d (%s): it is tried again" % (sequence, why))
        if segment not in self.segments:
            # Only now, and before anybody sees the number: a cut in between leaves a whole record behind.
            self._state.bound = segment.first + SEGMENT_REPORTS
            self._state.save()
            self.segments.append(segment)
        self.next_sequence = sequence + 1
        self.head = digest

    def oldest_after(self, sequence: int, room: int) -> "list[bytes]":
        """The oldest reports with greater sequences: the first, and those that fit `room` bytes, with heads in CBOR."""
        found = []  # type: list[bytes]
        wanted = max(sequence, self.acknowledged) + 1
        for segment in list(self.segments):
            while wanted <= segment.last:
                wanted = max(wanted, segment.first)
                last = segment.last
                body = segment.read(wanted, self._place)
                if body is not None:
                    size = len(body) + 3
                    room -= size
                    if room >= 0 or not found:
                        found.append(body)
                    if room < size:  # the next one is about as long: few are read in vain
                        return found
                    wanted += 1
                    continue
                # segment.last has shrunk if all behind the damage is lost, too.
                lost_to = last if segment.last < last else wanted
                self._log("reports %d..%d are damaged on flash" % (wanted, lost_to))
                self.lose(wanted, lost_to, report.DAMAGED)
                self._save_later()
                wanted = lost_to + 1
        return found

    def acknowledge(self, up_to: int) -> None:
        """The gateway has all reports up to this sequence on disk. More than there are is taken for all."""
        if self.next_sequence <= up_to < self._state.bound:
            self._known_to = up_to
        up_to = min(up_to, self.next_sequence - 1)
        if up_to <= self.acknowledged:
            return
        self.acknowledged = up_to
        # The newest segment stays when it is empty of news: it says which number and digest come next.
        while len(self.segments) > 1 and self.segments[0].last <= up_to:
            self.forget(self.segments.pop(0))
        open_gaps = [gap for gap in self._state.gaps if not 0 < gap[3] <= up_to]
        if len(open_gaps) < len(self._state.gaps):
            self._state.gaps = open_gaps
            self._save_later()

    def skip(self) -> None:
        """Leaves out numbers that the gateway has seen and this flash does not know any more. No report is being made.

        littlefs shows a folder as it was before when the newer of its two blocks is damaged: then the newest segment is
        shorter, and whole. Or another board has this one's key: the report says so, for nothing else would tell of it.
        A gateway that makes this up has acknowledged all that there is, and wins nothing more.
        """
        if self._known_to < self.next_sequence:
            return
        self._log("the gateway has report %d, flash has lost it" % self._known_to)
        self.acknowledged = self._known_to
        self.lose(self._known_to + 1, self._state.bound, report.OVERTAKEN)
        # As recovery does, and for the same reason; on flash, so that a start before the next report knows it, too.
        self._state.bound += 1
        self.next_sequence = self._state.bound
        self.draft = None
        self._save_later()

    # What is lost -------------------------------------------------------------------------------------------------

    def gaps_to_state(self) -> "list[list[int]]":
        """[first, last, reason] of what no report that still exists has stated."""
        return [gap[:3] for gap in self._state.gaps if gap[3] == 0]

    def gaps_stated(self, gaps: "list[list[int]]", sequence: int) -> None:
        """The report with this sequence, on flash, states these gaps. They are forgotten with its acknowledgement."""
        for gap in self._state.gaps:
            if gap[:3] in gaps:
                gap[3] = sequence

    def lose(self, first: int, last: int, reason: int) -> None:
        """These reports are gone: a gap to state, in memory until the state is saved."""
        # Gaps stay in order and apart (protocol/README.md, 6): the new one takes in what it covers.
        kept = []
        for gap in self._state.gaps:
            if gap[0] <= first and last <= gap[1]:
                return
            if first <= gap[0] and gap[1] <= last:
                if gap[2] == report.OVERTAKEN:
                    reason = gap[2]  # a person is told of it
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
        if self.segments and not self.segments[-1].full and self.segments[-1].last + 1 == sequence:
            return self.segments[-1]
        while self.segments and (len(self.segments) >= self._max_segments or free_blocks() < FREE_BLOCKS):
            self._drop_oldest()
        return Segment(self.directory, sequence)

    def _drop_oldest(self) -> None:
        segment = self.segments.pop(0)
        first = max(segment.first, self.acknowledged + 1)
        for gap in self._state.gaps:
            if segment.first <= gap[3] <= segment.last:
                gap[3] = 0  # the report that stated it goes, too
        if first <= segment.last:
            self.lose(first, segment.last, report.BACKLOG_FULL)
            self._log("backlog full, reports %d..%d are lost" % (first, segment.last))
        self._state.save()  # the statement is on flash before the reports go
        self.forget(segment)

    def _save_later(self) -> None:
        # Of what the next start finds out anew: damage, and what was acknowledged. A flash that refuses it must not
        # keep a board from delivering what it can read.
        try:
            self._state.save()
        except OSError as why:
            self._log("flash refuses the state record (%s)" % why)

    def forget(self, segment: Segment) -> None:
        """Removes it, or sets it aside. One that flash keeps is found by the next start: acknowledged, or lost."""
        try:
            if segment.damaged:
                self.set_aside(segment)
            else:
                os.remove(segment.path)
        except OSError as why:
            self._log("flash refuses to forget %s (%s)" % (segment.path, why))

    def set_aside(self, segment: Segment) -> None:
        """What cannot be read is kept under another name; of more than MAX_DAMAGED such files the oldest goes."""
        damaged = sorted(name for name in os.listdir(self.directory) if name.endswith(".bad"))
        if len(damaged) >= MAX_DAMAGED:
            self._log("%s is removed, too many are damaged" % damaged[0])
            os.remove(self.directory + "/" + damaged[0])
        self._log("%s is damaged, kept as .bad" % segment.path)
        os.rename(segment.path, segment.path + ".bad")
