"""The sensors of this board: found by asking the bus, remembered on flash, given up on for a while when they fail.

A sensor that was there at an earlier start and is gone now is missed, not forgotten: its readings are MISSING.
"""

import asyncio

from micropython import const

from laterne_firmware.sensors import SensorError
from laterne_firmware.store import Record
from laterne_protocol import cbor, fields, quantities
from laterne_protocol.errors import WireError
from laterne_protocol.report import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from machine import I2C

    class Driver(Protocol):
        """What the drivers have in common (laterne_firmware/sensors/__init__.py)."""

        def present(self) -> None: ...
        def start(self) -> int: ...
        def read(self) -> "list[tuple[int | None, int]]": ...

    class Module(Protocol):
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
_FIRST_PAUSE_ROWS = const(1)
_LONGEST_PAUSE_ROWS = const(64)
MAX_SENSORS = 8


class Sensor:
    """One sensor. driver: of its kind. name: for the technician. channels: of its readings."""

    def __init__(self, driver: "Driver", name: str, channels: "list[int]") -> None:
        self.name = name
        self.channels = channels
        self._driver = driver
        self._ready = False  # present() must be right before start(): a part that lost power forgets its settings
        self._pause_rows = 0
        self._rows_left = 0
        self._measuring = False
        self.failing = ""  # why, empty while it works

    def start(self) -> int:
        """Begins a measurement; milliseconds until it is there."""
        self._measuring = False
        if self._rows_left:
            self._rows_left -= 1
            return 0
        try:
            if not self._ready:
                self._driver.present()
                self._ready = True
            wait_ms = self._driver.start()
            self._measuring = True
        except (OSError, SensorError) as why:
            self._fail(why)
            return 0
        return wait_ms

    def read(self) -> "list[tuple[int, int | None, int]]":
        """(channel, value or None, quality) for each of its channels."""
        if self._measuring:
            try:
                row = self._driver.read()
                self.failing = ""
                self._pause_rows = 0
                return [(self.channels[i], row[i][0], row[i][1]) for i in range(len(row))]
            except (OSError, SensorError) as why:
                self._fail(why)
        return [(channel, None, MISSING) for channel in self.channels]

    def _fail(self, why: Exception) -> None:
        self.failing = str(why) or type(why).__name__
        self._ready = False
        self._pause_rows = min(_LONGEST_PAUSE_ROWS, max(_FIRST_PAUSE_ROWS, self._pause_rows * 2))
        self._rows_left = self._pause_rows


class Fitted:
    """All sensors of the board. log: a line for each one found, failing or working again."""

    def __init__(self, i2c: "I2C", log: "Callable[[str], None]", path: str = "/sensors") -> None:
        self._i2c = i2c
        self._log = log
        self._record = Record(path)
        self.sensors = []  # type: list[Sensor]
        self._failing = set()  # type: set[str]

    def find(self) -> None:
        """Asks the bus; what is new is recorded. Takes some milliseconds for each address."""
        known = self._known()
        found = known + [place for place in self._places() if place not in known][: MAX_SENSORS - len(known)]
        taken = set()  # type: set[int]
        for kind, address in found:
            module = _driver(kind)
            numbers = []
            for quantity in module.QUANTITIES:
                while quantity in taken:
                    quantity += quantities.QUANTITIES_A_SENSOR_KIND
                taken.add(quantity)
                numbers.append(quantity)
            name = "%s at 0x%02x" % (module.NAME, address)
            self.sensors.append(Sensor(module.Driver(self._i2c, address), name, numbers))
        if found != known:
            self._record.save(cbor.encode([[kind, address] for kind, address in found]))
        for sensor in self.sensors:
            self._log("%s, channels %s" % (sensor.name, ", ".join(str(number) for number in sensor.channels)))
        if not self.sensors:
            self._log("no sensor answers; reports will be empty")

    def _known(self) -> "list[tuple[int, int]]":
        body = self._record.load()
        if body is None:
            return []
        known = []
        try:
            for item in fields.array(cbor.decode(body, 1024), "sensors", 0, MAX_SENSORS):
                kind, address = fields.array(item, "sensor", 2, 2)
                known.append(
                    (fields.integer(kind, "kind", _SHT4X, _VEML7700), fields.integer(address, "address", 8, 0x77))
                )
        except WireError as why:
            self._log("the record of sensors is not used: %s" % why)
            return []
        return known

    def _places(self) -> "list[tuple[int, int]]":
        """(kind, address) of all that is there."""
        acknowledged = self._i2c.scan()
        return [place for place in _PLACES if place[1] in acknowledged and self._answers(place[0], place[1])]

    def _answers(self, kind: int, address: int) -> bool:
        try:
            _driver(kind).Driver(self._i2c, address).present()
        except (OSError, SensorError) as why:
            self._log("what answers at 0x%02x is not used: %s" % (address, why))
            return False
        return True

    async def row(self) -> "list[tuple[int, int | None, int]]":
        """One reading of every channel: (channel, value or None, quality)."""
        wait_ms = 0
        for sensor in self.sensors:
            wait_ms = max(wait_ms, sensor.start())
        await asyncio.sleep_ms(wait_ms)
        row = []
        for sensor in self.sensors:
            row.extend(sensor.read())
            self._tell(sensor)
        return row

    def _tell(self, sensor: Sensor) -> None:
        if sensor.failing and sensor.name not in self._failing:
            self._failing.add(sensor.name)
            self._log("%s fails: %s" % (sensor.name, sensor.failing))
        elif not sensor.failing and sensor.name in self._failing:
            self._failing.remove(sensor.name)
            self._log("%s works again" % sensor.name)


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
