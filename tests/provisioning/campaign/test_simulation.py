"""10,000 boards and bad releases: the campaign halts by itself before more than canaries and first wave are harmed.

*Harmed* is a board to which a release did what is wrong with it; *reached* is one that ran it at all. A fault on a
share p of boards shows itself among n with 1 - (1 - p) ** n: a crash on 1 % is missed by 157 canaries in a fifth of all
campaigns, so for that release no number of boards reached can be promised, but harm can.
"""

import os

import pytest
from tests.provisioning.campaign.city import BEGIN, CRASH, LINK_KILLER, SILENT_SENSOR, Bad, City, plan, targets

from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.evidence import bound
from laterne_provisioning.campaign.plan import Gates
from laterne_provisioning.campaign.states import COMPLETED, CONFIRMED, FAILED, HALTED, QUEUED, SENDING, SKIPPED, STAGED

BOARDS = 10_000
SEED = int(os.environ.get("LATERNE_SEED", "2026"))
SEEDS = range(SEED, SEED + 2)
RELEASES = [
    Bad(CRASH, 0.01), Bad(CRASH, 0.05), Bad(CRASH, 1.0), Bad(SILENT_SENSOR, 0.01), Bad(SILENT_SENSOR, 1.0),
    Bad(LINK_KILLER, 0.01), Bad(LINK_KILLER, 1.0),
]  # fmt: skip


def run(
    bad: Bad | None,
    seed: int,
    boards: int = BOARDS,
    a_gateway: int = 64,
    offline: float = 0.0,
    gates: Gates | None = None,
) -> City:
    engine = Engine(plan(boards, f"C-{seed}", a_gateway=a_gateway, gates=gates))
    engine.approve(BEGIN)
    engine.start(BEGIN)
    city = City(engine, bad, seed, offline)
    city.run()
    return city


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bad", RELEASES, ids=lambda bad: f"{bad.what} {bad.share:.0%}")
@pytest.mark.parametrize("a_gateway", [64, 5000], ids=["157 gateways", "2 gateways"])
def test_a_bad_release_harms_no_more_than_canaries_and_first_wave(bad: Bad, seed: int, a_gateway: int) -> None:
    city = run(bad, seed, a_gateway=a_gateway)
    canaries, first = (len(wave) for wave in city.engine.plan.waves[:2])
    assert city.engine.course.state == HALTED
    assert 0 < len(city.harmed) <= canaries + first
    if bad.share > 0.01:
        # 500 boards miss a fault of 5 % in one campaign of 10 ** 11.
        assert len(city.exposed) <= canaries + first
    assert not [board for board in city.boards.values() if board.trial_since is not None], "nobody is left in trial"
    assert city.most_at_a_post == 1
    failed, tried = city.engine.tried()
    assert failed <= len(city.harmed), "who was ordered back has not failed"
    assert tried == failed + city.engine.counts()[CONFIRMED]
    later = {board for wave in city.engine.plan.waves[city.engine.course.wave + 1 :] for board in wave}
    assert {city.engine.rows[board].state for board in later} <= {QUEUED, SKIPPED}


def test_a_good_release_reaches_every_board_and_says_what_that_proves() -> None:
    city = run(None, SEED)
    assert city.engine.course.state == COMPLETED
    assert city.engine.counts() == {CONFIRMED: BOARDS}
    assert not city.harmed
    failed, tried = city.engine.tried()
    assert (failed, tried) == (0, BOARDS)
    assert bound(failed, tried) < 0.0003


def test_a_release_of_which_boards_are_away_is_no_success_and_halts_below_the_wanted_share() -> None:
    gates = Gates(success_percent=80)
    few = run(None, SEED, boards=1000, offline=0.02, gates=gates)
    assert few.engine.course.state == COMPLETED
    assert few.engine.counts()[CONFIRMED] == len(few.boards)
    assert few.engine.counts()[FAILED] == 1000 - len(few.boards)
    many = run(None, SEED, boards=1000, offline=0.6, gates=gates)
    assert many.engine.course.state == HALTED
    assert "% are wanted" in many.engine.course.reason
    assert many.engine.course.wave == 1, "canaries are known to be there"


def test_what_is_sent_at_once_is_bounded_for_each_gateway() -> None:
    engine = Engine(plan(2000, a_gateway=64))
    engine.approve(BEGIN)
    engine.start(BEGIN)
    city = City(engine, None, SEED)
    while not engine.is_over():
        city.step()
        busy = [engine.targets[board].gateway for board, row in engine.rows.items() if row.state == SENDING]
        at_stake = [one.target.gateway for one in city.boards.values() if one.trial_since is not None]
        assert all(busy.count(gateway) <= engine.plan.pace.sending for gateway in set(busy))
        assert all(at_stake.count(gateway) <= 16 for gateway in set(at_stake)), "a quarter of its boards"
        if engine.counts()[STAGED] and engine.course.wave == 2:
            break


def test_there_is_a_canary_of_each_hardware_class_and_gateway() -> None:
    made = plan(BOARDS)
    traits = {trait for one in targets(BOARDS) for trait in one.traits}
    shown = {trait for one in made.targets if one.board in made.canaries for trait in one.traits}
    assert shown == traits
    assert len(made.canaries) < 170


def test_waves_are_stable_rise_as_planned_and_hold_every_board_once() -> None:
    made = plan(BOARDS)
    assert made.waves == plan(BOARDS).waves
    assert [len(wave) for wave in made.waves[1:]] == [500 - len(made.canaries), 2000, 2500, 5000]
    assert sorted(board for wave in made.waves for board in wave) == sorted(one.board for one in made.targets)
    other = plan(BOARDS, "C-2").waves
    assert set(other[1]) != set(made.waves[1]), "another campaign begins with others"
