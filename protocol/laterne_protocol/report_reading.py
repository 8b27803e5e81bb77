"""Reading a report: strict about its shape, its bounds, and how values, times and quality fit together.

report_of() checks the shape of everything; the values themselves are unpacked, and checked, by readings_of(). Gateway,
platform and tests read reports; a running board does not load this (protocol/README.md, 6).
"""

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError
from laterne_protocol.report import (
    BACKLOG_FULL,
    DAMAGED,
    DIGEST_BYTES,
    DRIFT_PPM,
    FIRST_SEQUENCE,
    FLAGS,
    GOOD,
    HELD,
    MAX_CHANNEL,
    MAX_COLUMNS,
    MAX_GAPS,
    MAX_PAYLOAD_BYTES,
    MAX_VALUE,
    MIN_VALUE,
    MISSING,
    NEVER_SET,
    NOT_EVALUATED,
    NUMBER_SKIPPED,
    OVERTAKEN,
    RELEASE_BYTES,
    Column,
    Report,
    Times,
)

REASONS = {
    BACKLOG_FULL: "backlog full",
    DAMAGED: "damaged on flash",
    NUMBER_SKIPPED: "number never used",
    OVERTAKEN: "the gateway had a later report than the board",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_VARINT_BYTES = 5  # a difference of two 32-bit values has 33 bits


def report_of(payload: bytes) -> Report:
    """The report in a payload whose signature has been verified. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_PAYLOAD_BYTES), "report", (1, 2, 3, 4, 5), (6, 7, 8, 9))
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
        fields.integer(parts[8], "cut", 1, fields.MAX_UINT32) if 8 in parts else 0,
        _release_of(parts[9]) if 9 in parts else None,
    )


def _release_of(value: object) -> "tuple[bytes, bool]":
    digest, tried = fields.array(value, "release", 2, 2)
    if not isinstance(tried, bool):
        raise ObjectError("a release is tried or it is not")
    return fields.byte_string(digest, "release", RELEASE_BYTES), tried


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
        if flag not in FLAGS:
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


def utc_at(since_boot_ms: int, known: "tuple[int, int, int]") -> "tuple[int, int]":
    """(UTC, uncertainty) of a moment of a boot, from another moment of the same boot; milliseconds (6.1).

    known: (since that boot, UTC, uncertainty). UTC may come out below zero: what a board claims is not bounded here.
    """
    apart_ms = known[0] - since_boot_ms
    return known[1] - apart_ms, known[2] - (-abs(apart_ms) * DRIFT_PPM // 1000000)


def readings_of(found: Report) -> "Iterator[tuple[int, int, int | None, int]]":
    """(channel, milliseconds from the reading to the closing, value or None, quality flag) of each reading.

    Raises ObjectError while iterating: a column whose values, times and quality do not fit together.
    """
    for column in found.columns:
        ages = ages_of(found.times if column.times is None else column.times)
        values = values_of(column)
        if len(values) != len(ages):
            raise ObjectError("%d values at %d times" % (len(values), len(ages)))
        flags = bytearray([GOOD] * len(values))
        for first, count, flag in column.quality:
            if first + count > len(values):
                raise ObjectError("quality for readings that are not there")
            for index in range(first, first + count):
                if flag == MISSING and values[index] != (values[index - 1] if index else 0):
                    raise ObjectError("a missing reading repeats the value before it")
                flags[index] = flag
        for index in range(len(values)):
            flag = flags[index]
            yield column.channel, ages[index], None if flag == MISSING else values[index], flag


def ages_of(times: Times) -> "list[int]":
    """Milliseconds from each reading to the closing of the report. Raises ObjectError."""
    if times.differences is None:
        return [times.age_ms - times.step_ms * index for index in range(times.count)]
    ages = [times.age_ms]
    for difference in _varints(times.differences):
        ages.append(ages[-1] - difference)
    if ages[-1] < 0:
        raise ObjectError("a reading after the closing of its report")
    return ages


def values_of(column: Column) -> "list[int]":
    """The values, one for each reading (a MISSING one repeats the value before). Raises ObjectError."""
    values = []
    value = 0
    for coded in _varints(column.packed):
        value += (coded >> 1) ^ -(coded & 1)
        if not MIN_VALUE <= value <= MAX_VALUE:
            raise ObjectError("a value beyond 32 bits")
        values.append(value)
    return values


def _varints(data: "bytes | bytearray") -> "Iterator[int]":
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
