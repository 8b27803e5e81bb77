"""The machine: whatever happens in whatever order, what must never happen does not."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.provisioning.campaign.city import (
    BEGIN,
    CRASH,
    LINK_KILLER,
    NEW,
    OLD,
    SILENT_SENSOR,
    STEP_S,
    TRIAL_S,
    Bad,
    City,
    plan,
)

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.plan import Gates, plan_of
from laterne_provisioning.campaign.rows import Told, row_of
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

NONCE = bytes(8)


def running(boards: int = 12, **more: object) -> Engine:
    engine = Engine(plan(boards, **more))  # type: ignore[arg-type]
    engine.approve(BEGIN)
    engine.start(BEGIN)
    return engine


def heard(sequence: int, boot: int = 1, release: tuple[str, bool] | None = None, **more: object) -> Heard:
    return Heard(sequence, boot, 60_000 * sequence, release, frozenset({1, 2}), 12, 0)


def told(phase: str = "idle", running: str = OLD, staged: str = "", result: tuple[int, str] | None = None) -> Told:
    return Told(phase, running, NONCE, staged, result)


def done(board: str, sequence: int = 5, reason: int | None = None) -> receipt.Receipt:
    return receipt.Receipt(board, bytes(16), 0 if reason is None else 1, reason, sequence, None)


def brought_to(state: str, engine: Engine) -> str:
    """A canary in this state, and all that led there."""
    board = engine.plan.canaries[0]
    engine.tick(BEGIN)
    for number in range(engine.plan.gates.reports):
        engine.heard(board, heard(number + 1), BEGIN)
    if state == SENDING:
        return board
    engine.hinted(board, told(staged=NEW), BEGIN)
    if state == STAGED:
        return board
    engine.tick(BEGIN)
    for wanted in list(engine.wanted(BEGIN)):
        engine.ordered(wanted, "")
    if state == ARMED:
        return board
    engine.answered(board, order.ARM, NONCE, done(board), BEGIN)
    engine.heard(board, heard(6, 2, (NEW[:16], True)), BEGIN)
    if state == TRIAL:
        return board
    engine.heard(board, heard(7, 2, (NEW[:16], False)), BEGIN)
    for number in range(8, 12):
        engine.heard(board, heard(number, 2), BEGIN)
    return board


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


# Health -------------------------------------------------------------------------------------------------------------


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


# Anything at all ------------------------------------------------------------------------------------------------------

DIGESTS = st.sampled_from([OLD, NEW, ""])
NONCES = st.sampled_from([bytes(8), b"12345678"])
EVENTS = st.one_of(
    st.tuples(
        st.just("heard"),
        st.builds(
            Heard,
            st.integers(1, 30),
            st.integers(1, 6),
            st.integers(0, 10**6),
            st.none() | st.tuples(st.sampled_from([OLD[:16], NEW[:16]]), st.booleans()),
            st.frozensets(st.integers(1, 3)),
            st.just(12),
            st.integers(0, 12),
        ),
    ),
    st.tuples(
        st.just("hinted"),
        st.builds(
            Told,
            st.sampled_from(["idle", "receiving", "staged", "trial", "failed", "rescue"]),
            DIGESTS,
            NONCES,
            DIGESTS,
            st.none() | st.tuples(st.integers(1, 5), DIGESTS),
        ),
    ),
    st.tuples(
        st.just("answered"),
        st.tuples(st.integers(4, 6), NONCES, st.none() | st.integers(1, 12), st.integers(0, 30)),
    ),
    st.tuples(st.just("time"), st.sampled_from([1, 60, 900, 7200, 86400, 9 * 86400])),
    st.tuples(st.just("send"), st.none()),
    st.tuples(st.sampled_from(["pause", "resume", "abort", "reload"]), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), EVENTS), max_size=60), st.booleans())
def test_whatever_happens_the_machine_keeps_its_promises(
    story: list[tuple[int, tuple[str, object]]], day: bool
) -> None:
    engine = running(6, window="We 00:00-23:59" if day else None)
    signed: dict[str, set[tuple[str, bool] | str]] = {}
    now = BEGIN
    for place, (what, about) in story:
        board = sorted(engine.targets)[place]
        if what == "heard":
            assert isinstance(about, Heard)
            engine.heard(board, about, now)
            note(signed, board, about)
        elif what == "hinted":
            engine.hinted(board, about, now)  # type: ignore[arg-type]
        elif what == "answered":
            assert isinstance(about, tuple)
            engine.answered(board, about[0], about[1], done(board, about[3], about[2]), now)
        elif what == "time":
            now += about  # type: ignore[operator]
            engine.tick(now)
        elif what == "send":
            for wanted in list(engine.wanted(now)):
                assert (wanted.action == order.ABANDON) == (engine.course.state in (HALTED, ABORTED))
                assert wanted.action != order.ARM or now <= wanted.not_after <= now + engine.plan.pace.armed_for
                engine.ordered(wanted, "")
        elif what == "reload":
            engine.take()
            rows = {name: row_of(row.document()) for name, row in engine.rows.items()}
            assert rows == engine.rows
            engine = Engine(plan_of(engine.plan.to_json()), engine.course, rows)
        elif (engine.course.state, {"pause": "paused", "resume": "resumed", "abort": "aborted"}[what]) in CAMPAIGN_NEXT:
            getattr(engine, what)(now)
        kept(engine, signed)


def kept(engine: Engine, signed: dict[str, set[tuple[str, bool] | str]]) -> None:
    """What holds at any time."""
    posts = [
        engine.targets[board].post for board, row in engine.rows.items() if row.state in AT_STAKE and not row.found
    ]
    assert len(posts) == len(set(posts)), "two boards of one post are at stake together"
    later = {board for wave in engine.plan.waves[engine.course.wave + 1 :] for board in wave}
    for board, row in engine.rows.items():
        if row.state == CONFIRMED:
            said = signed.get(board, set())
            assert (NEW[:16], False) in said or ((NEW[:16], True) in said and "lasted" in said), "success unsigned"
            assert row.before.reports >= engine.plan.gates.reports <= row.after.reports
        if board in later:
            assert row.state in (QUEUED, "SKIPPED", FAILED), "its wave has not come"
            assert not row.stake
    hurt = sum(row.state == FAILED and row.stake for row in engine.rows.values())
    if engine.course.wave == 0 and hurt > engine.course.pardoned:
        assert engine.course.state in (HALTED, ABORTED, COMPLETED)
    assert sum(engine.counts().values()) == len(engine.rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, Bad(CRASH, 0.3), Bad(SILENT_SENSOR, 0.5), Bad(LINK_KILLER, 0.2)]))
def test_lies_pauses_and_restarts_in_the_middle_of_it_break_no_promise(seed: int, bad: Bad | None) -> None:
    draw = random.Random(seed)
    city = City(running(24), bad, seed, offline=0.05)
    signed: dict[str, set[tuple[str, bool] | str]] = {}
    for _ in range(400):
        engine = city.engine
        city.hears = lambda board, heard: note(signed, board, heard)
        city.step()
        kept(engine, signed)
        board = draw.choice(sorted(engine.targets))
        what = draw.random()
        if what < 0.05:
            digest = draw.choice([OLD, NEW, ""])
            engine.hinted(
                board, told(draw.choice(["idle", "trial", "staged"]), digest, draw.choice([NEW, ""])), city.now
            )
        elif what < 0.07:
            reason = draw.choice([None, receipt.OLD_NONCE, receipt.NOT_STAGED, receipt.OLD])
            action = draw.choice([order.STAGE, order.ARM, order.ABANDON])
            engine.answered(
                board,
                action,
                city.boards[board].nonce if board in city.boards else NONCE,
                done(board, draw.randrange(99), reason),
                city.now,
            )
        elif what < 0.1:
            engine.take()
            rows = {name: row_of(row.document()) for name, row in engine.rows.items()}
            city.engine = Engine(plan_of(engine.plan.to_json()), engine.course, rows)
            city.engine.watched_again(city.now)
        elif what < 0.12:
            possible = [(state, event) for state, event in CAMPAIGN_NEXT if state == engine.course.state]
            event = {"paused": "pause", "resumed": "resume"}.get(draw.choice(possible)[1]) if possible else None
            if event is not None:
                getattr(engine, event)(city.now)
        kept(city.engine, signed)


def note(signed: dict[str, set[tuple[str, bool] | str]], board: str, heard: Heard) -> None:
    said = signed.setdefault(board, set())
    if heard.release is not None:
        said.add(heard.release)
    if heard.closed_ms > 1000 * TRIAL_S:
        said.add("lasted")


def test_the_same_story_ends_in_the_same_way() -> None:
    ends = []
    for _ in range(2):
        engine = running(200)
        city = City(engine, None, 7)
        city.run()
        ends.append((city.now, [(board, row.document()) for board, row in engine.rows.items()]))
    assert ends[0] == ends[1]


def test_a_campaign_that_is_stored_and_read_at_each_step_ends_as_one_that_is_not() -> None:
    engine = running(30)
    city = City(engine, None, 3)
    draw = random.Random(3)
    while not city.engine.is_over():
        city.step()
        if draw.random() < 0.3:
            city.engine.take()
            rows = {name: row_of(row.document()) for name, row in city.engine.rows.items()}
            city.engine = Engine(plan_of(engine.plan.to_json()), city.engine.course, rows)
    assert city.engine.course.state == COMPLETED
    assert city.now < BEGIN + 86400 * 2, STEP_S
