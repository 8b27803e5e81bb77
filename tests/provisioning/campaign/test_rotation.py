"""Boards that get new keys while a campaign runs are left alone, not timed, and heard again by their new key."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.provisioning.campaign.city import BEGIN
from tests.provisioning.campaign.machine import brought_to, heard, running, told
from tests.provisioning.commands import laterne
from tests.provisioning.fake_board import FakeBoard
from tests.provisioning.fake_gateway import FakeGateway
from tests.servers import Mosquitto

from laterne_provisioning import authority as authorities
from laterne_provisioning import keys
from laterne_provisioning.campaign.desk import Desk
from laterne_provisioning.campaign.plan import Target
from laterne_provisioning.campaign.states import ARMED, CONFIRMED, FAILED, SENDING, STAGED

GATEWAY = "gw-1"
LONG = 3 * 86400


@pytest.fixture
def gateway(authority: Path, boards: list[FakeBoard], broker: Mosquitto, tmp_path: Path) -> Iterator[FakeGateway]:
    laterne("roster", "export", "--gateway", GATEWAY, "--authority", authority, "-o", tmp_path / "roster.1")
    with FakeGateway(broker, boards[0], last=1) as made:
        yield made


def test_a_board_with_new_keys_is_held_until_its_gateway_has_a_roster_with_them_and_is_heard_by_both(
    authority: Path, boards: list[FakeBoard], broker: Mosquitto, gateway: FakeGateway, tmp_path: Path
) -> None:
    opened = authorities.open_authority(authority)
    targets = {board: Target(board, "city", GATEWAY, None, ()) for board in ("LE-0001", "LE-0002")}
    with opened.registry() as registry:
        desk = Desk(opened, registry, opened.signing_key("order", keys.Secrets()), lambda: BEGIN)
        assert desk.heard("LE-0001", boards[0].next_report()) is not None
        assert desk.held(targets) == frozenset()
        former = boards[0].kid
        laterne("board", "rotate", "LE-0001", "--authority", authority, "--broker", broker.url)
        assert boards[0].kid != former
        assert desk.held(targets) == {"LE-0001"}
        assert desk.heard("LE-0001", boards[0].next_report()) is not None
        laterne("roster", "export", "--gateway", GATEWAY, "--authority", authority, "-o", tmp_path / "roster.2")
        assert desk.held(targets) == frozenset()


@pytest.mark.parametrize("state", [SENDING, STAGED, ARMED, CONFIRMED])
def test_a_held_board_is_not_timed_and_has_its_time_anew_afterwards(state: str) -> None:
    engine = running(1)
    board = brought_to(state, engine)
    engine.hold({board}, BEGIN + 1)
    engine.tick(BEGIN + LONG)
    assert engine.rows[board].state == state
    engine.hold(set(), BEGIN + LONG)
    engine.tick(BEGIN + LONG + 1)
    assert engine.rows[board].state in (state, ARMED)
    for _ in range(engine.plan.pace.arm_tries + 1):
        now = engine.rows[board].since + LONG
        engine.tick(now)
    assert engine.rows[board].state == FAILED, "nothing was heard of it since"


def test_a_board_that_is_held_for_too_long_is_timed_again() -> None:
    engine = running(1)
    board = brought_to(SENDING, engine)
    engine.hold({board}, BEGIN)
    engine.tick(BEGIN + engine.plan.pace.held_for)
    assert engine.rows[board].state == SENDING
    engine.tick(BEGIN + engine.plan.pace.held_for + 1)
    assert engine.rows[board].state == FAILED


def test_a_held_board_is_neither_ordered_nor_armed_and_gets_its_order_again_afterwards() -> None:
    engine = running(1)
    board = brought_to(SENDING, engine)
    engine.hinted(board, told(), BEGIN)
    (first,) = engine.wanted(BEGIN)
    engine.ordered(first, "")
    engine.hold({board}, BEGIN)
    assert list(engine.wanted(BEGIN)) == []
    engine.hold(set(), BEGIN)
    assert list(engine.wanted(BEGIN)) == [first], "a rotation has taken its place at the broker"
    engine.hinted(board, told(staged=first.digest), BEGIN)
    engine.hold({board}, BEGIN)
    engine.heard(board, heard(100), BEGIN)
    engine.tick(BEGIN)
    assert engine.rows[board].state == STAGED
    engine.hold(set(), BEGIN)
    engine.tick(BEGIN)
    assert engine.rows[board].state == ARMED
