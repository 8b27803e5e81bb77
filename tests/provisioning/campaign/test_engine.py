"""The machine: what leads from state to state, what halts it, and what it orders."""

import pytest
from tests.provisioning.campaign.city import (
    BEGIN,
    NEW,
    OLD,
    TRIAL_S,
    City,
)
from tests.provisioning.campaign.machine import NONCE, brought_to, done, heard, running, told

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.plan import Gates
from laterne_provisioning.campaign.rows import Told
from laterne_provisioning.campaign.states import (
    ABORTED,
    ARMED,
    AT_STAKE,
    BOARD_NEXT,
    BOARD_STATES,
    CAMPAIGN_NEXT,
    CAMPAIGN_STATES,
    COMPLETED,
    CONFIRMED,
    FAILED,
    HALTED,
    OVER,
    PAUSED,
    QUEUED,
    RUNNING,
    SENDING,
    STAGED,
    TRIAL,
    WAITING_WINDOW,
)


@pytest.mark.parametrize("state", [SENDING, STAGED, ARMED, TRIAL, CONFIRMED])
def test_a_board_goes_through_the_states_one_after_the_other(state: str) -> None:
    engine = running(1)
    assert engine.rows[brought_to(state, engine)].state == state


def test_the_tables_name_known_states_only_and_every_state_but_the_ends_has_a_way_out() -> None:
    for (former, _), later in CAMPAIGN_NEXT.items():
        assert {former, later} <= set(CAMPAIGN_STATES)
        assert former not in OVER
    for (former, _), later in BOARD_NEXT.items():
        assert {former, later} <= set(BOARD_STATES)
    for state in (QUEUED, SENDING, STAGED, WAITING_WINDOW, ARMED, TRIAL, CONFIRMED):
        assert (state, "too long") in BOARD_NEXT, "a timeout in every state"


# Success ------------------------------------------------------------------------------------------------------------


def test_what_a_gateway_tells_never_confirms_a_board() -> None:
    engine = running(1)
    board = brought_to(TRIAL, engine)
    for number in range(100):
        engine.hinted(board, told("idle", NEW), BEGIN + number)
        engine.tick(BEGIN + number)
    assert engine.rows[board].state == TRIAL


def test_a_board_that_has_not_signed_that_it_keeps_the_release_is_not_confirmed() -> None:
    engine = running(1)
    board = brought_to(TRIAL, engine)
    for number in range(7, 7 + 3):
        engine.heard(board, heard(number, 2), BEGIN)
    assert engine.rows[board].state == TRIAL
    engine.heard(board, heard(10, 2, (NEW[:16], False)), BEGIN)
    assert engine.rows[board].state == CONFIRMED, "the fifth report, and it says so"


def test_one_start_that_lasts_longer_than_a_trial_may_is_as_good_as_the_boards_word() -> None:
    engine = running(1)
    board = brought_to(TRIAL, engine)
    for number in range(7, 7 + 6):
        engine.heard(board, Heard(number, 2, (TRIAL_S - 1) * 1000, None, frozenset({1, 2}), 12, 0), BEGIN)
    assert engine.rows[board].state == TRIAL
    engine.heard(board, Heard(13, 2, (TRIAL_S + 61) * 1000, None, frozenset({1, 2}), 12, 0), BEGIN)
    assert engine.rows[board].state == CONFIRMED


def test_reports_from_before_the_trial_that_come_late_say_nothing_about_it() -> None:
    engine = running(1)
    board = brought_to(ARMED, engine)
    engine.answered(board, order.ARM, NONCE, done(board, sequence=9), BEGIN)
    # It had started anew (2) just before it was armed: those reports lay on it until now.
    engine.heard(board, heard(8, 2, (OLD[:16], False)), BEGIN)
    engine.heard(board, heard(9, 2), BEGIN)
    assert engine.rows[board].state == TRIAL
    engine.heard(board, heard(10, 3, (OLD[:16], False)), BEGIN)
    assert engine.rows[board].why == "rolled_back"


def test_silence_is_never_success() -> None:
    for state in (SENDING, STAGED, ARMED, TRIAL, CONFIRMED):
        engine = running(1)
        board = brought_to(state, engine)
        now = BEGIN
        while engine.rows[board].state != FAILED:
            now += 600
            engine.tick(now)
            assert now < BEGIN + 30 * 86400, f"{state} never ends"
        assert engine.course.state == HALTED
        assert engine.rows[board].why in ("unreachable", "timeout"), state


