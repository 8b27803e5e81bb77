"""The sensors of this board at work: one row of readings after the other, given up on for a while when they fail.

Which ones there are, `probing` finds out.
"""

import asyncio

from micropython import const

from laterne_firmware.sensors import SensorError
from laterne_protocol.report import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Driver(Protocol):
        """What the drivers have in common (laterne_firmware/sensors/__init__.py)."""

        def present(self) -> None: ...
        def start(self) -> int: ...
        def read(self) -> "list[tuple[int | None, int]]": ...


_FIRST_PAUSE_ROWS = const(1)
_LONGEST_PAUSE_ROWS = const(64)


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
        self.told = False  # the technician knows that it fails

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


async def row(sensors: "list[Sensor]", log: "Callable[[str], None]") -> "list[tuple[int, int | None, int]]":
    """One reading of every channel: (channel, value or None, quality). log: told who fails or works again."""
    wait_ms = 0
    for sensor in sensors:
        wait_ms = max(wait_ms, sensor.start())
    await asyncio.sleep_ms(wait_ms)
    readings = []
    for sensor in sensors:
        readings.extend(sensor.read())
        if bool(sensor.failing) != sensor.told:
            sensor.told = not sensor.told
            log("%s fails: %s" % (sensor.name, sensor.failing) if sensor.told else "%s works again" % sensor.name)
    return readings
