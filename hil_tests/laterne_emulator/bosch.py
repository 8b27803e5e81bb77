"""BMP280 and BME280: pressure, temperature and (BME280) humidity as raw numbers that only make sense with calibration.

Sources: Bosch BST-BMP280-DS001, sections 3.11 and 4; BST-BME280-DS002, sections 4.2, 5 and 9.1. The chip's raw numbers
are found by bisecting the data sheet's own compensation, so that a driver's arithmetic gives the world's values.
"""

import struct
import time
from dataclasses import dataclass

from laterne_emulator.i2c import NoAcknowledge
from laterne_emulator.sensors import Clock, raw_for
from laterne_emulator.world import Fault, Probe, Quantity

RAW_20_BITS = 1 << 20
RAW_16_BITS = 1 << 16


@dataclass(frozen=True)
class Calibration:
    """The data sheets' example coefficients (BMP280, 3.12), with typical ones for humidity."""

    t: tuple[int, int, int] = (27504, 26435, -1000)
    p: tuple[int, int, int, int, int, int, int, int, int] = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    h: tuple[int, int, int, int, int, int] = (75, 362, 0, 313, 50, 30)

    def fine_temperature(self, raw: float) -> float:
        """t_fine: 5120 for each degree."""
        t1, t2, t3 = self.t
        return (raw / 16384 - t1 / 1024) * t2 + (raw / 131072 - t1 / 8192) ** 2 * t3

    def pressure_pa(self, raw: float, fine: float) -> float:
        p1, p2, p3, p4, p5, p6, p7, p8, p9 = self.p
        x = fine / 2 - 64000
        offset = (x * x * p6 / 32768 + x * p5 * 2) / 4 + p4 * 65536
        scale = (1 + (p3 * x * x / 524288 + p2 * x) / 524288 / 32768) * p1
        p = (1048576 - raw - offset / 4096) * 6250 / scale
        return p + (p9 * p * p / 2147483648 + p * p8 / 32768 + p7) / 16

    def humidity_percent(self, raw: float, fine: float) -> float:
        h1, h2, h3, h4, h5, h6 = self.h
        x = fine - 76800
        h = raw - (h4 * 64 + h5 / 16384 * x)
        h *= h2 / 65536 * (1 + h6 / 67108864 * x * (1 + h3 / 67108864 * x))
        return h * (1 - h1 * h / 524288)

    def registers(self) -> dict[int, int]:
        """As the chip shows them: 0x88..0x9F, and for humidity 0xA1 and 0xE1..0xE7."""
        h1, h2, h3, h4, h5, h6 = self.h
        low = struct.pack("<HhhHhhhhhhhh", *self.t, *self.p)
        high = struct.pack("<hB", h2, h3) + bytes([h4 >> 4 & 0xFF, h4 & 0xF | (h5 & 0xF) << 4, h5 >> 4 & 0xFF])
        high += struct.pack("<b", h6)
        return {0x88 + i: b for i, b in enumerate(low)} | {0xA1: h1} | {0xE1 + i: b for i, b in enumerate(high)}


