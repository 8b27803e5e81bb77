"""The clock of the firmware with ticks that the test sets, for tests/firmware/test_clock.py."""

from lines import serve

import laterne_firmware.clock as module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PERIOD = 1 << 30  # of a board's ticks; the unix port's are longer
ticks = 0


def ticks_ms() -> int:
    return ticks


def ticks_diff(end: int, start: int) -> int:
    return (end - start + _PERIOD // 2) % _PERIOD - _PERIOD // 2


module.ticks_ms = ticks_ms
module.ticks_diff = ticks_diff


def answer(question: "dict[str, Any]") -> object:
    """A start at ticks question["start"]; then moments: [ticks that pass, time from a poll or None].

    For each: [milliseconds since the start, clock of a report that is closed in this moment].
    """
    global ticks
    ticks = question["start"]
    clock = module.Clock(question["boot"])
    out = []
    for passed, time in question["moments"]:
        ticks = (ticks + passed) % _PERIOD
        if time is not None:
            clock.take_over(*time)
        now_ms = clock.now_ms()
        out.append([now_ms, list(clock.at(now_ms))])
    return out


serve(answer)
