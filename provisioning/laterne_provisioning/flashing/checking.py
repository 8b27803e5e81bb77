"""The self-test of a board that was just flashed: its sensors, read once by the release's own drivers.

The program comes with the release (firmware/self_test.py, in its base). That it runs at all shows that this
interpreter loads the release.
"""

import ast
from dataclasses import dataclass

from laterne_protocol import channels, report
from laterne_protocol.release_file import Release
from laterne_provisioning import output
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing.layout import CHECK
from laterne_provisioning.flashing.repl import BoardFailed, Repl

MAX_PRINTED_BYTES = 4096


@dataclass(frozen=True)
class Reading:
    """channel: its number. value: in `unit` (UCUM), None: missing. quality: of laterne_protocol.report."""

    channel: int
    name: str
    value: float | None
    unit: str
    quality: int

    @property
    def is_good(self) -> bool:
        return self.value is not None and self.quality == report.GOOD

    @property
    def shown_unit(self) -> str:
        """For people, who do not know UCUM's Cel."""
        return "°C" if self.unit == "Cel" else self.unit

    @property
    def shown(self) -> str:
        return "no value" if self.value is None else f"{self.value:g} {self.shown_unit}"

    def __str__(self) -> str:
        doubt = "" if self.is_good or self.value is None else ", at the end of its range"
        return f"{self.name}: {self.shown}{doubt}"


@dataclass(frozen=True)
class Checked:
    """sensors: names as on the console, such as `SHT4x at 0x44`. readings: one of each channel."""

    sensors: tuple[str, ...]
    readings: tuple[Reading, ...]


def check(repl: Repl, release: Release) -> Checked | None:
    """One reading of every channel; None: the release brings no self-test. Raises OperatorError, BoardGone."""
    program = release.base.get(CHECK)
    if program is None:
        return None
    try:
        printed = repl.run(program.decode())
    except BoardFailed as why:
        raise OperatorError(
            f"The self-test fails on the board on {repl.port} ({why.last}): look at the wiring of its sensors, then "
            "give the same command again. Until then the board starts nothing."
        ) from why
    return checked(printed)


def checked(printed: bytes) -> Checked:
    """What the program has printed. Raises OperatorError."""
    try:
        names, rows = ast.literal_eval(printed[:MAX_PRINTED_BYTES].decode().strip())
        return Checked(tuple(output.foreign(str(name)) for name in names), tuple(reading_of(*row) for row in rows))
    except (ValueError, TypeError, ArithmeticError, SyntaxError, RecursionError, MemoryError) as why:
        raise OperatorError(
            f"The self-test has said nothing that can be read ({printed[:32].hex()}): repeat the command."
        ) from why


def reading_of(channel: int, value: int | None, quality: int) -> Reading:
    """As a board has it: an integer of the channel's scale. Raises ValueError, TypeError, ArithmeticError."""
    if not 0 <= int(channel) <= report.MAX_CHANNEL:
        raise ValueError("a channel beyond those there are")
    if value is not None and not report.MIN_VALUE <= int(value) <= report.MAX_VALUE:
        raise ValueError("a value beyond 32 bits")
    name, unit, exponent = channels.describe(int(channel))
    shown = None if value is None else round(int(value) * 10.0**exponent, -exponent)
    return Reading(int(channel), name, shown, unit, int(quality))