class Bmp280:
    """One reading (pressure) for each measurement that is read; temperature only serves its compensation."""

    ADDRESS = 0x76
    CHIP_ID = 0x58
    HAS_HUMIDITY = False
    READINGS = 1
    ID, RESET, CTRL_HUM, STATUS, CTRL_MEAS, CONFIG, RESULT = 0xD0, 0xE0, 0xF2, 0xF3, 0xF4, 0xF5, 0xF7
    RESET_WORD = 0xB6
    MEASURING = 0x08
    SLEEP, NORMAL = 0, 3  # modes; 1 and 2 are both "forced": measure once, then sleep
    SKIPPED = 0x80000  # what a channel shows that was not measured

    def __init__(self, probe: Probe, calibration: Calibration = Calibration(), clock: Clock = time.monotonic) -> None:
        self.probe = probe
        self._calibration = calibration
        self._clock = clock
        self._registers = {}  # type: dict[int, int]
        self._pointer = 0
        self._ready_at: float | None = None
        self._fresh = False
        self._power_on()

    def write(self, data: bytes) -> None:
        if self.probe.fault is Fault.MISSING:
            raise NoAcknowledge
        if len(data) == 1:
            self._pointer = data[0]
        # Several registers are written as pairs of address and value (BMP280, 5.2.1).
        for register, value in zip(data[::2], data[1::2], strict=False):
            self._set(register, value)

    def read(self, length: int) -> bytes:
        if self.probe.fault is Fault.MISSING:
            raise NoAcknowledge
        self._finish()
        first, self._pointer = self._pointer, self._pointer + length
        if first <= self.RESULT < first + length and self._fresh and self.probe.fault is not Fault.SILENT:
            self.probe.served += self.READINGS
            self._fresh = self._mode == self.NORMAL
        return bytes(self._registers.get(register, 0) for register in range(first, first + length))

    @property
    def _mode(self) -> int:
        return self._registers[self.CTRL_MEAS] & 3

    def _power_on(self) -> None:
        self._registers = dict.fromkeys(range(0x88, 0x100), 0) | self._calibration.registers()
        self._registers[self.ID] = self.CHIP_ID
        self._show(self.SKIPPED, self.SKIPPED, 0x8000)
        self._ready_at, self._fresh = None, False

    def _set(self, register: int, value: int) -> None:
        if register == self.RESET and value == self.RESET_WORD:
            self._power_on()
        elif register in (self.CTRL_HUM, self.CONFIG):
            self._registers[register] = value
        elif register == self.CTRL_MEAS:
            self._registers[register] = value
            if value & 3:
                self._ready_at = self._clock() + self._measuring_s()
                self._registers[self.STATUS] |= self.MEASURING

    def _oversampling(self) -> tuple[int, int, int]:
        """(temperature, pressure, humidity): 0 is skipped."""
        control = self._registers[self.CTRL_MEAS]
        steps = (control >> 5, control >> 2 & 7, self._registers[self.CTRL_HUM] & 7 if self.HAS_HUMIDITY else 0)
        temperature, pressure, humidity = (0 if step == 0 else 1 << min(step, 5) - 1 for step in steps)
        return temperature, pressure, humidity

    def _measuring_s(self) -> float:
        # BME280, 9.1, the longest: 1.25 ms, 2.3 ms for each sample, 0.575 ms each for pressure and humidity
        temperature, pressure, humidity = self._oversampling()
        samples = temperature + pressure + humidity
        return (1.25 + 2.3 * samples + 0.575 * (bool(pressure) + bool(humidity))) / 1000

    def _finish(self) -> None:
        """Put the results into the registers if a measurement has ended since the last look."""
        if self._ready_at is None or self._clock() < self._ready_at or self.probe.fault is Fault.SILENT:
            return
        temperature, pressure, humidity = self._oversampling()
        calibration = self._calibration
        degrees = self.probe.measure(Quantity.TEMPERATURE)
        raw_t = raw_for(degrees * 5120, calibration.fine_temperature, RAW_20_BITS)
        fine = calibration.fine_temperature(raw_t)
        raw_p, raw_h = self.SKIPPED, 0x8000
        if pressure:
            wanted = self.probe.measure(Quantity.PRESSURE)
            raw_p = raw_for(wanted, lambda raw: calibration.pressure_pa(raw, fine), RAW_20_BITS)
        if humidity:
            wanted = self.probe.measure(Quantity.HUMIDITY)
            raw_h = raw_for(wanted, lambda raw: calibration.humidity_percent(raw, fine), RAW_16_BITS)
        self._show(raw_p, raw_t if temperature else self.SKIPPED, raw_h)
        self._fresh = bool(pressure)
        if self._mode == self.NORMAL:
            self._ready_at = self._clock() + self._measuring_s()
        else:
            self._ready_at = None
            self._registers[self.CTRL_MEAS] &= ~3
        self._registers[self.STATUS] &= ~self.MEASURING

    def _show(self, pressure: int, temperature: int, humidity: int) -> None:
        shown = (pressure << 4).to_bytes(3, "big") + (temperature << 4).to_bytes(3, "big")
        if self.HAS_HUMIDITY:
            shown += humidity.to_bytes(2, "big")
        self._registers.update({self.RESULT + i: byte for i, byte in enumerate(shown)})


class Bme280(Bmp280):
    """With humidity. It still counts one reading: of this chip the firmware reports pressure."""

    CHIP_ID = 0x60
    HAS_HUMIDITY = True
