"""The sensors of this board: found by asking the bus, remembered on flash, given up on for a while when they fail.

A sensor that was there at an earlier start and is gone now is missed, not forgotten: its readings are MISSING.
"""

import asyncio

from laterne_firmware.sensors import SensorError, bh1750, bmx280, sht4x, veml7700
from laterne_firmware.store import Record
from laterne_protocol import cbor, channels, fields
from laterne_protocol.errors import WireError
from laterne_protocol.report import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machine import I2C

_KINDS = {1: sht4x, 2: bmx280, 3: bh1750, 4: veml7700}  # the number is what stands on flash
_FIRST_PAUSE_ROWS, _LONGEST_PAUSE_ROWS = 1, 64
MAX_SENSORS = 8


class Sensor:
    """One sensor. kind: a key of _KINDS. address: on the bus. channels: of its readings."""

    def __init__(self, i2c: "I2C", kind: int, address: int, channels: "list[int]") -> None:
        self.kind = kind
        self.address = address
        self.name = "%s at 0x%02x" % (_KINDS[kind].NAME, address)
        self.channels = channels
        self._driver = _KINDS[kind].Driver(i2c, address)
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
        found = list(known)
        for kind in sorted(_KINDS):
            for address in _KINDS[kind].ADDRESSES:
                if (kind, address) not in known and len(found) < MAX_SENSORS and self._answers(kind, address):
                    found.append((kind, address))
        taken = set()  # type: set[int]
        for kind, address in found:
            numbers = []
            for quantity in _KINDS[kind].QUANTITIES:
                while quantity in taken:
                    quantity += channels.QUANTITIES_A_SENSOR_KIND
                taken.add(quantity)
                numbers.append(quantity)
            self.sensors.append(Sensor(self._i2c, kind, address, numbers))
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
                if kind in _KINDS:
                    known.append((kind, fields.integer(address, "address", 8, 0x77)))
        except WireError as why:
            self._log("the record of sensors is not used: %s" % why)
            return []
        return known

    def _answers(self, kind: int, address: int) -> bool:
        try:
            _KINDS[kind].Driver(self._i2c, address).present()
        except (OSError, SensorError):
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
