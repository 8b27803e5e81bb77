"""The numbers of the quantities that sensors measure; `channels` says what they mean (protocol/README.md, 6.3)."""

QUANTITIES_A_SENSOR_KIND = 32  # the second sensor of a quantity has its number + 32
TEMPERATURE, HUMIDITY, PRESSURE, ILLUMINANCE = 1, 2, 3, 4
