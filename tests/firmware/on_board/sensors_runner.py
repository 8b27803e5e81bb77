"""Runs the sensor drivers against chips that are no more than their registers, for tests/firmware/test_sensors.py."""

from lines import serve

from laterne_firmware.sensors import SensorError, bh1750, bmx280, sht4x, veml7700

MODULES = {"sht4x": sht4x, "bmx280": bmx280, "bh1750": bh1750, "veml7700": veml7700}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Registers:
    """machine.I2C with one chip: `reads` answers plain reads, `memory` reads of a register; writes are kept."""

    def __init__(self, reads: "list[str]", memory: "dict[str, str]") -> None:
        self.reads = [bytes.fromhex(read) for read in reads]
        self.memory = {int(register): bytes.fromhex(content) for register, content in memory.items()}
        self.written = []  # type: list[str]

    def writeto(self, address: int, data: bytes) -> None:
        self.written.append(data.hex())

    def readfrom_into(self, address: int, into: bytearray) -> None:
        into[:] = self.reads.pop(0)

    def writeto_mem(self, address: int, register: int, data: bytes) -> None:
        self.written.append("%02x:%s" % (register, data.hex()))

    def readfrom_mem_into(self, address: int, register: int, into: bytearray) -> None:
        into[:] = self.memory[register]


def answer(question: "dict[str, Any]") -> object:
    """One measurement: [row, what was written, milliseconds to wait], or the reason why there is none."""
    chip = Registers(question.get("reads", []), question.get("memory", {}))
    driver = MODULES[question["driver"]].Driver(chip, 0x40)
    try:
        if question.get("present", False):
            driver.present()
        rows = []
        for _ in range(question.get("times", 1)):
            wait_ms = driver.start()
            rows.append(driver.read())
    except SensorError as why:
        return str(why)
    return [rows, chip.written, wait_ms]


serve(answer)
