"""Puts the board together, its parts in the order in which they need each other: once at each start, then unloaded."""

import os
import sys

from laterne_firmware import RELEASE, board, recovery, running, settings
from laterne_firmware.app import Console, Post
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.identity import NAME
from laterne_firmware.line import Line
from laterne_firmware.link import Link
from laterne_firmware.memory import unload
from laterne_firmware.randomness import SEED_BYTES, Random
from laterne_firmware.reports import Reporter
from laterne_firmware.slots import RESCUE
from laterne_firmware.state import State
from laterne_firmware.store import UNMOUNTED, Record, exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.identity import Identity


# An interned name stays in memory for good. Those of modules that an order or an update loads would come to lie between
# what is loaded and unloaded, and break the room for it into pieces: so all names come first.
_LATER = (
    "laterne_firmware.release_orders",
    "laterne_firmware.orders",
    "laterne_firmware.executed",
    "laterne_firmware.updating",
    "laterne_firmware.ordered",
    "laterne_firmware.installer",
    "laterne_firmware.unpacking",
    "laterne_firmware.slot_check",
    "laterne_protocol.release_index",
    "laterne_protocol.update_messages",
    "laterne_protocol.manifest",
    "laterne_protocol.trust",
    "laterne_protocol.order",
    "laterne_protocol.receipt",
)


def post() -> Post:
    """The post, ready to run. Raises what ends a start: OSError of the flash, RandomnessError."""
    try:
        return _post()
    except OSError as why:
        # A release that fails so is counted, and the rescue comes after it. After the rescue comes nothing.
        if sys.path[0] != RESCUE:
            raise
        print("the rescue cannot use its flash: %s" % why)
        from laterne_firmware import ram

        ram.mount()
        return _post()


def _post() -> Post:
    if exists(NAME + ".0"):  # the start in which a board is enrolled needs the room for other things
        for name in _LATER:
            __import__(name)
            unload(name)
    watchdog = board.watchdog()
    led = board.led()
    led.value(1)
    hardware = board.hardware_id()
    console = Console(hardware)
    log = console.line
    identity = recovery.identity(log)
    trial_ms, counted = running.learn(identity)
    is_rescue = identity.rescue
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
    random = _random(state.boot, hardware, log, identity)
    watchdog.feed()
    # A flash that refused may have done so once: another start is made then, in the time in which others prove healthy.
    counted = counted or identity.rescue != is_rescue or exists(UNMOUNTED)
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


def _random(boot: int, hardware: bytes, log: "Callable[[str], None]", identity: "Identity") -> Random:
    stored = Record("/k/seed")
    seed = stored.load()
    if seed is None or len(seed) != SEED_BYTES:
        seed = b""
    random = Random(seed, boot, hardware, os.urandom, board.noise(), log)
    try:
        stored.save(random.next_seed())
    except OSError as why:
        # The next start may begin with this seed once more: it then rests on generator and noise, as a first one does.
        # Until flash takes a seed no key is made and no report; the nonce of a receipt comes from key and text, too
        # (p256), and into a handshake goes a fresh half of the gateway's.
        log("flash refuses the next seed (%s): no readings are taken" % why)
        identity.rescue = True
    return random
