"""What a channel's number means: one quantity of one sensor, its unit, and where the decimal point of its integers is.

The numbers themselves stand in `quantities`: a board needs no more. A reading is an integer; its value is
integer x 10**exponent in the unit (UCUM). A second sensor of the same quantity on a board has the quantity's
number + 32, a third + 64, and so on (protocol/README.md, 6.3).
"""

from laterne_protocol.quantities import (
    HUMIDITY,
    ILLUMINANCE,
    PRESSURE,
    QUANTITIES_A_SENSOR_KIND,
    TEMPERATURE,
)

__all__ = (
    "HUMIDITY",
    "ILLUMINANCE",
    "PRESSURE",
    "QUANTITIES",
    "QUANTITIES_A_SENSOR_KIND",
    "TEMPERATURE",
    "describe",
)

# number: (name, UCUM unit, exponent)
QUANTITIES = {
    TEMPERATURE: ("air temperature", "Cel", -2),
    HUMIDITY: ("relative humidity", "%", -2),
    PRESSURE: ("air pressure", "Pa", 0),
    ILLUMINANCE: ("illuminance", "lx", -1),
}


def describe(channel: int) -> "tuple[str, str, int]":
    """(name, UCUM unit, exponent) of a channel; a channel we do not know is ("channel N", "1", 0)."""
    number = channel % QUANTITIES_A_SENSOR_KIND
    if number not in QUANTITIES:
        return ("channel %d" % channel, "1", 0)
    name, unit, exponent = QUANTITIES[number]
    sensor = channel // QUANTITIES_A_SENSOR_KIND
    return (name if sensor == 0 else "%s %d" % (name, sensor + 1), unit, exponent)
