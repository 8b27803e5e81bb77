"""Which sensors a board has: found by asking the bus, remembered on flash. Needed once, then unloaded.

A sensor that was there at an earlier start and is gone now is missed, not forgotten: its readings are MISSING.
"""

from micropython import const

from laterne_firmware.memory import unload
from laterne_firmware.sensors import SensorError
from laterne_firmware.sensors.fitted import Sensor
from laterne_firmware.store import Record
from laterne_protocol import cbor, fields
from laterne_protocol.errors import WireError
from laterne_protocol.quantities import QUANTITIES_A_SENSOR_KIND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from machine import I2C

    from laterne_firmware.sensors.fitted import Driver

    class Module(Protocol):
        __name__: str

        @property
        def NAME(self) -> str: ...
        @property
        def QUANTITIES(self) -> "tuple[int, ...]": ...

        def Driver(self, i2c: I2C, address: int) -> Driver: ...


_SHT4X = const(1)  # these numbers stand on flash
_BMX280 = const(2)
_BH1750 = const(3)
_VEML7700 = const(4)
_PLACES = (
    (_SHT4X, 0x44),
    (_SHT4X, 0x45),
    (_SHT4X, 0x46),
    (_BMX280, 0x76),
    (_BMX280, 0x77),
    (_BH1750, 0x23),
    (_BH1750, 0x5C),
    (_VEML7700, 0x10),
)
MAX_SENSORS = 8
_PATH = "/sensors"


def find(i2c: "I2C", log: "Callable[[str], None]") -> "list[Sensor]":
    """Asks the bus; what is new is recorded. Takes some milliseconds for each address. log: a line for each one."""
    known = _known(log)
    acknowledged = i2c.scan()
    new = []
    for place in _PLACES:
        if place not in known and place[1] in acknowledged and _answers(i2c, log, place):
            new.append(place)
    found = (known + new)[:MAX_SENSORS]
    sensors = []
    taken = set()  # type: set[int]
    for kind, address in found:
        module = _driver(kind)
        numbers = []
        for quantity in module.QUANTITIES:
            while quantity in taken:
                quantity += QUANTITIES_A_SENSOR_KIND
            taken.add(quantity)
            numbers.append(quantity)
        sensor = Sensor(module.Driver(i2c, address), "%s at 0x%02x" % (module.NAME, address), numbers)
        log("%s, channels %s" % (sensor.name, ", ".join(str(number) for number in numbers)))
        sensors.append(sensor)
    if new:
        Record(_PATH).save(cbor.encode([[kind, address] for kind, address in found]))
    if not sensors:
        log("no sensor answers; reports will be empty")
    return sensors


def _known(log: "Callable[[str], None]") -> "list[tuple[int, int]]":
    """(kind, address) of all that were ever found."""
    body = Record(_PATH).load()
    if body is None:
        return []
    known = []
    try:
        for item in fields.array(cbor.decode(body, 1024), "sensors", 0, MAX_SENSORS):
            kind, address = fields.array(item, "sensor", 2, 2)
            known.append((fields.integer(kind, "kind", _SHT4X, _VEML7700), fields.integer(address, "address", 8, 0x77)))
    except WireError as why:
        log("the record of sensors is not used: %s" % why)
        return []
    return known


def _answers(i2c: "I2C", log: "Callable[[str], None]", place: "tuple[int, int]") -> bool:
    module = _driver(place[0])
    try:
        module.Driver(i2c, place[1]).present()
    except (OSError, SensorError) as why:
        log("what answers at 0x%02x is not used: %s" % (place[1], why))
        unload(module.__name__)
        return False
    return True


def _driver(kind: int) -> "Module":
    """The driver's module: only those that are needed are in memory."""
    if kind == _SHT4X:
        from laterne_firmware.sensors import sht4x

        return sht4x
    if kind == _BMX280:
        from laterne_firmware.sensors import bmx280

        return bmx280
    if kind == _BH1750:
        from laterne_firmware.sensors import bh1750

        return bh1750
    from laterne_firmware.sensors import veml7700

    return veml7700
