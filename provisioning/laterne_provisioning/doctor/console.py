"""What a board prints on its USB port: its state every five seconds, and lines for people (firmware/README.md).

The port is only read. All of it is a stranger's text: bounded, parsed strictly, and shown only through output.foreign.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from laterne_protocol import credential, fields
from laterne_provisioning import line, output
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing.checking import Reading, reading_of

MAX_LINE_BYTES = 4096  # ten sensors are 1,500
FORMAT = 1  # of the state, its first number
STATE = ": state "
# Leaves a raw REPL and asks for a prompt: who has a REPL answers, a running firmware reads nothing.
KNOCK = b"\r\x02\r"
PROMPT = b">>> "
PROMPT_WITHIN_S = 0.7


class PortGone(OperatorError):
    """The port has vanished: the board was unplugged, or resets."""


@dataclass(frozen=True)
class State:
    """What a running board says of itself.

    board: its id, or "board " and its hardware id. slot: "a", "b", "r" for the rescue. uptime_ms: since its start.
    clock: as in reports: (state, UTC in ms or None, ± ms). asked_ms: since the last question of a gateway, None: never.
    damaged, refused: packets and questions on its line. free: bytes of heap. has_noise: its analogue input is used.
    sensors: (name, why it fails or ""), None: not asked for yet.
    """

    board: str
    release: str
    slot: str
    is_tried: bool
    is_enrolled: bool
    model: str
    tier: int
    by_power: bool
    boot: int
    uptime_ms: int
    clock: tuple[int, int | None, int]
    waiting: int
    next_sequence: int
    asked_ms: int | None
    damaged: int
    refused: int
    free: int
    has_noise: bool
    switch_is_closed: bool
    sample_ms: int
    sensors: tuple[tuple[str, str], ...] | None
    readings: tuple[Reading, ...]


def state_of(said: str) -> State | None:
    """The state that a line of the console holds; None: it holds none that can be read."""
    board, found, text = said.partition(STATE)
    if not found:
        return None
    try:
        values = json.loads(text)
        if values[0] != FORMAT:
            return None
        return _state(board, values[1:])
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return None  # cut off by who read before us, or of a release that we do not know


def _state(board: str, values: list[Any]) -> State:
    release, slot, tried, enrolled, model, tier, by_power, boot, uptime_ms, clock, waiting, following = values[:12]
    asked_ms, damaged, refused, free, noise, closed, sample_ms, sensors, row = values[12:]
    state, utc_ms, margin_ms = clock
    credential.TIERS[_number(tier)]
    return State(
        output.foreign(board),
        output.foreign(str(release)),
        output.foreign(str(slot)).removeprefix("/"),
        bool(tried),
        bool(enrolled),
        output.foreign(str(model)),
        _number(tier),
        bool(by_power),
        _number(boot),
        _number(uptime_ms),
        (_number(state), None if utc_ms is None else _number(utc_ms), _number(margin_ms)),
        _number(waiting),
        _number(following),
        None if asked_ms is None else _number(asked_ms),
        _number(damaged),
        _number(refused),
        _number(free),
        bool(noise),
        bool(closed),
        _number(sample_ms),
        None
        if sensors is None
        else tuple((output.foreign(str(name)), output.foreign(str(why))) for name, why in sensors),
        tuple(reading_of(*reading) for reading in row),
    )


def _number(value: object) -> int:
    # A number of a thousand digits is one, too, and the first division by it would end the command.
    if not isinstance(value, int) or not 0 <= value <= fields.MAX_UTC_MS:
        raise ValueError("a number of a board is wanted")
    return value


class Console:
    """The USB port of a board, read line by line. Use it in a `with`. Raises UsageError: it cannot be opened."""

    def __init__(self, port: str) -> None:
        import serialx

        self.port = port
        self._pending = b""
        self._too_long = False
        self._serial = serialx.serial_for_url(port, line.BAUD, exclusive=True, read_timeout=line.READ_WITHIN_S)
        try:
            self._serial.open()
        except OSError as why:
            self._serial.close()
            raise UsageError(line.why_not(port, why)) from why

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self._serial.close()

    def gives_prompt(self) -> bool:
        """Whether there is a REPL. What is printed meanwhile is kept for lines(). Raises PortGone."""
        end = time.monotonic() + PROMPT_WITHIN_S
        self.send(KNOCK)
        while time.monotonic() < end:
            self._pending += self._read()
            if PROMPT in self._pending[-MAX_LINE_BYTES:]:
                return True
        return False

    def send(self, data: bytes) -> None:
        """Raises PortGone."""
        try:
            self._serial.write(data, timeout=PROMPT_WITHIN_S)
        except OSError as why:
            raise self._gone(why) from why

    def lines(self, within_s: float | None) -> Iterator[str]:
        """What it prints, line by line, for so long; None: for ever. Raises PortGone."""
        end = None if within_s is None else time.monotonic() + within_s
        while end is None or time.monotonic() < end:
            *whole, self._pending = (self._pending + self._read()).split(b"\n")
            for one in whole:
                if not self._too_long and len(one) <= MAX_LINE_BYTES:
                    yield one.decode(errors="replace").strip()
                self._too_long = False
            if len(self._pending) > MAX_LINE_BYTES:
                self._pending, self._too_long = b"", True

    def _read(self) -> bytes:
        try:
            return bytes(self._serial.read(line.READ_BYTES))
        except OSError as why:
            raise self._gone(why) from why

    def _gone(self, why: OSError) -> PortGone:
        return PortGone(f"{self.port} has gone away ({why}): plug the board in again and repeat the command.")
