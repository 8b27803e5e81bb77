"""Sensirion SHT40, SHT41, SHT45: air temperature and relative humidity.

Data sheet "SHT4x", version 6: 4.4 data transfer and checksum, 4.5 commands, 4.6 conversion.
"""

from micropython import const

from laterne_firmware.sensors import SensorError
from laterne_protocol.quantities import HUMIDITY, TEMPERATURE
from laterne_protocol.report import GOOD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machine import I2C

NAME = "SHT4x"
QUANTITIES = (TEMPERATURE, HUMIDITY)

_MEASURE = b"\xfd"  # high precision, 8.3 ms at most
_MEASURE_MS = const(10)
_SERIAL = b"\x89"
_SERIAL_MS = const(1)


class Driver:
    def __init__(self, i2c: "I2C", address: int) -> None:
        self._i2c = i2c
        self._address = address
        self._answer = bytearray(6)

    def present(self) -> None:
        import time

        self._i2c.writeto(self._address, _SERIAL)
        time.sleep_ms(_SERIAL_MS)
        self._words()

    def start(self) -> int:
        self._i2c.writeto(self._address, _MEASURE)
        return _MEASURE_MS

    def read(self) -> "list[tuple[int | None, int]]":
        temperature, humidity = self._words()
        # 4.6: T = -45 + 175 S/65535 degrees, RH = -6 + 125 S/65535 %, cropped to 0..100; here in hundredths.
        hundredths = _rounded(12500 * humidity) - 600
        return [(_rounded(17500 * temperature) - 4500, GOOD), (max(0, min(10000, hundredths)), GOOD)]

    def _words(self) -> "tuple[int, int]":
        answer = self._answer
        self._i2c.readfrom_into(self._address, answer)
        for at in (0, 3):
            if checksum(answer[at : at + 2]) != answer[at + 2]:
                raise SensorError("the checksum is wrong")
        return answer[0] << 8 | answer[1], answer[3] << 8 | answer[4]


def _rounded(product: int) -> int:
    return (product + 32767) // 65535


def checksum(data: "bytes | bytearray") -> int:
    """4.4: CRC-8, polynomial 0x31, initial value 0xFF; of 0xBE 0xEF it is 0x92."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return crc
