"""How often an alarm is logged: a log on an SD card is worn by what strangers can bring about."""

import logging

import pytest

from laterne_gateway import health


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock, caplog: pytest.LogCaptureFixture) -> health.Health:
    caplog.set_level(logging.INFO)
    return health.Health(clock)


def test_an_alarm_whose_sentence_changes_each_time_is_logged_a_few_times_a_minute_and_the_last_one_stands(
    kept: health.Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for request in range(1000):
        kept.alarm("route city", "refused", f"the platform says no, request {request}")
        clock.now_s += 0.05
    assert len(caplog.records) == health.CHANGES_SAID
    clock.now_s += health.SAID_AGAIN_S
    kept.alarm("route city", "refused", "the platform says no, request 1000")
    assert caplog.records[-1].getMessage() == "route city: the platform says no, request 1000"


def test_an_alarm_that_comes_and_goes_is_logged_once_a_minute(
    kept: health.Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        kept.alarm("line 1", "port", "it is away")
        kept.clear("line 1", "port", "it is back")
        clock.now_s += 0.1
    assert [record.getMessage() for record in caplog.records] == ["line 1: it is away", "line 1: it is back"]
    clock.now_s += health.SAID_AGAIN_S
    kept.alarm("line 1", "port", "it is away")
    assert len(caplog.records) == 3


def test_another_alarm_of_the_same_part_is_logged_at_once(
    kept: health.Health, caplog: pytest.LogCaptureFixture
) -> None:
    kept.alarm("disk", "full", "it is full")
    kept.alarm("disk", "full", "it is read-only")
    kept.alarm("disk", "slow", "it is slow")
    assert len(caplog.records) == 3


def test_what_is_said_some_times_a_minute_is_then_said_with_the_count_of_those_left_out(
    kept: health.Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    said = [kept.say("LE-1", "session", "LE-1: session opened", times=3) for _ in range(5)]
    assert said == [True, True, True, False, False]
    clock.now_s += health.SAID_AGAIN_S
    assert kept.say("LE-1", "session", "LE-1: session opened", times=3)
    assert kept.say("LE-1", "session", "LE-1: session opened", times=3)
    assert [record.getMessage() for record in caplog.records] == [
        *["LE-1: session opened"] * 3,
        "LE-1: session opened (and 2 times since this was last said)",
        "LE-1: session opened",
    ]