def test_a_board_is_armed_only_when_it_has_a_past_to_be_compared_with() -> None:
    engine = running(1)
    (board,) = engine.plan.canaries
    engine.tick(BEGIN)
    engine.hinted(board, told(staged=NEW), BEGIN)
    for number in range(1, engine.plan.gates.reports):
        engine.heard(board, heard(number), BEGIN)
        engine.tick(BEGIN)
    assert engine.rows[board].state == STAGED
    engine.heard(board, heard(9), BEGIN)
    engine.tick(BEGIN)
    assert engine.rows[board].state == ARMED


# Halting --------------------------------------------------------------------------------------------------------------


def test_a_halted_campaign_arms_nobody_and_orders_back_who_is_in_trial() -> None:
    engine = running(60, gates=Gates())
    city = City(engine, None, 1)
    while engine.course.wave < 3:
        city.step()
    while not engine.counts()[TRIAL] or not engine.counts()[STAGED]:
        city.step()
    failing = [board for board, row in engine.rows.items() if row.state in (CONFIRMED, TRIAL)][:3]
    for board in failing:
        engine.hinted(board, told(result=(3, NEW)), city.now)
    assert engine.course.state == HALTED
    engine.tick(city.now)
    wanted = list(engine.wanted(city.now))
    assert {one.board for one in wanted} == {b for b, row in engine.rows.items() if row.state in AT_STAKE}
    assert {one.action for one in wanted} <= {order.ABANDON}


def test_a_person_who_resumes_a_halted_campaign_pardons_what_has_failed_and_nothing_more() -> None:
    engine = running(60)
    board = brought_to(TRIAL, engine)
    engine.hinted(board, told(result=(3, NEW)), BEGIN)
    assert engine.course.state == HALTED
    engine.resume(BEGIN)
    assert engine.course.state == RUNNING
    assert engine.rows[board].state == FAILED, "it is not tried there again"
    engine.hinted(engine.plan.canaries[1], told(), BEGIN)
    (other,) = (one for one in engine.wanted(BEGIN) if one.board == engine.plan.canaries[1])
    engine.ordered(other, "")
    refused = done(other.board, reason=receipt.BELOW_FLOOR)
    engine.answered(other.board, order.STAGE, NONCE, refused, BEGIN)
    assert engine.course.state == HALTED, "one more"


def test_a_release_that_boards_refuse_halts_though_nobody_was_hurt() -> None:
    engine = running(20)
    board = brought_to(SENDING, engine)
    engine.hinted(board, told(), BEGIN)
    for wanted in list(engine.wanted(BEGIN)):
        engine.ordered(wanted, "")
    engine.answered(board, order.STAGE, NONCE, done(board, reason=receipt.BELOW_FLOOR), BEGIN)
    assert engine.rows[board].why == "verify"
    assert engine.course.state == HALTED


def test_an_aborted_campaign_takes_back_what_is_staged_and_ends() -> None:
    engine = running(60)
    city = City(engine, None, 1)
    while engine.course.wave < 2 or not engine.counts()[TRIAL]:
        city.step()
    engine.abort(city.now)
    city.run(hours=3)
    assert engine.course.state == ABORTED
    assert engine.is_over()
    assert all(board.trial_since is None for board in city.boards.values())
    assert {row.state for row in engine.rows.values()} <= {"SKIPPED", CONFIRMED, FAILED}


def test_while_it_is_paused_no_wave_begins_and_no_board_is_armed() -> None:
    engine = running(60)
    city = City(engine, None, 1)
    while not engine.counts()[STAGED]:
        city.step()
    engine.pause(city.now)
    armed = {board for board, row in engine.rows.items() if row.stake}
    queued = engine.counts()[QUEUED]
    for _ in range(200):
        city.step()
    assert engine.course.state == PAUSED
    assert {board for board, row in engine.rows.items() if row.stake} == armed
    assert engine.counts()[QUEUED] == queued
    engine.watched_again(city.now)
    engine.resume(city.now)
    city.run()
    assert engine.course.state == COMPLETED


