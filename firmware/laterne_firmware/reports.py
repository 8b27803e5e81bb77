"""The open report: readings are packed as they come, and closed, chained, signed and stored when it is old or full.

Until then flash holds it as a draft, no more than DRAFT_MS old, so that a power cut costs seconds and not a report.
Each draft costs flash about one erase, as a report does (README.md, "Wear").
All columns of a report share their times: a sensor that fails has MISSING readings, so the grid stays whole.
"""

import asyncio
from array import array

from micropython import const

from laterne_firmware.supervisor import stepping
from laterne_protocol import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.backlog import Backlog
    from laterne_firmware.clock import Clock
    from laterne_firmware.identity import Identity

DRAFT_MS = 20000
_DRAFT_AGAIN_MS = const(1000)  # recovery.CUT_MS leaves room for some of these
_HEAD_BYTES = const(128)  # id 34, sequence 10, predecessor 18, closing 16, clock 22, cut 6, release 12, heads 10
_GAP_BYTES = const(20)
_GRID_BYTES = const(12)
_COLUMN_BYTES = const(9)  # array head, channel, byte string head, quality head
_RUN_BYTES = const(8)
_ROW_COLUMN_BYTES = const(5 + _RUN_BYTES)  # the most that one reading more can add: a varint and a run of quality
_ROW_TIME_BYTES = const(4)  # sample_ms up to 3,600,000
_STEP_MS = const(100)
# littlefs may erase one block more than the last time; who asks meanwhile is not heard (README.md, "Credit").
_ERASE_MS = const(50)


class OpenReport:
    """Readings since opened_ms (milliseconds since boot)."""

    def __init__(self, opened_ms: int, gap_bytes: int = 0) -> None:
        self.opened_ms = opened_ms
        self.columns = []  # type: list[report.ColumnWriter]
        self._taken = array("i")  # milliseconds since opened_ms; the first row may be older
        self._fixed_bytes = _HEAD_BYTES + gap_bytes

    @property
    def readings(self) -> int:
        return len(self._taken) * len(self.columns)

    def add(self, now_ms: int, row: "list[tuple[int, int | None, int]]") -> bool:
        """Readings taken at one time: (channel, value or None, quality). False: they do not fit, close this first."""
        self._taken.append(now_ms - self.opened_ms)
        new = [channel for channel, _, _ in row if self._column(channel) is None]
        if not self._fits(len(self.columns) + len(new)):
            self._taken = self._taken[:-1]
            return False
        for channel in new:
            column = report.ColumnWriter(channel)
            for _ in range(len(self._taken) - 1):
                column.add(None)  # the others have readings already
            self.columns.append(column)
        values = {channel: (value, flag) for channel, value, flag in row}
        for column in self.columns:
            value, flag = values.get(column.channel, (None, report.MISSING))
            column.add(value, flag)
        return True

    def _column(self, channel: int) -> "report.ColumnWriter | None":
        for column in self.columns:
            if column.channel == channel:
                return column
        return None

    def _fits(self, columns: int) -> bool:
        taken = self._taken
        size = self._fixed_bytes + _GRID_BYTES + columns * (_COLUMN_BYTES + _ROW_COLUMN_BYTES)
        for column in self.columns:
            size += len(column.packed) + len(column.quality) * _RUN_BYTES
        # A column that starts late begins with a MISSING reading for each row before.
        size += (columns - len(self.columns)) * len(taken)
        if size + len(taken) * _ROW_TIME_BYTES <= report.MAX_PAYLOAD_BYTES:
            return True
        if size > report.MAX_PAYLOAD_BYTES:
            return False
        # Only now is it worth finding out whether the times are a grid, which costs nothing, or differences.
        differences = report.times_of(taken, taken[-1]).differences
        return size + len(differences or b"") <= report.MAX_PAYLOAD_BYTES

    def times(self, closed_ms: int) -> report.Times:
        return report.times_of(self._taken, closed_ms - self.opened_ms)


