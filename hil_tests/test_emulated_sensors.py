"""The emulated sensors answer as their data sheets say: registers, times, check bytes, and the world's values."""

import struct
from collections.abc import Callable

import pytest

from laterne_emulator.bosch import Bme280, Bmp280, Calibration
from laterne_emulator.i2c import Bus, NoAcknowledge
from laterne_emulator.sensors import Bh1750, Sensor, Sht4x, Veml7700, crc8
from laterne_emulator.world import DAY_S, NOISE, Fault, Probe, Quantity, World


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world() -> World:
    world = World(now=lambda: 0.0)
    world.hold(Quantity.TEMPERATURE, 21.5)
    world.hold(Quantity.HUMIDITY, 55.0)
    world.hold(Quantity.PRESSURE, 99_500.0)
    world.hold(Quantity.ILLUMINANCE, 800.0)
    return world


@pytest.fixture
def probe(world: World) -> Probe:
    return Probe(world, "seed")


def near(quantity: Quantity, value: float) -> object:
    return pytest.approx(value, abs=6 * NOISE[quantity])


# --- SHT4x --------------------------------------------------------------------------------------


def test_crc8_gives_the_example_of_the_data_sheet() -> None:
    assert crc8(b"\xbe\xef") == 0x92


def test_sht4x_measures_temperature_and_humidity_with_check_bytes(probe: Probe, clock: Clock) -> None:
    chip = Sht4x(probe, clock=clock)
    chip.write(b"\xfd")
    with pytest.raises(NoAcknowledge):
        chip.read(6)
    clock.now = 0.0083
    answer = chip.read(6)
    assert answer[2] == crc8(answer[0:2])
    assert answer[5] == crc8(answer[3:5])
    temperature, humidity = struct.unpack(">HxHx", answer)
    assert -45 + 175 * temperature / 65535 == near(Quantity.TEMPERATURE, 21.5)
    assert -6 + 125 * humidity / 65535 == near(Quantity.HUMIDITY, 55.0)
    assert probe.served == 2
    with pytest.raises(NoAcknowledge):
        chip.read(6)  # a result is read once


def test_sht4x_tells_its_serial_number_and_takes_a_soft_reset(probe: Probe, clock: Clock) -> None:
    chip = Sht4x(probe, serial=0xDEADBEEF, clock=clock)
    chip.write(b"\x89")
    assert chip.read(6) == b"\xde\xad" + bytes([crc8(b"\xde\xad")]) + b"\xbe\xef\x92"
    chip.write(b"\x94")
    with pytest.raises(NoAcknowledge):
        chip.write(b"\xfd")
    clock.now = 0.001
    chip.write(b"\xfd")
    assert probe.served == 0


def test_sht4x_with_bad_check_bytes_serves_no_reading(probe: Probe, clock: Clock) -> None:
    probe.fault = Fault.BAD_CRC
    chip = Sht4x(probe, clock=clock)
    chip.write(b"\xe0")
    clock.now = 1.0
    answer = chip.read(6)
    assert answer[2] != crc8(answer[0:2])
    assert probe.served == 0


# --- BMP280 and BME280 --------------------------------------------------------------------------


def test_the_compensation_gives_the_example_of_the_data_sheet() -> None:
    calibration = Calibration()
    fine = calibration.fine_temperature(519888)
    assert fine / 5120 == pytest.approx(25.08, abs=0.005)
    assert calibration.pressure_pa(415148, fine) == pytest.approx(100653.27, abs=0.05)


def _read_registers(chip: Bmp280, register: int, length: int) -> bytes:
    chip.write(bytes([register]))
    return chip.read(length)


