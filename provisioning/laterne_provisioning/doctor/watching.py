"""The readings of a board as they come: charts on a terminal, JSON lines elsewhere."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from laterne_provisioning import output
from laterne_provisioning.doctor.console import State
from laterne_provisioning.flashing.checking import Reading

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
SHOWN = 48  # values in a chart: four minutes
SAID = 6  # lines of the console below it


def chart(values: "deque[float | None]") -> str:
    """A column for each value, from the least to the most of them; a blank where there was none."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    least, span = min(known), max(known) - min(known)
    if span == 0:
        return "".join(" " if value is None else BARS[3] for value in values)
    top = len(BARS) - 1
    return "".join(" " if value is None else BARS[round((value - least) / span * top)] for value in values)


class Watched:
    """What a board has told since the watching began."""

    def __init__(self) -> None:
        self.last: State | None = None
        self._names: dict[int, Reading] = {}
        self._values: dict[int, deque[float | None]] = {}
        self._said: deque[str] = deque(maxlen=SAID)

    def told(self, state: State) -> None:
        """Values of a channel that is missing this time leave a blank."""
        self.last = state
        now = {reading.channel: reading for reading in state.readings}
        self._names.update(now)
        for channel in self._names:
            values = self._values.setdefault(channel, deque(maxlen=SHOWN))
            reading = now.get(channel)
            values.append(None if reading is None else reading.value)

    def said(self, text: str) -> None:
        """A line of the console that is no state."""
        self._said.append(output.foreign(text))

    def drawn(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("reading", "value", "", "of these", "least", "most"):
            table.add_column(column, justify="right" if column in ("value", "least", "most") else "left")
        for channel, reading in sorted(self._names.items()):
            values = self._values[channel]
            known = [value for value in values if value is not None]
            value, ends = values[-1], (f"{min(known):g}", f"{max(known):g}") if known else ("", "")
            table.add_row(
                reading.name, "missing" if value is None else f"{value:g}", reading.shown_unit, chart(values), *ends
            )
        return Group(Text(self._head(), style="bold"), table, *(Text(one, style="dim") for one in self._said))

    def _head(self) -> str:
        state = self.last
        if state is None:
            return "waiting for the board's state, one each five seconds; why none comes, says laterne board doctor"
        asked = "never" if state.asked_ms is None else f"{state.asked_ms / 1000:.1f} s ago"
        return (
            f"{state.board}   release {state.release}, slot {state.slot}   start {state.boot}, up "
            f"{state.uptime_ms // 1000} s   asked {asked}   {state.waiting} reports wait"
        )


def document(state: State) -> dict[str, object]:
    """A state as JSON shows it (provisioning/README.md, "What is wrong with a board?")."""
    clock, utc_ms, margin_ms = state.clock
    return {
        "board": state.board,
        "enrolled": state.is_enrolled,
        "release": state.release,
        "slot": state.slot,
        "trial": state.is_tried,
        "boot": state.boot,
        "uptime_ms": state.uptime_ms,
        "clock": {
            "state": ("never set", "set", "held")[clock] if clock < 3 else None,
            "utc_ms": utc_ms,
            "margin_ms": margin_ms,
        },
        "waiting": state.waiting,
        "asked_ms": state.asked_ms,
        "damaged": state.damaged,
        "refused": state.refused,
        "free": state.free,
        "sensors": None
        if state.sensors is None
        else [{"name": name, "fails": why or None} for name, why in state.sensors],
        "readings": [
            {"channel": one.channel, "name": one.name, "value": one.value, "unit": one.unit, "quality": one.quality}
            for one in state.readings
        ],
    }


@contextmanager
def shown() -> Iterator[Callable[[State | str], None]]:
    """What takes a state or another line of the console, and shows it."""
    import sys

    if not sys.stdout.isatty():
        yield lambda one: output.print_line({"console": output.foreign(one)} if isinstance(one, str) else document(one))
        return
    from rich.live import Live

    watched = Watched()
    with Live(watched.drawn(), auto_refresh=False) as live:

        def show(one: State | str) -> None:
            if isinstance(one, str):
                watched.said(one)
            else:
                watched.told(one)
            live.update(watched.drawn(), refresh=True)

        yield show
