"""The watchdog is fed only while every task makes progress; a task that fails ends in a logged line and a reset.

Progress is counted, not timed: ticks may jump, and a board that thinks half an hour has passed is not a dead one.
"""

import asyncio
import gc
import sys
import time

from micropython import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import TypeVar

    from machine import WDT

    Result = TypeVar("Result")

PASS_MS = 1000
SILENT_PASSES = 10  # then the watchdog is no longer fed, and bites 8 s later
_WAIT_MS = const(20)
_at_work = []  # type: list[object]  # steps, at most one of these
_room = []  # type: list[Callable[[], None]]  # at most one of these
_PAUSE_BEFORE_RESET_MS = const(3000)  # the line reaches the console; who fails at once does not wear out flash


class Supervisor:
    """watchdog: fed by run(). log: a line for the technician. reset: starts the board again, does not return."""

    def __init__(self, watchdog: "WDT", log: "Callable[[str], None]", reset: "Callable[[], None]") -> None:
        self._watchdog = watchdog
        self._log = log
        self._reset = reset
        self._beats = {}  # type: dict[str, int]
        self._silent = {}  # type: dict[str, int]

    def start(self, name: str, task: "Callable[[Callable[[], None]], Awaitable[None]]") -> None:
        """Runs task(beat) for ever; it calls beat() wherever it makes progress, at least every few seconds."""
        self._silent[name] = 0
        self._beats[name] = 0
        # Not kept: the loop holds a task that waits, and one that has ended would keep all that it ever used.
        asyncio.create_task(self._guard(name, task(lambda: self.beat(name))))

    def beat(self, name: str) -> None:
        """The task has made progress."""
        if name in self._beats:
            self._beats[name] += 1

    def done(self, name: str) -> None:
        """The task has done what it was for, and may end."""
        del self._beats[name], self._silent[name]

    async def run(self, each_pass: "Callable[[], None]") -> None:
        """Feeds the watchdog for ever. each_pass: called once a second."""
        while True:
            each_pass()
            if self._all_alive():
                self._watchdog.feed()
            gc.collect()
            await asyncio.sleep_ms(PASS_MS)

    def _all_alive(self) -> bool:
        alive = True
        for name, silent in self._silent.items():
            if self._beats[name]:
                self._beats[name] = 0
                self._silent[name] = 0
                continue
            self._silent[name] = silent + 1
            if silent + 1 == SILENT_PASSES:
                self._log("task %s stands still, the watchdog will start the board again" % name)
            alive = alive and silent + 1 < SILENT_PASSES
        return alive

    async def _guard(self, name: str, task: "Awaitable[None]") -> None:
        try:
            await task
            if name not in self._beats:
                return
            self._log("task %s has ended, the board starts again" % name)
        except Exception as why:
            self._log("task %s failed, the board starts again: %s" % (name, why))
            sys.print_exception(why)
        time.sleep_ms(_PAUSE_BEFORE_RESET_MS)
        self._reset()


def let_make_room(function: "Callable[[], None]") -> None:
    """It is called before something long begins: whoever can spare memory gives it back."""
    _room[:] = [function]


def is_working() -> bool:
    """Whether something long is under way, which needs the memory."""
    return bool(_at_work)


async def stepping(steps: "Generator[int | None, None, Result]", beat: "Callable[[], None]") -> "Result":
    """The result of something long that comes in steps; a beat and the event loop between them.

    One at a time, because memory does not hold two: whoever comes second waits, and is alive as long as the first is.
    A step that gives a number has nothing to do for so many milliseconds, and lets others work.
    """
    try:
        while True:
            while _at_work and _at_work[0] is not steps:
                beat()
                await asyncio.sleep_ms(_WAIT_MS)
            if not _at_work:
                for make_room in _room:
                    make_room()
                _at_work.append(steps)
            try:
                pause_ms = next(steps)
            except StopIteration as finished:
                return finished.value
            if pause_ms:
                _at_work.clear()
            beat()
            await asyncio.sleep_ms(pause_ms or 0)
    finally:
        if _at_work and _at_work[0] is steps:
            _at_work.clear()
