"""The street that the emulated sensors measure: a day, its sun, its weather. Any value can be held from outside."""

import math
import random
import time
from collections.abc import Callable
from enum import Enum

DAY_S = 86_400.0


class Quantity(Enum):
    """What can be measured, each with its unit."""

    TEMPERATURE = "temperature"  # degrees Celsius
    HUMIDITY = "humidity"  # % relative
    PRESSURE = "pressure"  # Pa
    ILLUMINANCE = "illuminance"  # lux


# Standard deviation of one measurement, in the quantity's unit: of the order the data sheets give.
NOISE = {
    Quantity.TEMPERATURE: 0.04,
    Quantity.HUMIDITY: 0.08,
    Quantity.PRESSURE: 2.0,
    Quantity.ILLUMINANCE: 0.5,
}
SMALLEST = {Quantity.TEMPERATURE: -40.0, Quantity.HUMIDITY: 0.0, Quantity.PRESSURE: 30_000.0, Quantity.ILLUMINANCE: 0.0}
LARGEST = {
    Quantity.TEMPERATURE: 85.0,
    Quantity.HUMIDITY: 100.0,
    Quantity.PRESSURE: 110_000.0,
    Quantity.ILLUMINANCE: 120_000.0,
}


class World:
    """One street. `now` gives UTC seconds; `day_s` is how long a day takes, so that a minute may hold one."""

    def __init__(self, now: Callable[[], float] = time.time, day_s: float = DAY_S) -> None:
        self._now = now
        self._day_s = day_s
        self._held: dict[Quantity, float] = {}

    def hold(self, quantity: Quantity, value: float | None) -> None:
        """Fix a value from now on; None lets it follow the day again."""
        if value is None:
            self._held.pop(quantity, None)
        else:
            self._held[quantity] = value

    def true_value(self, quantity: Quantity) -> float:
        if quantity in self._held:
            return self._held[quantity]
        days = self._now() / self._day_s
        hour = days % 1.0 * 24.0
        warmth = math.cos((hour - 15.0) / 24.0 * math.tau)  # warmest at 15 h
        match quantity:
            case Quantity.TEMPERATURE:
                return 12.0 + 6.0 * warmth + 2.0 * math.sin(days / 5.3 * math.tau)
            case Quantity.HUMIDITY:
                return 68.0 - 18.0 * warmth
            case Quantity.PRESSURE:
                return 101_000.0 + 900.0 * math.sin(days / 3.7 * math.tau)
            case Quantity.ILLUMINANCE:
                sun = math.sin((hour - 6.0) / 12.0 * math.pi)  # up from 6 to 18 h
                return 12.0 + 60_000.0 * math.pow(max(0.0, sun), 1.3)  # at night the lamps give 12 lux


class Fault(Enum):
    """How a sensor fails."""

    NONE = "none"
    MISSING = "missing"  # it acknowledges nothing
    SILENT = "silent"  # it takes commands and never has a result
    BAD_CRC = "bad crc"  # its check bytes are wrong (SHT4x; others have none and ignore it)
    STUCK = "stuck"  # it repeats its last values


class Probe:
    """What one sensor feels: the world with its own noise, its fault, and the count of readings it gave away."""

    def __init__(self, world: World, seed: str) -> None:
        self.fault = Fault.NONE
        self.served = 0  # readings that the board could read, undamaged
        self._world = world
        self._dice = random.Random(seed)
        self._last: dict[Quantity, float] = {}

    def measure(self, quantity: Quantity) -> float:
        """One measurement, within what the sensors can show."""
        if self.fault is Fault.STUCK and quantity in self._last:
            return self._last[quantity]
        value = self._dice.gauss(self._world.true_value(quantity), NOISE[quantity])
        value = min(max(value, SMALLEST[quantity]), LARGEST[quantity])
        self._last[quantity] = value
        return value
