"""Runs the board: one event loop, five tasks, one watchdog (README.md, "Which tasks run?")."""

import asyncio
import gc
import json
import sys
import time

import machine
import micropython
from micropython import const

from laterne_firmware import RELEASE
from laterne_firmware.memory import unload
from laterne_firmware.sensors import fitted
from laterne_firmware.supervisor import Supervisor, is_working, stepping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machine import I2C, WDT, Pin

    from laterne_firmware.clock import Clock
    from laterne_firmware.identity import Identity
    from laterne_firmware.line import Line
    from laterne_firmware.link import Link
    from laterne_firmware.randomness import Random
    from laterne_firmware.reports import Reporter
    from laterne_firmware.sensors.fitted import Sensor
    from laterne_firmware.sessions import Sessions
    from laterne_protocol.frame import Frame

_SERVICE_LOOK_MS = const(200)
_HEALTHY_MS = const(600000)  # then the starts before do not count any more (slots)
_GATEWAY_SILENT_MS = const(60000)  # then the LED says that nobody asks
_TELL_EACH_S = const(5)
_PAUSE_BEFORE_RESET_MS = const(3000)
_GC_AT_START_BYTES = const(2048)  # what stays lies close together, not between garbage
_GC_AT_BYTES = const(16384)  # collect after this much garbage, so that a collection is short


class Console:
    """Lines for the technician on USB: the board first, then what changed."""

    def __init__(self, hardware: bytes) -> None:
        self.name = "board " + hardware.hex()

    def line(self, text: str) -> None:
        print("%s: %s" % (self.name, text))


