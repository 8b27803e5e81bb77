"""Sensors on the board's I2C bus, one module for each kind, written from its data sheet.

A driver has: NAME; QUANTITIES, what a row of readings holds (laterne_protocol.quantities); Driver(i2c, address) with
present(), which raises OSError or SensorError when it is not this part; start(), which begins a measurement and returns
after how many milliseconds it is there; read(), the row: (integer in the channel's scale or None, quality flag) for
each quantity. Whatever fails raises OSError or SensorError; `fitted` decides what becomes of it.
"""


class SensorError(Exception):
    """The sensor answered, but not with something that can be right."""