def _integer_compensation(calibration: bytes, raw_p: int, raw_t: int) -> tuple[float, float]:
    """(degrees, pascal): the data sheet's integer arithmetic, as a driver on a board does it (BMP280, 3.11.3)."""
    t1, t2, t3, p1, p2, p3, p4, p5, p6, p7, p8, p9 = struct.unpack("<HhhHhhhhhhhh", calibration)
    var1 = (((raw_t >> 3) - (t1 << 1)) * t2) >> 11
    var2 = (((((raw_t >> 4) - t1) * ((raw_t >> 4) - t1)) >> 12) * t3) >> 14
    fine = var1 + var2
    a = fine - 128000
    b = a * a * p6 + ((a * p5) << 17) + (p4 << 35)
    a = ((a * a * p3) >> 8) + ((a * p2) << 12)
    a = (((1 << 47) + a) * p1) >> 33
    p = (((1048576 - raw_p) << 31) - b) * 3125 // a
    p = ((p + ((p9 * (p >> 13) * (p >> 13)) >> 25) + ((p8 * p) >> 19)) >> 8) + (p7 << 4)
    return ((fine * 5 + 128) >> 8) / 100, p / 256


def test_bmp280_gives_the_worlds_pressure_to_a_driver_with_integers(probe: Probe, clock: Clock) -> None:
    chip = Bmp280(probe, clock=clock)
    assert _read_registers(chip, 0xD0, 1) == b"\x58"
    calibration = _read_registers(chip, 0x88, 24)
    chip.write(b"\xf4\x25")  # one sample each, forced
    assert _read_registers(chip, 0xF3, 1)[0] & 8
    clock.now = 0.01
    assert not _read_registers(chip, 0xF3, 1)[0] & 8
    data = _read_registers(chip, 0xF7, 6)
    raw_p, raw_t = int.from_bytes(data[:3], "big") >> 4, int.from_bytes(data[3:], "big") >> 4
    degrees, pascal = _integer_compensation(calibration, raw_p, raw_t)
    assert degrees == near(Quantity.TEMPERATURE, 21.5)
    assert pascal == near(Quantity.PRESSURE, 99_500.0)
    assert probe.served == 1
    _read_registers(chip, 0xF7, 6)
    assert probe.served == 1, "the same measurement is no second reading"
    assert _read_registers(chip, 0xF4, 1)[0] & 3 == 0, "after a forced measurement it sleeps"


def test_bme280_measures_humidity_when_it_is_asked_to(probe: Probe, clock: Clock) -> None:
    chip = Bme280(probe, clock=clock)
    assert _read_registers(chip, 0xD0, 1) == b"\x60"
    chip.write(b"\xf2\x01\xf4\x25")  # two registers in one transfer
    clock.now = 0.02
    data = _read_registers(chip, 0xF7, 8)
    calibration = Calibration()
    fine = calibration.fine_temperature(int.from_bytes(data[3:6], "big") >> 4)
    humidity = calibration.humidity_percent(int.from_bytes(data[6:8], "big"), fine)
    assert humidity == near(Quantity.HUMIDITY, 55.0)
    high = _read_registers(chip, 0xE1, 7)
    h4, h5 = high[3] << 4 | high[4] & 0xF, high[5] << 4 | high[4] >> 4
    assert (struct.unpack("<hB", high[:3]), h4, h5, high[6]) == ((362, 0), 313, 50, 30)


# --- light --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "counts_per_lux"), [(0x20, 1.2), (0x21, 2.4), (0x10, 1.2)])
def test_bh1750_has_its_result_after_its_measuring_time(
    probe: Probe, clock: Clock, command: int, counts_per_lux: float
) -> None:
    chip = Bh1750(probe, clock=clock)
    chip.write(bytes([command]))
    assert chip.read(2) == b"\0\0"
    assert probe.served == 0
    clock.now = 0.18
    assert int.from_bytes(chip.read(2), "big") / counts_per_lux == near(Quantity.ILLUMINANCE, 800.0)
    assert probe.served == 1
    chip.read(2)
    assert probe.served == (2 if command == 0x10 else 1), "one-time measurements power down"