class Reporter:
    """Takes readings, makes reports of them. Does nothing before the board is enrolled.

    random: for signing. log: a line for the technician. report_s: age at which a report closes.
    readings: how many went into reports since this start. backlog: where its reports go.
    hold: set by an order that wants no report open; the sampling task sees it, as it sees the service switch.
    """

    def __init__(
        self,
        identity: "Identity",
        backlog: "Backlog",
        clock: "Clock",
        random: "Callable[[int], bytes]",
        log: "Callable[[str], None]",
        report_s: int,
    ) -> None:
        self._identity = identity
        self.backlog = backlog
        self._clock = clock
        self._random = random
        self._log = log
        self._report_ms = report_s * 1000
        self._open = None  # type: OpenReport | None
        self._close_asked = False
        self.hold = self._paused = identity.silent or identity.rescue
        self._stated = None  # type: tuple[bytes, bool] | None  # what the last report said of the release
        self._closing_ms = 200  # so long the last ones took from closing to being on flash, and an erase
        self._closing = False
        self._drafted_ms = 0  # when the open report was opened, or its newest draft made
        self._drafted = 0  # readings in that draft
        self.readings = 0

    def pause(self, paused: bool) -> None:
        """Service: the open report is closed at once and no new one is opened."""
        self._paused = paused

    @property
    def is_quiet(self) -> bool:
        """Idle, and it stays so: no readings come."""
        return self._paused and self.idle

    @property
    def idle(self) -> bool:
        """Nothing open and nothing being signed: what there is, is in the backlog."""
        return self._open is None and not self._closing and self.backlog.draft is None

    def due_ms(self) -> int:
        """Milliseconds until the open report is expected to be in the backlog."""
        if self._closing or self._close_asked:
            return self._closing_ms
        if self._open is None:
            return self._report_ms
        age_ms = self._clock.now_ms() - self._open.opened_ms
        return max(0, self._report_ms - age_ms) + self._closing_ms

    async def put(self, now_ms: int, row: "list[tuple[int, int | None, int]]") -> None:
        """Readings of one time into the open report; waits for the next one when it is full. Not while paused."""
        while True:
            if self._open is not None:
                if self._open.add(now_ms, row):
                    self.readings += len(row)
                    return
                self._close_asked = True
            await asyncio.sleep_ms(20)

    async def run(self, beat: "Callable[[], None]") -> None:
        """Closes reports as they become due, for ever. beat: called at every step."""
        while True:
            beat()
            if self._identity.board is not None:
                await self._step(beat)
            await asyncio.sleep_ms(min(_STEP_MS, max(0, self.due_ms() - self._closing_ms)))

    async def _step(self, beat: "Callable[[], None]") -> None:
        self.backlog.skip()
        now_ms = self._clock.now_ms()
        current = self._open
        if current is None:
            if not self._paused:
                self._opened(now_ms)
            if self.backlog.draft is not None:
                await self._close_draft(self.backlog.draft, beat)
            return
        if self._paused or self._close_asked or now_ms - current.opened_ms >= self._report_ms:
            self._closing = True
            # Readings go on into the next one while this one is signed.
            self._open = None
            if not self._paused:
                self._opened(now_ms)
            self._close_asked = False
            await self._close(current, now_ms, beat)
            self._closing = False
            took_ms = self._clock.now_ms() - now_ms + _ERASE_MS
            self._closing_ms = max(took_ms, (3 * self._closing_ms + took_ms) // 4)
        elif now_ms - self._drafted_ms >= DRAFT_MS and current.readings > self._drafted:
            self._keep_draft(current, now_ms)

    def _opened(self, now_ms: int) -> None:
        self._open = OpenReport(now_ms, len(self.backlog.gaps_to_state()) * _GAP_BYTES)
        self._drafted_ms, self._drafted = now_ms, 0

    def _keep_draft(self, current: OpenReport, now_ms: int) -> None:
        # Without gaps: they are in the state record, and the report after the draft's states them.
        self._drafted_ms, self._drafted = now_ms, current.readings
        try:
            self.backlog.keep_draft(self._payload(current, now_ms, self.backlog.next_sequence, [], self._running()))
        except OSError as why:
            # Of a report that is not closed yet: it goes on in memory. Soon again, else the end of this start would
            # cost more readings than the next one states.
            self._log("flash refuses a draft (%s)" % why)
            self._drafted_ms, self._drafted = now_ms - DRAFT_MS + _DRAFT_AGAIN_MS, 0

    async def _close_draft(self, draft: "tuple[bytes, int]", beat: "Callable[[], None]") -> None:
        payload, boot = draft
        from laterne_protocol.cose_writing import REPORT

        signed = await stepping(self._identity.sign(REPORT, payload, self._random), beat)
        self._log("report %d was open when start %d ended" % (self.backlog.next_sequence, boot))
        self.backlog.append(signed, payload, boot)
        self.backlog.draft = None

    async def _close(self, closed: OpenReport, closed_ms: int, beat: "Callable[[], None]") -> None:
        backlog = self.backlog
        sequence = backlog.next_sequence
        # Gaps that came up while this report was open wait for the next one if there is no room for them.
        gaps = backlog.gaps_to_state()
        running = self._running()
        while True:
            payload = self._payload(closed, closed_ms, sequence, gaps, running)
            if len(payload) <= report.MAX_PAYLOAD_BYTES or not gaps:
                break
            gaps.pop()
        from laterne_protocol.cose_writing import REPORT

        signed = await stepping(self._identity.sign(REPORT, payload, self._random), beat)
        backlog.append(signed, payload, self._clock.boot)
        backlog.cut_ms = 0
        self._stated = running
        backlog.gaps_stated(gaps, sequence)
        self._log("report %d closed, %d readings" % (sequence, closed.readings))

    def _running(self) -> "tuple[bytes, bool] | None":
        identity = self._identity
        return (identity.release[: report.RELEASE_BYTES], identity.trial) if identity.release else None

    def _payload(
        self,
        closed: OpenReport,
        closed_ms: int,
        sequence: int,
        gaps: "list[list[int]]",
        running: "tuple[bytes, bool] | None",
    ) -> bytes:
        identity = self._identity
        return report.Report(
            identity.board or "",
            sequence,
            self.backlog.head or identity.credential_digest,
            self._clock.boot,
            closed_ms,
            self._clock.at(closed_ms),
            closed.times(closed_ms),
            [report.Column(column.channel, column.packed, column.quality) for column in closed.columns],
            gaps,
            self.backlog.cut_ms,
            None if running == self._stated else running,
        ).to_payload()
