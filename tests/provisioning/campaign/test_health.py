"""The machine: what it hears of a board's health, and what it is compared with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.provisioning.campaign.city import (
    BEGIN,
    NEW,
)
from tests.provisioning.campaign.machine import NONCE, brought_to, done, heard, running, told

from laterne_protocol import order
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.rows import row_of
from laterne_provisioning.campaign.states import (
    ARMED,
    CONFIRMED,
    FAILED,
    HALTED,
    STAGED,
    TRIAL,
)


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        (lambda number: Heard(number, 2, 1, None, frozenset({1}), 12, 0), "1 of 5 reports, in 5 of 5 before"),
        (lambda number: Heard(number, 2, 1, None, frozenset({1, 2}), 12, 6), "are not good"),
        (lambda number: Heard(number, number, 1, None, frozenset({1, 2}), 12, 0), "nobody asked for"),
    ],
    ids=["a sensor is silent", "readings are bad", "it starts again and again"],
)
def test_a_board_that_does_worse_than_before_fails_and_halts_the_campaign(
    worse: Callable[[int], Heard], said: str
) -> None:
    engine = running(20)
    board = brought_to(TRIAL, engine)
    for number in range(7, 20):
        engine.heard(board, worse(number), BEGIN)
    assert engine.rows[board].why == "health"
    assert said in engine.rows[board].said
    assert engine.course.state == HALTED


def test_a_board_is_compared_with_the_last_seven_days_and_with_nothing_older() -> None:
    """A board of whose reports half had a second channel a week ago, and all of the last days none."""
    engine, day = running(1), 86400
    board = engine.plan.canaries[0]
    for ago in range(14):
        good = frozenset({1, 2}) if ago > 6 else frozenset({1})
        for number in range(10):
            when = BEGIN - ago * day
            engine.remembered(board, Heard(10 * (14 - ago) + number, 1, 1, None, good, 12, 0, when), BEGIN)
    row = engine.rows[board]
    assert (len(row.before.days), row.before.reports) == (7, 70)
    assert row.before.total().seen == {1: 70}
    engine.remembered(board, Heard(1, 1, 1, None, frozenset({1, 2}), 12, 0, BEGIN + day), BEGIN)
    engine.remembered(board, Heard(2, 1, 1, None, frozenset({1, 2}), 12, 0, None), BEGIN)
    assert row.before.reports == 70, "of the future, or of nobody knows when"
    assert row_of(row.document()) == row


def test_with_a_past_from_files_a_board_is_armed_as_soon_as_it_is_heard() -> None:
    engine = running(1)
    board = engine.plan.canaries[0]
    for number in range(engine.plan.gates.reports):
        engine.remembered(board, Heard(number, 1, 1, None, frozenset({1, 2}), 12, 0, BEGIN - 60), BEGIN)
    engine.tick(BEGIN)
    engine.hinted(board, told(staged=NEW), BEGIN)
    engine.tick(BEGIN)
    assert engine.rows[board].state == STAGED, "nobody knows in which start it is"
    engine.heard(board, heard(99), BEGIN)
    engine.tick(BEGIN)
    assert engine.rows[board].state == ARMED


@pytest.mark.parametrize(("a_day", "state"), [(0, FAILED), (6, CONFIRMED)])
def test_starts_that_were_usual_before_are_no_fault_of_the_release(a_day: int, state: str) -> None:
    engine = running(1, soak=2 * 86400)
    board = engine.plan.canaries[0]
    for hour in range(7 * 24):
        boot = 1 + a_day * hour // 24
        engine.remembered(
            board, Heard(hour, boot, 1, None, frozenset({1}), 12, 0, BEGIN - 7 * 86400 + 3600 * hour + 1), BEGIN
        )
    last = 1 + 7 * a_day
    engine.heard(board, Heard(1000, last, 1, None, frozenset({1}), 12, 0), BEGIN)
    engine.tick(BEGIN)
    engine.hinted(board, told(staged=NEW), BEGIN)
    engine.tick(BEGIN)
    engine.answered(board, order.ARM, NONCE, done(board, 1000), BEGIN)
    engine.heard(board, Heard(1001, last + 1, 1, (NEW[:16], False), frozenset({1}), 12, 0), BEGIN)
    for hour in range(24):
        boot = last + 1 + hour // 4  # six starts in a day
        engine.heard(board, Heard(1002 + hour, boot, 1, None, frozenset({1}), 12, 0), BEGIN + 3600 * hour)
    assert engine.rows[board].state == state, engine.rows[board].said


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        ((1000, 10), (700, 120), FAILED),
        ((1000, 10), (700, 20), CONFIRMED),
        ((1000, 300), (700, 120), CONFIRMED),
        ((1000, 10), (450, 40), CONFIRMED),
        ((50, 0), (700, 120), CONFIRMED),
        ((1000, 10), (120, 60), FAILED),
    ],
    ids=[
        "worse",
        "as before",
        "it was bad before",
        "too few since",
        "too few before",
        "its gateway began to count anew",
    ],
)
def test_a_line_on_which_more_is_missed_than_before_fails_its_board(
    before: tuple[int, int], now: tuple[int, int], state: str
) -> None:
    engine = running(20)
    board = engine.plan.canaries[0]
    engine.tick(BEGIN)
    for number in range(engine.plan.gates.reports):
        engine.heard(board, heard(number + 1), BEGIN)
    engine.hinted(board, replace(told(staged=NEW), link=before), BEGIN)
    engine.tick(BEGIN)
    engine.answered(board, order.ARM, NONCE, done(board), BEGIN)
    engine.heard(board, heard(6, 2, (NEW[:16], True)), BEGIN)
    engine.hinted(board, replace(told("trial", NEW), link=(400, 20)), BEGIN)  # what its restart has cost is in these
    engine.heard(board, heard(7, 2, (NEW[:16], False)), BEGIN)
    for number in range(8, 14):
        engine.heard(board, heard(number, 2), BEGIN)
    engine.hinted(board, replace(told("idle", NEW), link=now), BEGIN)
    row = engine.rows[board]
    assert row.state == state, row.said
    if state == FAILED:
        assert "of its gateway's questions" in row.said
        assert engine.course.state == HALTED
    assert row_of(row.document()) == row


def test_a_sensor_that_was_silent_before_is_no_fault_of_the_release() -> None:
    engine = running(1)
    board = brought_to(CONFIRMED, engine)
    for number in range(20, 60):
        engine.heard(board, heard(number, 2), BEGIN + 60 * number)
    assert engine.rows[board].state == CONFIRMED
    assert engine.rows[board].soaked
