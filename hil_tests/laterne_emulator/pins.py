"""Pins and analogue inputs of an emulated board: what the board drives, and what the world drives."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

# The numbers that machine.Pin uses (on_board/machine.py).
OUT = 1
PULL_UP = 1


@dataclass
class _Pin:
    mode: int = 0
    pull: int = 0
    output: int = 0
    outside: int | None = None  # what the world drives; None: nothing is connected


@dataclass
class Pins:
    """All pins of one board. `adc` maps a pin to a function that gives 0..65535; without one it reads 0."""

    adc: dict[int, Callable[[], int]] = field(default_factory=dict)
    _pins: dict[int, _Pin] = field(default_factory=dict)
    _waiting: list[tuple[int, int, "asyncio.Future[None]"]] = field(default_factory=list)

    def drive(self, pin: int, value: int | None) -> None:
        """Connect a pin to 0 or 1 from outside; None lets go of it."""
        self._pin(pin).outside = value

    def level(self, pin: int) -> int:
        """What the board would read."""
        it = self._pin(pin)
        if it.mode == OUT:
            return it.output
        if it.outside is not None:
            return it.outside
        return 1 if it.pull == PULL_UP else 0

    def output(self, pin: int) -> int | None:
        """What the board drives, None if the pin is no output."""
        it = self._pin(pin)
        return it.output if it.mode == OUT else None

    def outputs(self) -> dict[int, int]:
        return {number: it.output for number, it in sorted(self._pins.items()) if it.mode == OUT}

    async def wait_for_output(self, pin: int, value: int) -> None:
        """Return as soon as the board drives the pin to this level."""
        if self.output(pin) == value:
            return
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pin, value, changed))
        await changed

    def board_sets_mode(self, pin: int, mode: int, pull: int) -> None:
        it = self._pin(pin)
        it.mode, it.pull = mode, pull
        self._tell(pin)

    def board_writes(self, pin: int, value: int) -> None:
        self._pin(pin).output = value
        self._tell(pin)

    def reset(self) -> None:
        """The board resets: all pins are inputs again; what the world drives stays."""
        for it in self._pins.values():
            it.mode = it.pull = it.output = 0

    def _pin(self, number: int) -> _Pin:
        return self._pins.setdefault(number, _Pin())

    def _tell(self, pin: int) -> None:
        for waiting in [w for w in self._waiting if w[0] == pin and w[1] == self.output(pin)]:
            self._waiting.remove(waiting)
            if not waiting[2].done():
                waiting[2].set_result(None)
