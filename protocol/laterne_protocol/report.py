"""Reports: what a board measured in a minute or so, packed for a slow line (protocol/README.md, 6).

A column is the readings of one channel. Its values are scaled integers, the first one whole and each other as
the difference to the one before, as zigzag varints in a byte string: slow quantities cost one byte a reading.
The board packs values as they come (ColumnWriter), so an open report takes no more RAM than it will on the line.

decode() checks the shape of everything; the values themselves are unpacked, and checked, by Report.readings().
"""

import hashlib

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REPORT_BYTES = 960  # a signed report in a message, in a record, in one frame of 1,024
MAX_PAYLOAD_BYTES = MAX_REPORT_BYTES - 86  # COSE_Sign1: header with kid 14, signature 66, the rest 6
MAX_COLUMNS = 64
MAX_CHANNEL = 0xFFFF
MAX_GAPS = 16
DIGEST_BYTES = 16
FIRST_SEQUENCE = 1

# State of the board's clock when it closed the report (design 5).
NEVER_SET, SET, HELD = 0, 1, 2

# Quality of a reading: QARTOD flags. MISSING has no value.
GOOD, NOT_EVALUATED, SUSPECT, FAIL, MISSING = 1, 2, 3, 4, 9
_FLAGS = (NOT_EVALUATED, SUSPECT, FAIL, MISSING)

# Why reports were lost.
BACKLOG_FULL, DAMAGED, NUMBER_SKIPPED = 1, 2, 3
REASONS = {BACKLOG_FULL: "backlog full", DAMAGED: "damaged on flash", NUMBER_SKIPPED: "number never used"}

_MIN_VALUE, _MAX_VALUE = -0x80000000, 0x7FFFFFFF
_MAX_VARINT_BYTES = 5  # a difference of two 32-bit values has 33 bits


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
        elif not _MIN_VALUE <= value <= _MAX_VALUE:
            raise ObjectError("a value beyond 32 bits")
        _put_varint(self.packed, _zigzag(value - self._former))
        self._former = value
        if flag != GOOD:
            if flag not in _FLAGS:
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

    def ages(self) -> "list[int]":
        """Milliseconds from each reading to the closing of the report. Raises ObjectError."""
        if self.differences is None:
            return [self.age_ms - self.step_ms * index for index in range(self.count)]
        ages = [self.age_ms]
        for difference in _varints(self.differences):
            ages.append(ages[-1] - difference)
        if ages[-1] < 0:
            raise ObjectError("a reading after the closing of its report")
        return ages

    def to_value(self) -> "list[object]":
        if self.differences is None:
            return [self.age_ms, self.step_ms, self.count]
        return [self.age_ms, self.differences]


def times_of(taken_ms: "list[int]", closed_ms: int) -> Times:
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

    def __init__(self, channel: int, packed: bytes, quality: "list[list[int]]", times: "Times | None" = None) -> None:
        self.channel = channel
        self.packed = packed
        self.quality = quality
        self.times = times

    def values(self) -> "list[int]":
        """The values, one for each reading (a MISSING one repeats the value before). Raises ObjectError."""
        values = []
        value = 0
        for coded in _varints(self.packed):
            value += (coded >> 1) ^ -(coded & 1)
            if not _MIN_VALUE <= value <= _MAX_VALUE:
                raise ObjectError("a value beyond 32 bits")
            values.append(value)
        return values

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
    gaps: [from, to, reason] of lost reports.
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
        return cbor.encode(content)

    def readings(self) -> "Iterator[tuple[int, int, int | None, int]]":
        """(channel, milliseconds from the reading to the closing, value or None, quality flag) of each reading.

        Raises ObjectError while iterating: a column whose values, times and quality do not fit together.
        """
        for column in self.columns:
            ages = (self.times if column.times is None else column.times).ages()
            values = column.values()
            if len(values) != len(ages):
                raise ObjectError("%d values at %d times" % (len(values), len(ages)))
            flags = bytearray([GOOD] * len(values))
            for first, count, flag in column.quality:
                if first + count > len(values):
                    raise ObjectError("quality for readings that are not there")
                for index in range(first, first + count):
                    flags[index] = flag
            for index in range(len(values)):
                flag = flags[index]
                yield column.channel, ages[index], None if flag == MISSING else values[index], flag