class Post:
    """The parts of a running board; `start` makes them.

    log: a line on the console. switch: the service switch's pin. i2c: where the sensors are. trial_ms: how long a
    release that is only tried may go on unconfirmed after a start. counted: whether the record counts this start, or a
    rescue is to end after ten minutes, because its flash may be usable then.
    """

    def __init__(
        self,
        console: Console,
        watchdog: "WDT",
        led: "Pin",
        switch: "Pin",
        i2c: "I2C",
        sample_ms: int,
        identity: "Identity",
        clock: "Clock",
        random: "Random",
        reporter: "Reporter",
        trial_ms: int,
        counted: bool,
        line: "Line",
        link: "Link",
    ) -> None:
        self._console = console
        self._log = console.line
        self._led_pin = led
        self._switch = switch
        self._i2c = i2c
        self._sample_ms = sample_ms
        self._identity = identity
        self._clock = clock
        self._random = random
        self._reporter = reporter
        self._trial_ms = trial_ms
        self._counted = counted
        self._line = line
        self._link = link
        self._supervisor = Supervisor(watchdog, self._log, machine.reset)
        self._sensors = None  # type: list[Sensor] | None  # not asked for yet
        self._sessions: "Sessions | None" = None  # not before enrolment
        self._row = []  # type: list[tuple[int, int | None, int]]  # as it was read last
        self._in_service = False
        self._second = 0

    async def run(self) -> None:
        """For ever."""
        if self._identity.kid is None and not self._identity.rescue:  # whose flash may be RAM
            self._log("first start: making keys")
            self._supervisor.start("keys", self._make_keys)
        if self._identity.board is not None:
            self._begin_sessions()
        self._supervisor.start("line", self._run_line)
        self._supervisor.start("sampling", self._sample)
        self._supervisor.start("reports", self._reporter.run)
        await self._supervisor.run(self._each_second)

    async def _make_keys(self, beat: "Callable[[], None]") -> None:
        gc.collect()
        await self._first_keys(beat)
        _unload_what_enrolment_needs()
        self._log("keys made, kid %s, waiting for enrolment" % (self._identity.kid or b"").hex())
        self._supervisor.done("keys")

    async def _first_keys(self, beat: "Callable[[], None]") -> None:
        from laterne_firmware import first_keys

        await stepping(first_keys.make(self._identity, self._random), beat)

    async def _run_line(self, beat: "Callable[[], None]") -> None:
        await self._line.run(self._answer, beat)

    async def _answer(self, question: "Frame", now_ms: int, beat: "Callable[[], None]") -> "tuple[int, bytes] | None":
        answer = await self._link.answer(question, now_ms, beat)
        if self._sessions is None and self._identity.board is not None:
            self._console.name = self._identity.board
            micropython.kbd_intr(-1)  # from now on there is no REPL (main.py)
            _unload_what_enrolment_needs()
            self._begin_sessions()
        return answer

    def _begin_sessions(self) -> None:
        from laterne_firmware.sessions import Sessions

        self._sessions = self._link.sessions = Sessions(
            self._identity,
            self._clock,
            self._random,
            self._log,
            self._line.address,
            self._reporter,
            self._link.about,
        )
        self._supervisor.start("sessions", self._sessions.run)

    async def _sample(self, beat: "Callable[[], None]") -> None:
        clock = self._clock
        next_ms = clock.now_ms()
        while True:
            beat()
            self._look_at_service_switch()
            now_ms = clock.now_ms()
            if now_ms < next_ms:
                await asyncio.sleep_ms(min(_SERVICE_LOOK_MS, next_ms - now_ms))
                continue
            next_ms += self._sample_ms
            if next_ms <= now_ms:  # ticks jumped, or the loop was held up: begin a new grid
                next_ms = now_ms + self._sample_ms
            if self._in_service or self._sessions is None:
                continue
            if self._sensors is None:  # not before: drivers and enrolment need not be in memory together
                self._sensors = self._find_sensors()
            row = await fitted.row(self._sensors, self._log)
            self._row = row
            if row:  # also when the switch was closed meanwhile: what was read goes into a report
                await self._reporter.put(now_ms, row)

    def _find_sensors(self) -> "list[Sensor]":
        from laterne_firmware.sensors import probing

        found = probing.find(self._i2c, self._log)
        unload("laterne_firmware.sensors.probing")
        gc.threshold(_GC_AT_BYTES)  # from here on nothing stays that was not there before
        return found

    def _look_at_service_switch(self) -> None:
        held = self._reporter.hold
        closed = held or not self._switch.value()
        if closed != self._in_service:
            self._in_service = closed
            self._reporter.pause(closed)
            if not closed:
                self._log("readings go on")
            else:
                why = "an order is executed" if held else "service switch closed"
                self._log("%s, no readings are taken" % ("rescue" if self._identity.rescue else why))

    def _each_second(self) -> None:
        self._look_at_trial(self._clock.now_ms())  # ticks wrap, too: somebody has to look
        if self._line.progress():
            self._supervisor.beat("line")
        if self._sessions is not None:
            self._sessions.each_second()
        self._second += 1
        self._led_pin.value(self._led())
        if self._second % _TELL_EACH_S == 0 and not is_working():
            self._tell()

    def _tell(self) -> None:
        """README.md, "Who gets in by USB?": in one piece, as each piece may wait for who has USB open."""
        try:
            self._log("state " + json.dumps(self._state()))
        except MemoryError:
            self._log("no memory to tell the state")

    def _state(self) -> "list[object]":
        link = self._link
        line = self._line
        now_ms = self._clock.now_ms()
        heard_ms = line.heard_ms
        enrolled = self._identity.board is not None
        by_power = machine.reset_cause() == machine.PWRON_RESET
        sensors = None if self._sensors is None else [(sensor.name, sensor.failing) for sensor in self._sensors]
        state = [1, RELEASE, sys.path[0], self._identity.trial, enrolled, link.about[1], link.about[0]]
        state += [by_power, self._clock.boot, now_ms, self._clock.at(now_ms), link.backlog.waiting]
        state += [
            link.backlog.next_sequence,
            None if heard_ms is None else now_ms - heard_ms,
            line.damaged,
            line.refused,
        ]
        state += [gc.mem_free(), self._random.noise is not None, self._in_service, self._sample_ms, sensors, self._row]
        return state

    def _look_at_trial(self, now_ms: int) -> None:
        if self._identity.trial:
            if now_ms > self._trial_ms:
                self._log("the release was not confirmed within %d s" % (self._trial_ms // 1000))
                machine.reset()
        elif self._counted and now_ms > _HEALTHY_MS:
            self._counted = False
            self._healthy()
            if self._identity.rescue:  # its flash has refused, or could not be mounted (start)
                self._log("the flash is tried again, the board starts anew")
                machine.reset()

    def _healthy(self) -> None:
        from laterne_firmware import running

        running.healthy(self._log)
        unload("laterne_firmware.running", "laterne_firmware.slots")

    def _led(self) -> int:
        """README.md, "What the LED says": on in service; a second in two with a gateway, one in four without."""
        if self._in_service:
            return 1
        heard_ms = self._line.heard_ms
        if heard_ms is not None and self._clock.now_ms() - heard_ms < _GATEWAY_SILENT_MS:
            return self._second & 1
        return 1 if self._second & 3 == 0 else 0


def run() -> None:
    """Runs the board; returns only by an exception that a technician made (Ctrl-C), or not at all."""
    gc.threshold(_GC_AT_START_BYTES)
    try:
        from laterne_firmware import start

        post = start.post()
        del start
        unload(
            "laterne_firmware.start",
            "laterne_firmware.settings",
            "laterne_firmware.recovery",
            "laterne_firmware.running",
            "laterne_firmware.slots",
            "laterne_firmware.entropy",
            "laterne_firmware.board",
            "laterne_firmware.ram",
            "laterne_protocol.release_index",
            "pins",
        )
        _unload_what_enrolment_needs()
        asyncio.run(post.run())
    except Exception as why:
        # Nothing can be repaired here. A reset is; the pause keeps a board that fails at once from wearing its flash.
        print("the board starts again: %s" % why)
        sys.print_exception(why)
        time.sleep_ms(_PAUSE_BEFORE_RESET_MS)
        machine.reset()


def _unload_what_enrolment_needs() -> None:
    unload(
        "laterne_firmware.first_keys",
        "laterne_firmware.p256_keys",
        "laterne_firmware.enrolment",
        "laterne_protocol.credential",
        "laterne_protocol.public_keys",
        "laterne_protocol.cose",
    )
