"""Reports: what a board measured in a minute or so, packed for a slow line (protocol/README.md, 6).

A column is the readings of one channel. Its values are scaled integers, the first one whole and each other as
the difference to the one before, as zigzag varints in a byte string: slow quantities cost one byte a reading.
The board packs values as they come (ColumnWriter), so an open report takes no more RAM than it will on the line.

This module writes reports; a board needs no more. report_reading takes them apart.
"""

import hashlib

from laterne_protocol import cbor
from laterne_protocol.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_REPORT_BYTES = 960  # a signed report in a message, in a record, in one frame of 1,024
MAX_PAYLOAD_BYTES = MAX_REPORT_BYTES - 86  # COSE_Sign1: header with kid 14, signature 66, the rest 6
MAX_COLUMNS = 64
MAX_CHANNEL = 0xFFFF
MAX_GAPS = 16
DIGEST_BYTES = 16
FIRST_SEQUENCE = 1
RELEASE_BYTES = 8  # enough to tell the releases of an authority apart; whoever has them all knows the whole digest

# State of the board's clock when it closed the report (design 5).
NEVER_SET, SET, HELD = 0, 1, 2
# What a board's crystal may be off, and its clock drift from the moment at which it was told the time. Pico, ESP32: 30
# to 50 ppm at 25 degrees, and the cold of a lamp post. A gateway that measures more tells such a board no time.
DRIFT_PPM = 100

# Quality of a reading: QARTOD flags. MISSING has no value.
GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
FLAGS = (NOT_EVALUATED, SUSPECT, FAIL, MISSING)

# Why reports were lost.
BACKLOG_FULL, DAMAGED, NUMBER_SKIPPED, OVERTAKEN = 1, 2, 3, 4

MIN_VALUE, MAX_VALUE = -0x80000000, 0x7FFFFFFF


def digest(payload: bytes) -> bytes:
    """What the next report names as its predecessor: SHA-256 of this payload, first 16 bytes."""
    return hashlib.sha256(payload).digest()[:DIGEST_BYTES]


class ColumnWriter:
    """The readings of one channel, packed as they come.

    channel: its number. count: readings so far. packed: their bytes.
    quality: runs [first, count, flag] of those not good.
    """

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.count = 0
        self.packed = bytearray()
        self.quality = []  # type: list[list[int]]
        self._former = 0

    def add(self, value: "int | None", flag: int = GOOD) -> None:
        """One reading more. value: an integer of 32 bits, None when it is MISSING. Raises ObjectError."""
        if value is None:
            value, flag = self._former, MISSING
        elif not MIN_VALUE <= value <= MAX_VALUE:
            raise ObjectError("a value beyond 32 bits")
        _put_varint(self.packed, _zigzag(value - self._former))
        self._former = value
        if flag != GOOD:
            if flag not in FLAGS:
                raise ObjectError("quality %d is not one of ours" % flag)
            runs = self.quality
            if runs and runs[-1][2] == flag and runs[-1][0] + runs[-1][1] == self.count:
                runs[-1][1] += 1
            else:
                runs.append([self.count, 1, flag])
        self.count += 1


class Times:
    """When the readings of a column were taken, counted back from the closing of the report.

    age_ms: from the first reading to the closing. Either a grid, step_ms apart and `count` of them
    (each right to a fiftieth of a step or 20 ms, whichever is more), or `differences`: varints, the
    milliseconds from each reading to the next.
    """

    def __init__(self, age_ms: int, step_ms: int = 0, count: int = 0, differences: "bytes | None" = None) -> None:
        self.age_ms = age_ms
        self.step_ms = step_ms
        self.count = count
        self.differences = differences

    def to_value(self) -> "list[object]":
        if self.differences is None:
            return [self.age_ms, self.step_ms, self.count]
        return [self.age_ms, self.differences]


def times_of(taken_ms: "Sequence[int]", closed_ms: int) -> Times:
    """The shortest honest Times for readings taken at these milliseconds since boot, in order, none after closed_ms.

    Raises ObjectError: out of order, or after the closing.
    """
    count = len(taken_ms)
    if count == 0:
        return Times(0, 0, 0)
    first = taken_ms[0]
    if taken_ms[-1] > closed_ms:
        raise ObjectError("a reading after the closing of its report")
    for index in range(1, count):
        if taken_ms[index] < taken_ms[index - 1]:
            raise ObjectError("readings out of order of time")
    step = (taken_ms[-1] - first + (count - 1) // 2) // (count - 1) if count > 1 else 0
    tolerance = max(20, step // 50)
    for index in range(count):
        if not -tolerance <= first + index * step - taken_ms[index] <= tolerance or first + index * step > closed_ms:
            break
    else:
        return Times(closed_ms - first, step, count)
    differences = bytearray()
    for index in range(1, count):
        _put_varint(differences, taken_ms[index] - taken_ms[index - 1])
    return Times(closed_ms - first, differences=bytes(differences))


class Column:
    """The readings of one channel as they stand in a report.

    packed: the values' bytes. quality: runs (first, count, flag) of readings that are not good.
    times: their own, or None for the report's common ones.
    """

    def __init__(
        self,
        channel: int,
        packed: "bytes | bytearray",
        quality: "list[list[int]]",
        times: "Times | None" = None,
    ) -> None:
        self.channel = channel
        self.packed = packed
        self.quality = quality
        self.times = times

    def to_value(self) -> "list[object]":
        if self.times is not None:
            return [self.channel, self.packed, self.quality, self.times.to_value()]
        if self.quality:
            return [self.channel, self.packed, self.quality]
        return [self.channel, self.packed]


class Report:
    """The payload of a report.

    board: its id. sequence: 1.., one more for each report. previous: digest() of the report before, 16 bytes.
    boot: how often the board has started. closed_ms: milliseconds since that start at closing.
    clock: (state, UTC milliseconds at closing or None, uncertainty in milliseconds).
    times: of all columns that have none of their own. columns: list of Column.
    gaps: [from, to, reason] of lost reports. cut_ms: in the first report of a start, otherwise 0: readings of so many
    milliseconds at most, taken after the closing of the report before, went with the start before.
    release: the first RELEASE_BYTES of the digest of the release that runs, and whether it is only tried; in the first
    report of a start and in the first one after the trial, otherwise None.
    """

    def __init__(
        self,
        board: str,
        sequence: int,
        previous: bytes,
        boot: int,
        closed_ms: int,
        clock: "tuple[int, int | None, int]",
        times: Times,
        columns: "list[Column]",
        gaps: "list[list[int]]",
        cut_ms: int = 0,
        release: "tuple[bytes, bool] | None" = None,
    ) -> None:
        self.board = board
        self.sequence = sequence
        self.previous = previous
        self.boot = boot
        self.closed_ms = closed_ms
        self.clock = clock
        self.times = times
        self.columns = columns
        self.gaps = gaps
        self.cut_ms = cut_ms
        self.release = release

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/report/1."""
        content = {
            1: self.board,
            2: self.sequence,
            3: self.previous,
            4: [self.boot, self.closed_ms],
            5: [self.clock[0], self.clock[1], self.clock[2]],
        }  # type: dict[object, object]
        if self.columns:
            content[6] = [self.times.to_value(), [column.to_value() for column in self.columns]]
        if self.gaps:
            content[7] = self.gaps
        if self.cut_ms:
            content[8] = self.cut_ms
        if self.release is not None:
            content[9] = self.release
        return cbor.encode(content)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _put_varint(out: bytearray, value: int) -> None:
    # LEB128: seven bits a byte, the lowest first, the top bit says that more follow.
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