def test_bh1750_with_a_longer_measuring_time_is_more_sensitive(probe: Probe, clock: Clock) -> None:
    chip = Bh1750(probe, clock=clock)
    chip.write(bytes([0x40 | 138 >> 5]))
    chip.write(bytes([0x60 | 138 & 0x1F]))
    chip.write(b"\x20")
    clock.now = 0.18
    assert chip.read(2) == b"\0\0"  # it takes twice as long
    clock.now = 0.36
    assert int.from_bytes(chip.read(2), "big") / 2.4 == near(Quantity.ILLUMINANCE, 800.0)


@pytest.mark.parametrize(
    ("bits", "lux_per_count", "light"),
    [(0x0000, 0.0672, 800.0), (0x1000, 0.5376, 800.0), (0x1300, 2.1504, 60_000.0)],
)
def test_veml7700_counts_by_gain_and_time_and_shows_bright_light_too_low(
    world: World, probe: Probe, clock: Clock, bits: int, lux_per_count: float, light: float
) -> None:
    world.hold(Quantity.ILLUMINANCE, light)
    chip = Veml7700(probe, clock=clock)
    chip.write(b"\x07")
    assert chip.read(2)[0] == 0x81
    chip.write(b"\x00" + bits.to_bytes(2, "little"))
    chip.write(b"\x04")
    assert chip.read(2) == b"\0\0"
    clock.now = 0.2
    x = int.from_bytes(chip.read(2), "little") * lux_per_count
    if light > 1000:
        x = 6.0135e-13 * x**4 - 9.3924e-9 * x**3 + 8.1488e-5 * x**2 + 1.0023 * x  # application note 84323
    assert x == pytest.approx(light, abs=3 * lux_per_count + 6 * NOISE[Quantity.ILLUMINANCE])
    assert probe.served == 1


# --- world and faults ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Sht4x, Bmp280, Bme280, Bh1750, Veml7700])
def test_a_missing_sensor_acknowledges_nothing(probe: Probe, make: Callable[[Probe], Sensor]) -> None:
    chip = make(probe)
    bus = Bus({chip.ADDRESS: chip})
    assert bus.scan() == bytes([chip.ADDRESS])
    probe.fault = Fault.MISSING
    assert bus.scan() == b""
    for transfer in ((b"\xfd", 0), (b"", 2)):
        assert bus.transfer(chip.ADDRESS, *transfer)[0] != 0


def test_a_stuck_sensor_repeats_its_last_value(world: World, probe: Probe) -> None:
    first = probe.measure(Quantity.TEMPERATURE)
    probe.fault = Fault.STUCK
    world.hold(Quantity.TEMPERATURE, 30.0)
    assert probe.measure(Quantity.TEMPERATURE) == first
    probe.fault = Fault.NONE
    assert probe.measure(Quantity.TEMPERATURE) == near(Quantity.TEMPERATURE, 30.0)


def test_the_same_seed_gives_the_same_noise(world: World) -> None:
    def series(seed: str) -> list[float]:
        probe = Probe(world, seed)
        return [probe.measure(Quantity.PRESSURE) for _ in range(20)]

    assert series("a") == series("a") != series("b")


def test_the_day_is_warm_and_light_and_the_night_is_not() -> None:
    hour = 0.0
    world = World(now=lambda: hour / 24 * DAY_S)
    by_hour = {}
    for hour in (3.0, 15.0):
        by_hour[hour] = {quantity: world.true_value(quantity) for quantity in Quantity}
    assert by_hour[15.0][Quantity.TEMPERATURE] > by_hour[3.0][Quantity.TEMPERATURE] + 5
    assert by_hour[15.0][Quantity.ILLUMINANCE] > 1000 > 50 > by_hour[3.0][Quantity.ILLUMINANCE]
    assert by_hour[15.0][Quantity.HUMIDITY] < by_hour[3.0][Quantity.HUMIDITY]
