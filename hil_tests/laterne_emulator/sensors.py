"""Sensors as their data sheets describe them: commands, registers, measuring times, check bytes.

SHT4x (Sensirion, data sheet version 6.5, section 4), BH1750FVI (ROHM, 2011.11 rev. D), VEML7700 (Vishay 84286 with
application note 84323). The Bosch pressure sensors stand in bosch.py.
"""

import time
from collections.abc import Callable
from typing import ClassVar, Protocol

from laterne_emulator.i2c import Device, NoAcknowledge
from laterne_emulator.world import Fault, Probe, Quantity

Clock = Callable[[], float]


class Sensor(Device, Protocol):
    """A chip that measures the world."""

    ADDRESS: int
    probe: Probe


def crc8(data: bytes) -> int:
    """Sensirion's CRC: polynomial 0x31, initial value 0xFF, no reflection; 0xBEEF gives 0x92 (SHT4x, 4.4)."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def raw_for(value: float, formula: Callable[[float], float], size: int) -> int:
    """The raw number of which a monotonic formula makes this value, as near as the number's steps allow."""
    rising = formula(size - 1) > formula(0)
    low, high = 0, size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if (formula(middle) < value) == rising:
            low = middle
        else:
            high = middle
    return min(low, high, key=lambda raw: abs(formula(raw) - value))


class Sht4x:
    """Temperature and humidity: two readings for each result."""

    ADDRESS = 0x44
    # command -> seconds until the result is there, the longest in the data sheet's table 4
    MEASURE_S: ClassVar = {0xFD: 0.0083, 0xF6: 0.0045, 0xE0: 0.0016}
    # with the heater: command -> seconds of heating, then a measurement of high precision
    HEAT_S: ClassVar = {0x39: 1.0, 0x32: 0.1, 0x2F: 1.0, 0x24: 0.1, 0x1E: 1.0, 0x15: 0.1}
    SERIAL, SOFT_RESET = 0x89, 0x94
    SOFT_RESET_S = 0.001

    def __init__(self, probe: Probe, serial: int = 0x0F4A1234, clock: Clock = time.monotonic) -> None:
        self.probe = probe
        self._serial = serial
        self._clock = clock
        self._ready_at = 0.0
        self._result: bytes | None = None
        self._readings = 0  # in the result

    def write(self, data: bytes) -> None:
        if self.probe.fault is Fault.MISSING or self._clock() < self._ready_at:
            raise NoAcknowledge  # also while it measures: it acknowledges no other command
        if not data:
            return
        command = data[0]
        if command in self.MEASURE_S or command in self.HEAT_S:
            self._ready_at = self._clock() + self.MEASURE_S.get(command, 0.0083) + self.HEAT_S.get(command, 0.0)
            temperature = self.probe.measure(Quantity.TEMPERATURE)
            humidity = self.probe.measure(Quantity.HUMIDITY)
            # T = -45 + 175 * S / 65535, RH = -6 + 125 * S / 65535 (4.6)
            self._result = self._words(
                round((temperature + 45) / 175 * 65535), min(65535, round((humidity + 6) / 125 * 65535))
            )
            self._readings = 0 if self.probe.fault is Fault.BAD_CRC else 2  # the check bytes are damaged by now
        elif command == self.SERIAL:
            self._result, self._readings = self._words(self._serial >> 16, self._serial & 0xFFFF), 0
        elif command == self.SOFT_RESET:
            self._result, self._ready_at = None, self._clock() + self.SOFT_RESET_S
        else:
            raise NoAcknowledge

    def read(self, length: int) -> bytes:
        if self.probe.fault in (Fault.MISSING, Fault.SILENT):
            raise NoAcknowledge
        if self._result is None or self._clock() < self._ready_at:
            raise NoAcknowledge
        result, self._result = self._result, None
        if length >= len(result):
            self.probe.served += self._readings
        return result[:length].ljust(length, b"\xff")

    def _words(self, first: int, second: int) -> bytes:
        out = b""
        for word in (first, second):
            data = word.to_bytes(2, "big")
            out += data + bytes([crc8(data) ^ (0x55 if self.probe.fault is Fault.BAD_CRC else 0)])
        return out


