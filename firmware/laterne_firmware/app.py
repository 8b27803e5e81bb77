"""Puts the board together and runs it: one event loop, four tasks, one watchdog (README.md, "Tasks")."""

import asyncio
import gc
import os
import sys
import time

from micropython import const

from laterne_firmware import RELEASE, board
from laterne_firmware.backlog import Backlog
from laterne_firmware.clock import Clock
from laterne_firmware.identity import Identity
from laterne_firmware.line import Line
from laterne_firmware.link import Link
from laterne_firmware.memory import unload
from laterne_firmware.randomness import SEED_BYTES, Random
from laterne_firmware.reports import Reporter
from laterne_firmware.sensors.fitted import Fitted
from laterne_firmware.state import State
from laterne_firmware.store import Record
from laterne_firmware.supervisor import Supervisor, stepping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.settings import Settings

_SERVICE_LOOK_MS = const(200)
_GATEWAY_SILENT_MS = const(60000)  # then the LED says that nobody asks
_PAUSE_BEFORE_RESET_MS = const(3000)
_GC_AT_BYTES = const(16384)  # collect after this much garbage, so that a collection is short


class Console:
    """Lines for the technician on USB: the board first, then what changed."""

    def __init__(self, hardware: bytes) -> None:
        self.name = "board " + hardware.hex()

    def line(self, text: str) -> None:
        print("%s: %s" % (self.name, text))


class Post:
    """The parts of a running board, made in the order in which they need each other."""

    def __init__(self) -> None:
        self.watchdog = board.watchdog()
        hardware = board.hardware_id()
        self.console = Console(hardware)
        self._log = self.console.line
        self.settings, problem = self._load_settings()
        self.led = board.led()
        self.led.value(1)
        self.identity = Identity(self._log)
        self._name()
        state = State()
        self.backlog = Backlog(state, self._log)
        for _ in self.backlog.recover(self.identity.board is not None):
            self.watchdog.feed()
        state.begin(self.backlog.newest_boot if state.lost else 0)
        self.clock = Clock(state.boot)
        self._log("release %s, start %d by %s" % (RELEASE, state.boot, board.started_by()))
        if problem:
            self._log(problem)
        self.random = self._make_random(state.boot, hardware)
        self.watchdog.feed()
        self.fitted = Fitted(board.i2c(), self._log)
        self.reporter = Reporter(
            self.identity, self.backlog, self.clock, self.random, self._log, self.settings.report_s
        )
        self.line = Line(board.uart(), board.driver_enable(), self.settings.address, self.clock)
        self.link = Link(
            self.identity,
            self.backlog,
            self.reporter,
            self.clock,
            self.random,
            self._log,
            board.MODEL,
            board.TIER,
            hardware,
        )
        self.supervisor = Supervisor(self.watchdog, self._log, board.reset)
        self._in_service = False
        self._found = False
        self._second = 0

    def _load_settings(self) -> "tuple[Settings, str]":
        from laterne_firmware import settings

        loaded = settings.load()
        unload("laterne_firmware.settings")
        return loaded

    def _make_random(self, boot: int, hardware: bytes) -> Random:
        stored = Record("/k/seed")
        seed = stored.load()
        random = Random(
            seed if seed is not None and len(seed) == SEED_BYTES else b"",
            boot,
            hardware,
            os.urandom,
            board.noise(),
            self._log,
        )
        unload("laterne_firmware.entropy")
        stored.save(random.next_seed())
        return random

    def _name(self) -> None:
        if self.identity.board is not None:
            self.console.name = self.identity.board

    async def run(self) -> None:
        """For ever."""
        if self.identity.kid is None:
            self._log("first start: making keys")
            self.supervisor.start("keys", self._make_keys)
        self.supervisor.start("line", self._run_line)
        self.supervisor.start("sampling", self._sample)
        self.supervisor.start("reports", self.reporter.run)
        await self.supervisor.run(self._each_second)

    async def _make_keys(self, beat: "Callable[[], None]") -> None:
        gc.collect()
        from laterne_firmware import enrolment

        await stepping(enrolment.make_keys(self.identity, self.random), beat)
        self._log("keys made, kid %s, waiting for enrolment" % (self.identity.kid or b"").hex())
        self.supervisor.done("keys")

    async def _run_line(self, beat: "Callable[[], None]") -> None:
        await self.line.run(self._answer, beat)

    async def _answer(self, payload: bytes, now_ms: int, beat: "Callable[[], None]") -> "bytes | None":
        answer = await self.link.answer(payload, now_ms, beat)
        self._name()
        return answer

    async def _sample(self, beat: "Callable[[], None]") -> None:
        clock = self.clock
        next_ms = clock.now_ms()
        while True:
            beat()
            self._look_at_service_switch()
            now_ms = clock.now_ms()
            if now_ms < next_ms:
                await asyncio.sleep_ms(min(_SERVICE_LOOK_MS, next_ms - now_ms))
                continue
            next_ms += self.settings.sample_ms
            if next_ms <= now_ms:  # ticks jumped, or the loop was held up: begin a new grid
                next_ms = now_ms + self.settings.sample_ms
            if self._in_service or self.identity.board is None:
                continue
            if not self._found:  # not before: drivers and enrolment need not be in memory together
                unload("laterne_firmware.enrolment")
                unload("laterne_protocol.credential")
                self.fitted.find()
                self._found = True
            row = await self.fitted.row()
            if row:  # also when the switch was closed meanwhile: what was read goes into a report
                await self.reporter.put(now_ms, row)

    def _look_at_service_switch(self) -> None:
        closed = board.service_switch_closed()
        if closed != self._in_service:
            self._in_service = closed
            self.reporter.pause(closed)
            self._log(
                "service switch closed, no readings are taken" if closed else "service switch open, readings go on"
            )

    def _each_second(self) -> None:
        self.clock.now_ms()  # ticks wrap: somebody has to look
        if self.line.progress():
            self.supervisor.beat("line")
        self._second += 1
        self.led.value(self._led())

    def _led(self) -> int:
        """README.md, "What the LED says": on in service; a second in two with a gateway, one in four without."""
        if self._in_service:
            return 1
        heard_ms = self.line.heard_ms
        if heard_ms is not None and self.clock.now_ms() - heard_ms < _GATEWAY_SILENT_MS:
            return self._second & 1
        return 1 if self._second & 3 == 0 else 0


def run() -> None:
    """Runs the board; returns only by an exception that a technician made (Ctrl-C), or not at all."""
    gc.threshold(_GC_AT_BYTES)
    try:
        asyncio.run(Post().run())
    except Exception as why:
        # Nothing can be repaired here. A reset is; the pause keeps a board that fails at once from wearing its flash.
        print("the board starts again: %s" % why)
        sys.print_exception(why)
        time.sleep_ms(_PAUSE_BEFORE_RESET_MS)
        board.reset()
