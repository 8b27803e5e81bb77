"""A campaign's machine for tests: under way, told things, brought into a state."""

from tests.provisioning.campaign.city import (
    BEGIN,
    NEW,
    OLD,
    plan,
)

from laterne_protocol import order, receipt
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.health import Heard
from laterne_provisioning.campaign.rows import Told
from laterne_provisioning.campaign.states import (
    ARMED,
    SENDING,
    STAGED,
    TRIAL,
)

NONCE = bytes(8)


def running(boards: int = 12, **more: object) -> Engine:
    engine = Engine(plan(boards, **more))  # type: ignore[arg-type]  # arguments of plan()
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