class Bh1750:
    """Illuminance, one reading for each result: one-time or continuous, high resolution 1 and 2, low."""

    ADDRESS = 0x23
    POWER_DOWN, POWER_ON, RESET = 0x00, 0x01, 0x07
    # command -> (counts for a lux at the default sensitivity, longest measuring time in seconds)
    MODES: ClassVar = {
        0x10: (1.2, 0.180), 0x11: (2.4, 0.180), 0x13: (1.2, 0.024),
        0x20: (1.2, 0.180), 0x21: (2.4, 0.180), 0x23: (1.2, 0.024),
    }  # fmt: skip
    ONE_TIME = 0x20
    DEFAULT_SENSITIVITY = 69  # MTreg

    def __init__(self, probe: Probe, clock: Clock = time.monotonic) -> None:
        self.probe = probe
        self._clock = clock
        self._powered = False
        self._mode: int | None = None
        self._ready_at = 0.0
        self._sensitivity = self.DEFAULT_SENSITIVITY
        self._counts = 0

    def write(self, data: bytes) -> None:
        if self.probe.fault is Fault.MISSING:
            raise NoAcknowledge
        for command in data:
            if command in self.MODES:  # a measurement powers it on
                self._powered, self._mode = True, command
                longer = self._sensitivity / self.DEFAULT_SENSITIVITY
                self._ready_at = self._clock() + self.MODES[command][1] * longer
            elif command == self.POWER_DOWN:
                self._powered, self._mode = False, None
            elif command == self.POWER_ON:
                self._powered = True
            elif command == self.RESET:
                self._counts = 0
            elif command & 0xF8 == 0x40:  # change the measuring time, high bits
                self._sensitivity = self._sensitivity & 0x1F | (command & 0x07) << 5
            elif command & 0xE0 == 0x60:  # low bits
                self._sensitivity = self._sensitivity & 0xE0 | command & 0x1F
            else:
                raise NoAcknowledge

    def read(self, length: int) -> bytes:
        if self.probe.fault is Fault.MISSING:
            raise NoAcknowledge
        # A result that is not there yet is no error to this chip: the register holds the one before.
        done = self._mode is not None and self._clock() >= self._ready_at and self.probe.fault is not Fault.SILENT
        if done and self._mode is not None:
            counts = self.probe.measure(Quantity.ILLUMINANCE) * self.MODES[self._mode][0]
            self._counts = min(65535, round(counts * self._sensitivity / self.DEFAULT_SENSITIVITY))
            if self._mode & self.ONE_TIME:
                self._powered, self._mode = False, None
            self.probe.served += length >= 2
        return self._counts.to_bytes(2, "big")[:length].ljust(length, b"\xff")


class Veml7700:
    """Illuminance by registers of 16 bits, low byte first; one reading for each read of the ALS register."""

    ADDRESS = 0x10
    CONF, ALS, WHITE, ID = 0x00, 0x04, 0x05, 0x07
    ID_VALUE = 0xC481
    GAIN: ClassVar = {0: 1.0, 1: 2.0, 2: 0.125, 3: 0.25}  # CONF bits 12:11
    INTEGRATION_MS: ClassVar = {0xC: 25, 0x8: 50, 0x0: 100, 0x1: 200, 0x2: 400, 0x3: 800}  # CONF bits 9:6
    FINEST_LUX = 0.0042  # for a count at gain 2 and 800 ms (application note 84323)

    def __init__(self, probe: Probe, clock: Clock = time.monotonic) -> None:
        self.probe = probe
        self._clock = clock
        self._registers = {self.CONF: 0x0001, 1: 0, 2: 0, 3: 0, self.ID: self.ID_VALUE}  # it starts shut down
        self._pointer = 0
        self._ready_at = 0.0

    def write(self, data: bytes) -> None:
        if self.probe.fault is Fault.MISSING:
            raise NoAcknowledge
        if data:
            self._pointer = data[0]
        if len(data) >= 3 and self._pointer <= 3:
            self._registers[self._pointer] = data[1] | data[2] << 8
            if self._pointer == self.CONF:
                self._ready_at = self._clock() + 0.0025 + self._integration_ms / 1000

    def read(self, length: int) -> bytes:
        if self.probe.fault in (Fault.MISSING, Fault.SILENT):
            raise NoAcknowledge
        light = self._pointer in (self.ALS, self.WHITE)
        value = self._light() if light else self._registers.get(self._pointer, 0)
        return value.to_bytes(2, "little")[:length].ljust(length, b"\xff")

    @property
    def _integration_ms(self) -> int:
        return self.INTEGRATION_MS.get(self._registers[self.CONF] >> 6 & 0xF, 100)

    def _light(self) -> int:
        if self._registers[self.CONF] & 1 or self._clock() < self._ready_at:
            return 0
        gain = self.GAIN[self._registers[self.CONF] >> 11 & 3]
        lux = self.FINEST_LUX * (2.0 / gain) * (800 / self._integration_ms)
        self.probe.served += self._pointer == self.ALS
        # Above 1,000 lux the chip shows too little; drivers correct it with the application note's polynomial.
        return raw_for(self.probe.measure(Quantity.ILLUMINANCE), lambda raw: self._corrected(raw * lux), 1 << 16)

    @staticmethod
    def _corrected(lux: float) -> float:
        if lux <= 1000:
            return lux
        return ((6.0135e-13 * lux - 9.3924e-9) * lux + 8.1488e-5) * lux * lux + 1.0023 * lux
