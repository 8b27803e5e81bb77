"""A bench full of emulated boards: their images, sensors and lines, in one folder and under one seed.

    async with Bench(tmp_path, boards=2, firmware=find_firmware()) as bench:
        await bench.power_on()
        port = bench.lines["board-01"].path      # what a gateway opens

`laterne emulate` puts one up and keeps it running; tests take theirs from the fixture `emulated_boards`.
"""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from laterne_emulator import image
from laterne_emulator.board import HEAP_BYTES, EmulatedBoard
from laterne_emulator.bosch import Bmp280
from laterne_emulator.flash import BLOCKS, INSTANT, PAGE_BYTES, FlashTiming
from laterne_emulator.line import Line
from laterne_emulator.sensors import Bh1750, Sensor, Sht4x, Veml7700
from laterne_emulator.world import Probe, World

NOISE_PIN = 26  # firmware/boards/emulated.py: an open analogue input
BUS_NAME = "bus"
TAP_NAME = "line.bin"  # in the folder of the board, or of the bus


class Bench:
    """`boards` boards named board-01, board-02, ... in folders of `folder`, each with a line of its own, or on one bus.

    A board whose `flash.img` is there keeps it. Otherwise it gets the firmware with `settings`, or `files`
    ({path: bytes}), or, with neither, blank flash. With `boot="frozen"` it has an interpreter of ours, and what is
    frozen there is not on its flash (image.split); else it starts as stock MicroPython does. Nothing has power until
    `power_on`. page_bytes: what the flash programs at once,
    256 as a Pico's or 32 as an ESP32's. `async with` puts up the lines and takes everything down again. Raises
    image.NoFirmware.
    """

    def __init__(
        self,
        folder: Path,
        boards: int = 1,
        *,
        firmware: Path | None = None,
        files: Mapping[str, bytes] | None = None,
        settings: Mapping[str, int | float | str] | None = None,
        bus: bool = False,
        paced: bool = True,
        seed: int = 0,
        timing: FlashTiming = INSTANT,
        heap_bytes: int = HEAP_BYTES,
        blocks: int = BLOCKS,
        page_bytes: int = PAGE_BYTES,
        world: World | None = None,
        boot: str = "stock",
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.world = world or World()
        self.boards: dict[str, EmulatedBoard] = {}
        self.sensors: dict[str, dict[str, Sensor]] = {}  # board -> "sht4x", "bmp280", "bh1750", "veml7700"
        self.lines: dict[str, Line] = {}  # board -> its line; on a bus all boards have the same
        self._bus = bus
        self._paced = paced
        if firmware is not None:
            files = image.firmware_files(firmware, settings=settings)
        frozen = None
        if boot == "frozen" and files is not None:
            frozen = folder / "frozen"
            inside, files = image.split(files)
            inside["_boot.py"] = inside["_boot.py"].replace(b"progsize=256", b"progsize=%d" % page_bytes)
            for path, content in inside.items():
                (frozen / path).parent.mkdir(parents=True, exist_ok=True)
                (frozen / path).write_bytes(content)
        built: bytes | None = None
        for number in range(1, boards + 1):
            name = f"board-{number:02d}"
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            flash = place / "flash.img"
            if not flash.exists() and files:
                if built is None:  # one image serves them all
                    image.build(flash, files, blocks)
                    built = flash.read_bytes()
                flash.write_bytes(built)
            board = EmulatedBoard(
                place, timing=timing, heap_bytes=heap_bytes, blocks=blocks, page_bytes=page_bytes, frozen=frozen
            )
            self.boards[name] = board
            self._fit_sensors(board)

    def _fit_sensors(self, board: EmulatedBoard) -> None:
        def probe(sensor: str) -> Probe:
            return Probe(self.world, f"{self.seed} {board.name} {sensor}")

        sensors: dict[str, Sensor] = {
            "sht4x": Sht4x(probe("sht4x"), serial=int.from_bytes(board.unique_id[:4], "big")),
            "bmp280": Bmp280(probe("bmp280")),
        }
        # Both kinds of light sensor are met in the street: odd boards have the one, even boards the other.
        odd = int(board.name[-2:]) % 2
        sensors |= {"bh1750": Bh1750(probe("bh1750"))} if odd else {"veml7700": Veml7700(probe("veml7700"))}
        self.sensors[board.name] = sensors
        for sensor in sensors.values():
            board.buses[0].devices[sensor.ADDRESS] = sensor
        # Not from the seed: the firmware makes keys of it.
        board.pins.adc[NOISE_PIN] = lambda: random.SystemRandom().getrandbits(16)

    async def __aenter__(self) -> Self:
        # On a bus the port stands once in the folder, and again as `uart` of every board.
        if self._bus:
            ends = [board.uart for board in self.boards.values()]
            line = Line(self.folder / BUS_NAME, ends, bus=True, paced=self._paced, seed=self.seed)
            self.lines = dict.fromkeys(self.boards, line)
            for board in self.boards.values():
                link = board.folder / "uart"
                link.unlink(missing_ok=True)
                link.symlink_to(Path("..") / BUS_NAME)
        else:
            for number, (name, board) in enumerate(self.boards.items()):
                seed = self.seed * 1000 + number
                self.lines[name] = Line(board.folder / "uart", [board.uart], paced=self._paced, seed=seed)
        return self

    async def power_on(self) -> None:
        """Give power to all boards; returns when each is about to run its boot.py."""
        async with asyncio.TaskGroup() as group:
            for board in self.boards.values():
                group.create_task(board.power_on())

    async def power_off(self) -> None:
        """Take the power of all boards. Raises an ExceptionGroup of FlashMisuse and BoardFailed."""
        async with asyncio.TaskGroup() as group:
            for board in self.boards.values():
                group.create_task(board.power_off())

    async def __aexit__(self, *why: object) -> None:
        failures = []
        try:
            for board in self.boards.values():
                try:
                    await board.power_off()
                except Exception as failure:
                    failures.append(failure)
        finally:
            for line in dict.fromkeys(self.lines.values()):
                line.close()
            for board in self.boards.values():
                board.uart.close()
                (board.folder / "uart").unlink(missing_ok=True)
        if failures:
            raise ExceptionGroup("emulated boards failed", failures)

    def tap(self, on: bool) -> None:
        """Record what is on all lines, each in a file line.bin beside its port, or stop it."""
        for line in dict.fromkeys(self.lines.values()):
            line.tap(line.path.with_name(TAP_NAME) if on else None)

    def readings_served(self, board: str) -> int:
        """How many readings the board could take from its sensors, counted in the sensors."""
        return sum(sensor.probe.served for sensor in self.sensors[board].values())
