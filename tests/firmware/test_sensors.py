"""Drivers read from registers what the data sheets say that they mean."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from tests.firmware.micropython import MicroPython, evaluate

GOOD, SUSPECT = 1, 3

# BMP280 data sheet, 3.12: the calculation example, T1..T3 and P1..P9.
CALIBRATION = struct.pack("<HhhHhhhhhhhh", 27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
RAW_TEMPERATURE, RAW_PRESSURE = 519888, 415148
EXAMPLE_PA = 100653.27


@pytest.fixture(scope="module")
def board() -> Iterator[MicroPython]:
    with MicroPython("sensors_runner.py") as interpreter:
        yield interpreter


def _row(answer: Any) -> list[tuple[int | None, int]]:
    assert isinstance(answer, list), answer
    return [(value, flag) for value, flag in answer[0][-1]]


def _bmp280(raw_temperature: int, raw_pressure: int, **registers: str) -> dict[str, object]:
    data = (raw_pressure << 4).to_bytes(3, "big") + (raw_temperature << 4).to_bytes(3, "big")
    memory = {str(0xD0): "58", str(0x88): CALIBRATION.hex(), str(0xF3): "00", str(0xF7): data.hex()}
    return {"driver": "bmx280", "present": True, "memory": memory | registers}


# SHT4x -----------------------------------------------------------------------------------------------------------


def test_the_checksum_is_the_one_of_the_data_sheet() -> None:
    assert evaluate("sht4x.checksum(b'\\xbe\\xef')", "from laterne_firmware.sensors import sht4x") == 0x92


def _word(value: int) -> str:
    crc = 0xFF
    for byte in value.to_bytes(2, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31) & 0xFF if crc & 0x80 else crc << 1
    return f"{value:04x}{crc:02x}"


@pytest.mark.parametrize(
    ("raw_temperature", "raw_humidity", "temperature", "humidity"),
    [
        (0, 0, -4500, 0),  # -6 % is cropped
        (65535, 65535, 13000, 10000),  # 119 % is cropped
        (0x6666, 0x8000, 2500, 5650),  # 25 degrees; 56.5 %
        (16852, 3146, 0, 0),
        (16851, 3147, 0, 0),
        (11235, 29359, -1500, 5000),
    ],
)
def test_an_sht4x_gives_hundredths_of_degrees_and_percent(
    board: MicroPython, raw_temperature: int, raw_humidity: int, temperature: int, humidity: int
) -> None:
    answer = board.ask({"driver": "sht4x", "reads": [_word(raw_temperature) + _word(raw_humidity)]})
    assert _row(answer) == [(temperature, GOOD), (humidity, GOOD)]
    assert answer[1:] == [["fd"], 10]


@pytest.mark.parametrize("byte", range(6))
def test_an_sht4x_reading_with_one_flipped_bit_is_refused(board: MicroPython, byte: int) -> None:
    words = bytearray.fromhex(_word(0x6666) + _word(0x8000))
    words[byte] ^= 0x10
    assert board.ask({"driver": "sht4x", "reads": [words.hex()]}) == "the checksum is wrong"


# BMP280 and BME280 -----------------------------------------------------------------------------------------------


def test_a_bmp280_gives_the_pressure_of_the_data_sheets_example(board: MicroPython) -> None:
    answer = board.ask(_bmp280(RAW_TEMPERATURE, RAW_PRESSURE))
    assert _row(answer) == [(round(EXAMPLE_PA), GOOD)]
    assert answer[1:] == [["f4:2d"], 15]


def test_the_compensation_is_that_of_the_data_sheets_example() -> None:
    setup = "from laterne_firmware.sensors import bmx280\nimport struct\n"
    setup += f"c = struct.unpack('<HhhHhhhhhhhh', {CALIBRATION!r})"
    fine = evaluate(f"bmx280.fine_temperature(c, {RAW_TEMPERATURE})", setup)
    assert fine == 128422
    assert (fine * 5 + 128) >> 8 == 2508
    pressure = evaluate(f"bmx280.compensate(c, {RAW_TEMPERATURE}, {RAW_PRESSURE})", setup)
    assert pressure / 256 == pytest.approx(EXAMPLE_PA, abs=0.02)


def test_a_bme280_is_read_in_the_same_way(board: MicroPython) -> None:
    answer = board.ask(_bmp280(RAW_TEMPERATURE, RAW_PRESSURE, **{str(0xD0): "60"}))
    assert _row(answer) == [(round(EXAMPLE_PA), GOOD)]


@pytest.mark.parametrize(
    ("registers", "why"),
    [
        ({str(0xD0): "61"}, "chip id 0x61"),  # BME680: other registers
        ({str(0x88): "00" * 24}, "the calibration cannot be read"),
        ({str(0x88): "ff" * 24}, "the calibration cannot be read"),
        ({str(0xF3): "08"}, "the measurement does not end"),
        ({str(0xF7): "800000800000"}, "no measurement was made"),
        ({str(0xF7): "0000007eed00"}, "Pa is out of its range"),  # far more than the part can measure
    ],
)
def test_a_pressure_that_cannot_be_right_is_refused(board: MicroPython, registers: dict[str, str], why: str) -> None:
    assert why in board.ask(_bmp280(RAW_TEMPERATURE, RAW_PRESSURE, **registers))


# BH1750 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "tenths_of_lux", "flag"),
    [
        (0, 0, GOOD),
        (0x8390, 280667, GOOD),  # data sheet, page 7: 28067 lx
        (0x0110, 2267, GOOD),  # data sheet, page 7: 227 lx
        (65535, 546125, SUSPECT),
    ],
)
def test_a_bh1750_gives_tenths_of_lux(board: MicroPython, count: int, tenths_of_lux: int, flag: int) -> None:
    answer = board.ask({"driver": "bh1750", "reads": [f"{count:04x}"]})
    assert _row(answer) == [(tenths_of_lux, flag)]
    assert answer[1:] == [["20"], 185]


# VEML7700 --------------------------------------------------------------------------------------------------------


def _veml7700(count: int, times: int = 1) -> dict[str, object]:
    memory = {str(0x07): "81c4", str(0x04): count.to_bytes(2, "little").hex()}
    return {"driver": "veml7700", "present": True, "memory": memory, "times": times}


def test_a_veml7700_begins_with_gain_one_eighth_and_100_ms(board: MicroPython) -> None:
    answer = board.ask(_veml7700(1480))  # x 0.5376 lx
    assert _row(answer) == [(7956, GOOD)]
    assert answer[1] == ["00:0110", "00:0010", "00:0110"]


def test_a_veml7700_takes_the_next_range_when_it_is_too_bright_or_too_dark(board: MicroPython) -> None:
    answer = board.ask(_veml7700(60000, times=2))
    assert answer[1][4] == "00:0013"  # 25 ms
    assert board.ask(_veml7700(65535))[0] == [[[answer_of_full_scale(), SUSPECT]]]
    answer = board.ask(_veml7700(90, times=2))
    assert answer[1][4] == "00:0000"  # gain 1
    assert _row(answer) == [(60, GOOD)]


def answer_of_full_scale() -> int:
    """The application note's polynomial in floats, in tenths of lux, for 65535 counts at gain 1/8 and 100 ms."""
    x = 65535 * 5376 // 10000
    return round((6.0135e-13 * x**4 - 9.3924e-9 * x**3 + 8.1488e-5 * x**2 + 1.0023 * x) * 10)


@pytest.mark.parametrize("lux", [1001, 5000, 20000, 60000, 120000])
def test_the_correction_for_bright_light_is_the_application_notes(lux: int) -> None:
    tenths = evaluate(
        f"(veml7700.corrected({lux} * 10000) + 500) // 1000", "from laterne_firmware.sensors import veml7700"
    )
    expected = (6.0135e-13 * lux**4 - 9.3924e-9 * lux**3 + 8.1488e-5 * lux**2 + 1.0023 * lux) * 10
    assert tenths == pytest.approx(expected, abs=1)


def test_what_is_no_veml7700_is_refused(board: MicroPython) -> None:
    question = _veml7700(100)
    question["memory"] = {str(0x07): "0000"}
    assert board.ask(question) == "device id 0x00"
