"""Puts the board together, its parts in the order in which they need each other: once at each start, then unloaded."""

import os

from laterne_firmware import RELEASE, board, recovery, running, settings
from laterne_firmware.app import Console, Post
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.line import Line
from laterne_firmware.link import Link
from laterne_firmware.memory import unload
from laterne_firmware.randomness import SEED_BYTES, Random
from laterne_firmware.reports import Reporter
from laterne_firmware.state import State
from laterne_firmware.store import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def post() -> Post:
    """The post, ready to run. Raises what ends a start: OSError of the flash, RandomnessError."""
    watchdog = board.watchdog()
    led = board.led()
    led.value(1)
    hardware = board.hardware_id()
    console = Console(hardware)
    log = console.line
    identity = recovery.identity(log)
    trial_ms, counted = running.learn(identity)
    console.name = identity.board or console.name
    state = State()
    backlog = Backlog(state, log)
    set_by_operator, problem = settings.load()
    for _ in recovery.start(state, backlog, log, identity, set_by_operator.report_s * 1000):
        watchdog.feed()
    unload("laterne_firmware.recovery")
    what = "rescue" if identity.rescue else "release " + RELEASE
    log("%s, start %d by %s" % (what, state.boot, board.started_by()))
    if problem:
        log(problem)
    clock = Clock(state.boot)
    random = _random(state.boot, hardware, log)
    watchdog.feed()
    reporter = Reporter(identity, backlog, clock, random, log, set_by_operator.report_s)
    return Post(
        console,
        watchdog,
        led,
        board.service_switch(),
        board.i2c(),
        set_by_operator.sample_ms,
        identity,
        clock,
        random,
        reporter,
        trial_ms,
        counted,
        Line(board.uart(), board.driver_enable(), set_by_operator.address, clock),
        Link(
            identity,
            backlog,
            reporter,
            clock,
            random,
            log,
            (board.TIER, board.MODEL, hardware),
            set_by_operator.address,
        ),
    )


def _random(boot: int, hardware: bytes, log: "Callable[[str], None]") -> Random:
    stored = Record("/k/seed")
    seed = stored.load()
    if seed is None or len(seed) != SEED_BYTES:
        seed = b""
    random = Random(seed, boot, hardware, os.urandom, board.noise(), log)
    stored.save(random.next_seed())
    return random
