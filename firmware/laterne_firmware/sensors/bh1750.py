"""Rohm BH1750FVI: illuminance.

Data sheet "BH1750FVI", 2011.11 rev. D: instruction set (page 5), measurement times (page 2), counts and lux (page 7),
slave address (page 10). The part has no number of its own: whoever acknowledges at its address is taken for it.
"""

from micropython import const

from laterne_protocol.quantities import ILLUMINANCE
from laterne_protocol.report import GOOD, SUSPECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import I2C

NAME = "BH1750"
QUANTITIES = (ILLUMINANCE,)

_POWER_ON = b"\x01"
_ONE_TIME_HIGH_RESOLUTION = b"\x20"  # 1 lx, powers down by itself
_MEASURE_MS = const(185)  # 180 ms at most
_SATURATED = const(0xFFFF)


class Driver:
    def __init__(self, i2c: "I2C", address: int) -> None:
        self._i2c = i2c
        self._address = address
        self._answer = bytearray(2)

    def present(self) -> None:
        self._i2c.writeto(self._address, _POWER_ON)

    def start(self) -> int:
        self._i2c.writeto(self._address, _ONE_TIME_HIGH_RESOLUTION)
        return _MEASURE_MS

    def read(self) -> "list[tuple[int | None, int]]":
        self._i2c.readfrom_into(self._address, self._answer)
        count = self._answer[0] << 8 | self._answer[1]
        # Lux = count / 1.2; in tenths count x 25/3. Above 54,612 lx it says no more than "very bright".
        return [((count * 25 + 1) // 3, SUSPECT if count == _SATURATED else GOOD)]
