"""Bosch BMP280 and BME280: air pressure. Their temperature is only for the compensation: it is that of the housing.

Data sheet "BMP280", revision 1.23: 3.11 compensation, 3.12 example, 4.3 registers. The BME280 (revision 1.6) has the
same registers and formulae for pressure (4.2.3, 5.4).
"""

import struct

from micropython import const

from laterne_firmware.sensors import SensorError
from laterne_protocol.quantities import PRESSURE
from laterne_protocol.report import GOOD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import I2C

NAME = "BMP280/BME280"
QUANTITIES = (PRESSURE,)

_CALIBRATION = const(0x88)
_CALIBRATION_BYTES = const(24)
_ID = const(0xD0)
_STATUS = const(0xF3)
_CONTROL = const(0xF4)
_DATA = const(0xF7)
_IDS = (0x56, 0x57, 0x58, 0x60)  # BMP280 samples and series, BME280
_FORCED = b"\x2d"  # 4.3.4: temperature x1, pressure x4, one measurement
_MEASURE_MS = const(15)  # 3.8.1: 13.3 ms at most for x1 and x4
_MEASURING = const(0x08)
_SKIPPED = const(0x80000)  # 4.3.6: the reset value, no measurement was made


class Driver:
    def __init__(self, i2c: "I2C", address: int) -> None:
        self._i2c = i2c
        self._address = address
        self._data = bytearray(6)
        self._byte = bytearray(1)
        self._calibration = ()  # type: tuple[int, ...]

    def present(self) -> None:
        self._i2c.readfrom_mem_into(self._address, _ID, self._byte)
        if self._byte[0] not in _IDS:
            raise SensorError("chip id 0x%02x" % self._byte[0])
        calibration = bytearray(_CALIBRATION_BYTES)
        self._i2c.readfrom_mem_into(self._address, _CALIBRATION, calibration)
        self._calibration = struct.unpack("<HhhHhhhhhhhh", calibration)  # 3.11.2: T1..T3, P1..P9
        if self._calibration[0] in (0, 0xFFFF) or self._calibration[3] in (0, 0xFFFF):
            raise SensorError("the calibration cannot be read")

    def start(self) -> int:
        self._i2c.writeto_mem(self._address, _CONTROL, _FORCED)
        return _MEASURE_MS

    def read(self) -> "list[tuple[int | None, int]]":
        self._i2c.readfrom_mem_into(self._address, _STATUS, self._byte)
        if self._byte[0] & _MEASURING:
            raise SensorError("the measurement does not end")
        data = self._data
        self._i2c.readfrom_mem_into(self._address, _DATA, data)
        raw_pressure = data[0] << 12 | data[1] << 4 | data[2] >> 4
        raw_temperature = data[3] << 12 | data[4] << 4 | data[5] >> 4
        if raw_pressure == _SKIPPED or raw_temperature == _SKIPPED:
            raise SensorError("no measurement was made")  # it was without power for a moment: set up again
        pressure = compensate(self._calibration, raw_temperature, raw_pressure)
        if not 30000 * 256 <= pressure <= 110000 * 256:  # table 2: what the part can measure
            raise SensorError("%d Pa is out of its range" % (pressure // 256))
        return [((pressure + 128) // 256, GOOD)]


def fine_temperature(calibration: "tuple[int, ...]", raw: int) -> int:
    """3.11.3: t_fine, 1/5120 of a degree. raw: 20 bits."""
    t1, t2, t3 = calibration[:3]
    first = ((raw >> 3) - (t1 << 1)) * t2 >> 11
    distance = (raw >> 4) - t1
    return first + ((distance * distance >> 12) * t3 >> 14)


def compensate(calibration: "tuple[int, ...]", raw_temperature: int, raw_pressure: int) -> int:
    """3.11.3, 64 bits: pressure in 1/256 Pa. raw: 20 bits each; calibration: T1..T3, P1..P9."""
    p1, p2, p3, p4, p5, p6, p7, p8, p9 = calibration[3:]
    warmth = fine_temperature(calibration, raw_temperature) - 128000
    offset = warmth * warmth * p6 + (warmth * p5 << 17) + (p4 << 35)
    scale = (warmth * warmth * p3 >> 8) + (warmth * p2 << 12)
    scale = ((1 << 47) + scale) * p1 >> 33
    if scale == 0:
        raise SensorError("the calibration cannot be right")
    pressure = (((1048576 - raw_pressure) << 31) - offset) * 3125 // scale
    second = p9 * (pressure >> 13) * (pressure >> 13) >> 25
    first = p8 * pressure >> 19
    return (pressure + second + first >> 8) + (p7 << 4)
