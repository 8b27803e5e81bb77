"""Columns, times and whole reports: what was measured comes back, what could not have been measured is refused."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.properties import PROPERTY

from laterne_protocol import report, report_reading
from laterne_protocol.errors import ObjectError
from laterne_protocol.report import GOOD, MISSING, SUSPECT, Column, ColumnWriter, Report, Times, times_of

LOWEST, HIGHEST = -(2**31), 2**31 - 1
VALUES = st.one_of(st.integers(LOWEST, HIGHEST), st.sampled_from([LOWEST, HIGHEST, 0, -1]))
READINGS = st.lists(
    st.one_of(
        st.tuples(VALUES, st.sampled_from([GOOD, report.NOT_EVALUATED, SUSPECT, report.FAIL])),
        st.just((None, MISSING)),
    ),
    max_size=100,
)


def written(readings: list[tuple[int | None, int]], channel: int = 1, times: Times | None = None) -> Column:
    writer = ColumnWriter(channel)
    for value, flag in readings:
        writer.add(value, flag)
    assert writer.count == len(readings)
    return Column(channel, bytes(writer.packed), writer.quality, times)


def a_report(times: Times, columns: list[Column], closed_ms: int = 60_000) -> Report:
    return Report("LE-0007", 7, bytes(16), 1, closed_ms, (report.NEVER_SET, None, 0), times, columns, [])


@PROPERTY
@given(READINGS)
def test_what_a_column_was_given_comes_back(readings: list[tuple[int | None, int]]) -> None:
    made = a_report(Times(0, 0, len(readings)), [written(readings)])
    found = [(value, flag) for _, _, value, flag in report_reading.readings_of(made)]
    assert found == readings


@PROPERTY
@given(READINGS.filter(lambda readings: len(readings) < 60), st.integers(0, 400))
def test_a_report_comes_back_from_its_payload(readings: list[tuple[int | None, int]], step: int) -> None:
    times = Times(60_000, step, len(readings))
    payload = a_report(times, [written(readings), written(readings, 2, times)]).to_payload()
    found = report_reading.report_of(payload)
    assert found.to_payload() == payload
    ages = [60_000 - step * index for index in range(len(readings))]
    expected = [(age, value, flag) for age, (value, flag) in zip(ages, readings, strict=True)]
    assert list(report_reading.readings_of(found)) == [
        (channel, *reading) for channel in (1, 2) for reading in expected
    ]


@PROPERTY
@given(st.lists(st.integers(0, 2**32 - 1), max_size=80).map(sorted), st.integers(0, 10_000))
def test_irregular_times_come_back_exactly_or_within_the_tolerance(taken: list[int], rest: int) -> None:
    closed = (taken[-1] if taken else 0) + rest
    times = times_of(taken, closed)
    ages = report_reading.ages_of(times)
    step = times.step_ms
    tolerance = max(20, step // 50) if times.differences is None else 0
    assert len(ages) == len(taken)
    assert all(abs(closed - age - at) <= tolerance for age, at in zip(ages, taken, strict=True))
    assert all(age >= 0 for age in ages)


@PROPERTY
@given(st.integers(1, 400), st.integers(0, 60_000), st.integers(0, 2**32))
def test_a_jittered_grid_is_written_as_a_grid(count: int, step: int, seed: int) -> None:
    tolerance = max(20, step // 50)
    draw = random.Random(seed)
    jitter = [draw.randint(0, tolerance // 4) for _ in range(count)]
    taken = sorted(1_000 + index * step + jitter[index] for index in range(count))
    closed = taken[-1] + tolerance  # the grid may lie behind the readings, but never behind the closing
    times = times_of(taken, closed)
    assert times.differences is None
    late = [abs(closed - age - at) for age, at in zip(report_reading.ages_of(times), taken, strict=True)]
    assert max(late) <= tolerance


@pytest.mark.parametrize(("taken", "closed"), [([2, 1], 10), ([0, 500, 400, 900], 1000), ([5], 4), ([1, 11], 10)])
def test_times_out_of_order_or_after_the_closing_are_refused_at_the_board(taken: list[int], closed: int) -> None:
    with pytest.raises(ObjectError):
        times_of(taken, closed)


@pytest.mark.parametrize("value", [HIGHEST + 1, LOWEST - 1])
def test_a_value_beyond_32_bits_is_refused_at_the_board(value: int) -> None:
    with pytest.raises(ObjectError):
        ColumnWriter(1).add(value)


def test_a_quality_that_no_receiver_takes_is_refused_at_the_board() -> None:
    with pytest.raises(ObjectError):
        ColumnWriter(1).add(5, 7)


def test_runs_of_one_quality_are_one_run() -> None:
    column = written([(1, GOOD), (None, MISSING), (None, MISSING), (2, GOOD), (2, SUSPECT)])
    assert column.quality == [[1, 2, MISSING], [4, 1, SUSPECT]]


def test_a_slow_quantity_costs_a_byte_a_reading() -> None:
    slow: list[tuple[int | None, int]] = [(2150 + index % 60, GOOD) for index in range(60)]
    assert len(written(slow).packed) == 61  # two bytes for the first, which is whole


def test_readings_fit_the_longest_report_and_no_more_are_unpacked_than_it_has_bytes() -> None:
    greedy = a_report(Times(0, 0, report.MAX_PAYLOAD_BYTES), [Column(number, b"\0", []) for number in range(64)])
    found = report_reading.report_of(greedy.to_payload())
    with pytest.raises(ObjectError, match="1 values at 874 times"):
        list(report_reading.readings_of(found))


@PROPERTY
@given(st.binary(max_size=40))
def test_any_bytes_in_a_column_give_values_or_an_object_error(packed: bytes) -> None:
    with contextlib.suppress(ObjectError):
        assert len(report_reading.values_of(Column(1, packed, []))) <= len(packed)
    with contextlib.suppress(ObjectError):
        assert len(report_reading.ages_of(Times(2**40, differences=packed))) <= len(packed) + 1