# Orders ---------------------------------------------------------------------------------------------------------------


def test_boards_are_armed_within_the_window_only_and_fetch_at_any_time() -> None:
    window = "Th-Fr 02:00-04:00 Europe/Berlin"  # BEGIN is a Wednesday
    engine = running(8, window=window)
    city = City(engine, None, 1)
    while engine.course.state == RUNNING:
        before = {board for board, row in engine.rows.items() if row.arms}
        city.step()
        after = {board for board, row in engine.rows.items() if row.arms}
        if after - before:
            assert engine.plan.windows[0].closes(city.now) is not None
        for wanted in engine.wanted(city.now):
            if wanted.action == order.ARM:
                assert wanted.not_after <= (engine.plan.windows[0].closes(city.now) or 0)
    assert engine.course.state == COMPLETED


def test_an_order_with_an_old_nonce_is_given_again_with_the_new_one() -> None:
    engine = running(1)
    board = brought_to(ARMED, engine)
    engine.answered(board, order.ARM, NONCE, done(board, reason=receipt.OLD_NONCE), BEGIN)
    assert engine.rows[board].state == STAGED
    engine.hinted(board, Told("staged", OLD, b"another.", NEW, None), BEGIN)
    engine.tick(BEGIN + 1)
    (wanted,) = engine.wanted(BEGIN + 1)
    assert (wanted.action, wanted.nonce) == (order.ARM, b"another.")


def test_a_board_that_fetches_is_not_ordered_again_unless_it_has_started_anew() -> None:
    engine = running(1)
    board = brought_to(SENDING, engine)
    engine.hinted(board, told(), BEGIN)
    for wanted in list(engine.wanted(BEGIN)):
        engine.ordered(wanted, "")
    engine.answered(board, order.STAGE, NONCE, done(board), BEGIN)
    engine.hinted(board, Told("receiving", OLD, b"the next", "", None), BEGIN)
    assert list(engine.wanted(BEGIN)) == []
    engine.hinted(board, Told("idle", OLD, b"a start.", "", None), BEGIN)
    assert [(one.action, one.nonce) for one in engine.wanted(BEGIN)] == [(order.STAGE, b"a start.")]


def test_a_board_that_had_got_the_order_that_was_thought_lost_is_found_in_its_trial() -> None:
    engine = running(1)
    board = brought_to(ARMED, engine)
    engine.tick(BEGIN + engine.plan.pace.armed_for + 1)  # also arms it once more
    engine.answered(board, order.ARM, NONCE, done(board, reason=receipt.OLD_NONCE), BEGIN)
    if engine.rows[board].state == ARMED:
        for wanted in list(engine.wanted(BEGIN + engine.plan.pace.armed_for + 1)):
            engine.ordered(wanted, "")
        engine.answered(board, order.ARM, NONCE, done(board, reason=receipt.OLD_NONCE), BEGIN)
    assert engine.rows[board].state == STAGED
    engine.heard(board, heard(6, 2, (NEW[:16], True)), BEGIN)
    assert engine.rows[board].state == TRIAL
    engine.heard(board, heard(7, 2, (NEW[:16], False)), BEGIN)
    for number in range(8, 12):
        engine.heard(board, heard(number, 2), BEGIN)
    assert engine.rows[board].state == CONFIRMED


def test_after_a_restart_an_order_that_nobody_has_answered_goes_out_again() -> None:
    engine = running(1)
    brought_to(ARMED, engine)
    assert list(engine.wanted(BEGIN)) == []
    engine.watched_again(BEGIN)
    assert [wanted.action for wanted in engine.wanted(BEGIN)] == [order.ARM]


def test_a_board_that_never_begins_its_trial_is_given_up() -> None:
    engine = running(1)
    board = brought_to(ARMED, engine)
    now = BEGIN
    while engine.rows[board].state != FAILED:
        now += 60
        engine.hinted(board, told("staged", staged=NEW), now)
        engine.heard(board, heard(7 + (now - BEGIN) // 60), now)
        engine.tick(now)
        for wanted in list(engine.wanted(now)):
            engine.ordered(wanted, "")
    assert engine.rows[board].arms == engine.plan.pace.arm_tries
    assert engine.rows[board].why == "timeout"
