"""What a channel's number means: one quantity of one sensor, its unit, and where the decimal point of its integers is.

A reading is an integer; its value is integer x 10**exponent in the unit (UCUM). A second sensor of the same
quantity on a board has the quantity's number + 32, a third + 64, and so on (protocol/README.md, 6.3).
"""

QUANTITIES_A_SENSOR_KIND = 32

# number: (name, UCUM unit, exponent)
QUANTITIES = {
    1: ("air temperature", "Cel", -2),
    2: ("relative humidity", "%", -2),
    3: ("air pressure", "Pa", 0),
    4: ("illuminance", "lx", -1),
}
TEMPERATURE, HUMIDITY, PRESSURE, ILLUMINANCE = 1, 2, 3, 4


def describe(channel: int) -> "tuple[str, str, int]":
    """(name, UCUM unit, exponent) of a channel; a channel we do not know is ("channel N", "1", 0)."""
    number = channel % QUANTITIES_A_SENSOR_KIND
    if number not in QUANTITIES:
        return ("channel %d" % channel, "1", 0)
    name, unit, exponent = QUANTITIES[number]
    sensor = channel // QUANTITIES_A_SENSOR_KIND
    return (name if sensor == 0 else "%s %d" % (name, sensor + 1), unit, exponent)
