"""Vishay VEML7700: illuminance, from moonlight to the sun.

Data sheet 84286: registers (tables 1 to 8). Application note 84323 "Designing the VEML7700 Into an Application":
resolution table, correction above 1,000 lx.
"""

from micropython import const

from laterne_firmware.sensors import SensorError
from laterne_protocol.quantities import ILLUMINANCE
from laterne_protocol.report import GOOD, SUSPECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import I2C

NAME = "VEML7700"
QUANTITIES = (ILLUMINANCE,)

_CONFIGURATION = const(0x00)
_LIGHT = const(0x04)
_ID = const(0x07)
_ID_LOW = const(0x81)
_SHUT_DOWN = const(0x0001)

# Bits of the configuration (gain, integration time), lux for one count in 1/10,000, integration time in ms.
_RANGES = (
    (0x0000, 672, 100),  # gain 1, 100 ms: up to 4,400 lx
    (0x1000, 5376, 100),  # gain 1/8, 100 ms: up to 35,000 lx
    (0x1300, 21504, 25),  # gain 1/8, 25 ms: up to 140,000 lx
)
_TOO_BRIGHT = const(50000)
_TOO_DARK = const(5000)  # counts: a range is 4 or 8 times as wide as the next
_SATURATED = const(0xFFFF)
_LINEAR_UP_TO = const(1000 * 10000)


class Driver:
    def __init__(self, i2c: "I2C", address: int) -> None:
        self._i2c = i2c
        self._address = address
        self._word = bytearray(2)
        self._range = 1

    def present(self) -> None:
        if self._read(_ID) & 0xFF != _ID_LOW:
            raise SensorError("device id 0x%02x" % self._word[0])

    def start(self) -> int:
        bits, _, integration_ms = _RANGES[self._range]
        self._write(_CONFIGURATION, bits | _SHUT_DOWN)
        self._write(_CONFIGURATION, bits)
        # 2.5 ms to wake up; the first integration may have begun before that, and the clock is right to 10 %.
        return 5 + integration_ms * 22 // 10

    def read(self) -> "list[tuple[int | None, int]]":
        bits, resolution, _ = _RANGES[self._range]
        count = self._read(_LIGHT)
        self._write(_CONFIGURATION, bits | _SHUT_DOWN)
        if count > _TOO_BRIGHT and self._range < len(_RANGES) - 1:
            self._range += 1
        elif count < _TOO_DARK and self._range > 0:
            self._range -= 1
        light = corrected(count * resolution)
        return [((light + 500) // 1000, SUSPECT if count == _SATURATED else GOOD)]

    def _read(self, register: int) -> int:
        self._i2c.readfrom_mem_into(self._address, register, self._word)
        return self._word[0] | self._word[1] << 8

    def _write(self, register: int, value: int) -> None:
        self._i2c.writeto_mem(self._address, register, bytes((value & 0xFF, value >> 8)))


def corrected(light: int) -> int:
    """Illuminance (1/10,000 lx) after the polynomial of the application note, which is used above 1,000 lx only.

    y = 6.0135e-13 x^4 - 9.3924e-9 x^3 + 8.1488e-5 x^2 + 1.0023 x, in whole lux times 1e17 so as to need no floats.
    """
    if light <= _LINEAR_UP_TO:
        return light
    x = light // 10000
    y = ((60135 * x - 939240000) * x + 8148800000000) * x * x + 100230000000000000 * x
    return y // 10000000000000