def report_of(payload: bytes) -> Report:
    """The report in a payload whose signature has been verified. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_PAYLOAD_BYTES), "report", (1, 2, 3, 4, 5), (6, 7))
    closing = fields.array(parts[4], "closing", 2, 2)
    times, columns = _columns_of(parts[6]) if 6 in parts else (Times(0), [])
    sequence = fields.integer(parts[2], "sequence", FIRST_SEQUENCE)
    return Report(
        fields.board_id(parts[1]),
        sequence,
        fields.byte_string(parts[3], "predecessor", DIGEST_BYTES),
        fields.integer(closing[0], "boot count", 0, fields.MAX_UINT32),
        fields.integer(closing[1], "closing time"),
        _clock_of(parts[5]),
        times,
        columns,
        _gaps_of(parts[7], sequence) if 7 in parts else [],
    )


def _clock_of(value: object) -> "tuple[int, int | None, int]":
    state, utc, uncertainty = fields.array(value, "clock", 3, 3)
    state = fields.integer(state, "clock state", NEVER_SET, HELD)
    if (utc is None) != (state == NEVER_SET):
        raise ObjectError("a clock has a time when it was set, and only then")
    if utc is not None:
        utc = fields.integer(utc, "UTC", 0, fields.MAX_UTC_MS)
    return (state, utc, fields.integer(uncertainty, "uncertainty", 0, fields.MAX_UINT32))


def _columns_of(value: object) -> "tuple[Times, list[Column]]":
    common, items = fields.array(value, "columns", 2, 2)
    columns = []
    channels = set()
    for item in fields.array(items, "columns", 1, MAX_COLUMNS):
        column = fields.array(item, "column", 2, 4)
        runs = _quality_of(column[2]) if len(column) > 2 else []
        if len(column) == 3 and not runs:
            raise ObjectError("an empty quality is left out")
        channel = fields.integer(column[0], "channel", 0, MAX_CHANNEL)
        if channel in channels:  # a reading would stand there twice
            raise ObjectError("channel %d has two columns" % channel)
        channels.add(channel)
        columns.append(
            Column(
                channel,
                fields.byte_string(column[1], "values", 0, MAX_PAYLOAD_BYTES),
                runs,
                _times_of(column[3]) if len(column) > 3 else None,
            )
        )
    return _times_of(common), columns


def _times_of(value: object) -> Times:
    parts = fields.array(value, "times", 2, 3)
    age = fields.integer(parts[0], "age", 0, 0xFFFFFFFF)
    if len(parts) == 2:
        return Times(age, differences=fields.byte_string(parts[1], "time differences", 0, MAX_PAYLOAD_BYTES))
    step = fields.integer(parts[1], "step", 0, 0xFFFFFFFF)
    # A reading takes a byte at least: this bounds what ages() builds.
    count = fields.integer(parts[2], "count", 0, MAX_PAYLOAD_BYTES)
    if count and step * (count - 1) > age:
        raise ObjectError("a reading after the closing of its report")
    return Times(age, step, count)


def _quality_of(value: object) -> "list[list[int]]":
    runs = []
    free = 0  # runs come in order and do not overlap
    for item in fields.array(value, "quality", 0, MAX_PAYLOAD_BYTES):
        run = fields.array(item, "quality run", 3, 3)
        first = fields.integer(run[0], "first reading", free, MAX_PAYLOAD_BYTES)
        count = fields.integer(run[1], "readings of a quality", 1, MAX_PAYLOAD_BYTES)
        flag = fields.integer(run[2], "quality", NOT_EVALUATED, MISSING)
        if flag not in _FLAGS:
            raise ObjectError("quality %d is not one of ours" % flag)
        free = first + count
        runs.append([first, count, flag])
    return runs


def _gaps_of(value: object, sequence: int) -> "list[list[int]]":
    gaps = []
    free = FIRST_SEQUENCE  # gaps come in order, do not overlap, and lie before the report that states them
    for item in fields.array(value, "gaps", 1, MAX_GAPS):
        gap = fields.array(item, "gap", 3, 3)
        first = fields.integer(gap[0], "first lost report", free, sequence - 1)
        last = fields.integer(gap[1], "last lost report", first, sequence - 1)
        gaps.append([first, last, fields.integer(gap[2], "reason", 1, 255)])
        free = last + 1
    return gaps


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _put_varint(out: bytearray, value: int) -> None:
    # LEB128: seven bits a byte, the lowest first, the top bit says that more follow.
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _varints(data: bytes) -> "Iterator[int]":
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift >= 7 * _MAX_VARINT_BYTES:
                raise ObjectError("a number longer than 33 bits can be")
            continue
        if byte == 0 and shift:
            raise ObjectError("a number longer than it needs to be")
        yield value
        value = shift = 0
    if shift:
        raise ObjectError("the end of a number is missing")
