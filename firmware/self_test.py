"""Do the parts of a board work with this release? Run by `laterne flash` when everything but main.py is on flash.

Never on flash itself: it travels in the base of the release, so that it knows its modules by their names. Prints one
line of literals: the sensors' names, and one reading of each channel as (channel, value or None, quality).
"""

import asyncio
import sys

sys.path.insert(0, "/a")
from laterne_firmware import board
from laterne_firmware.sensors import fitted, probing


def self_test() -> None:
    said = []  # type: list[str]
    sensors = probing.find(board.i2c(), said.append)
    readings = asyncio.run(fitted.row(sensors, said.append))
    print([[sensor.name for sensor in sensors], readings])


self_test()
