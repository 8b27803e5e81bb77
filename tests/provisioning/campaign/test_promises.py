"""The machine: whatever happens in whatever order, what must never happen does not."""

import random

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
)
from tests.provisioning.campaign.machine import NONCE, done, running, told

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.plan import plan_of
from laterne_provisioning.campaign.rows import Told, row_of
from laterne_provisioning.campaign.states import (
    ABORTED,
    AT_STAKE,
    CAMPAIGN_NEXT,
    COMPLETED,
    CONFIRMED,
    FAILED,
    HALTED,
    QUEUED,
)

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
            engine.hinted(board, about, now)  # type: ignore[arg-type]  # as EVENTS pairs them
        elif what == "answered":
            assert isinstance(about, tuple)
            engine.answered(board, about[0], about[1], done(board, about[3], about[2]), now)
        elif what == "time":
            now += about  # type: ignore[operator]  # as above
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
