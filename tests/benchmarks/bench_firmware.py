"""What the whole firmware costs on an emulated board with three sensors: heap, and time from closing a report to flash.

The unix port has objects twice as large as a board's: its heap is the stricter one (firmware/README.md, "Memory").
"""

import asyncio
import re
import tempfile
from pathlib import Path
from statistics import median

import serialx
from tests.firmware.questions import Asker, asking

from laterne_emulator.bench import Bench
from laterne_emulator.board import EmulatedBoard
from laterne_emulator.image import find_firmware, firmware_files, main_with
from laterne_emulator.interpreter import compiled

Row = tuple[str, str, str]

NAME = "board-01"
SERVICE_PIN = 22
SETTINGS = {"report_s": 5, "sample_ms": 200}
LOWEST_KIB, HIGHEST_KIB, STEP_KIB = 96, 160, 4
BUDGET_KIB = 128
REPORTS = 3
WITHIN_S = 20.0  # a board whose heap is too small starts again and again, or answers no more
LAST_SENSOR = "BH1750 at"  # said when all three were found

# Put around Reporter._close in a copy of the firmware: the figure is the board's own.
TIMED = """
import time
from laterne_firmware import reports as _module
_close = _module.Reporter._close
async def _timed(self, *given):
    began = time.ticks_us()
    await _close(self, *given)
    print("closed in %d us" % time.ticks_diff(time.ticks_us(), began))
_module.Reporter._close = _timed
"""


async def _reports(bench: Bench, asker: Asker, count: int) -> None:
    """Reports closed by the service switch, with some rows of readings each."""
    board = bench.boards[NAME]
    for _ in range(count):
        await asyncio.sleep(0.5)
        opened = board.usb.printed().count("readings go on")
        board.pins.drive(SERVICE_PIN, 0)
        await asker.wait_for_reports(1)
        board.pins.drive(SERVICE_PIN, None)
        while board.usb.printed().count("readings go on") == opened:  # noqa: ASYNC110 - the same line once more
            await asyncio.sleep(0.02)


async def _works(folder: Path, files: dict[str, bytes], heap_kib: int) -> bool:
    """First start, keys, enrolment over the line, reports delivered, no reset."""
    async with Bench(folder, files=files, paced=False, heap_bytes=heap_kib * 1024) as bench:
        await bench.power_on()
        board = bench.boards[NAME]
        try:
            async with asyncio.timeout(WITHIN_S), asking(bench.lines[NAME].path) as asker:
                await asker.enrol(NAME)
                await board.usb.wait_for_print(LAST_SENSOR)
                await _reports(bench, asker, REPORTS)
        except TimeoutError:
            return False
        return board.lives == []


async def _smallest_heap(folder: Path, files: dict[str, bytes]) -> int:
    """KiB. What is too small for a start says so within WITHIN_S."""
    fails, works = LOWEST_KIB - STEP_KIB, HIGHEST_KIB
    while works - fails > STEP_KIB:
        between = (fails + works) // (2 * STEP_KIB) * STEP_KIB
        if await _works(folder / f"{between}-kib", files, between):
            works = between
        else:
            fails = between
    return works


async def _ask_the_console(board: EmulatedBoard, expression: str) -> str:
    """Stops the firmware, as a technician does, and asks its REPL."""
    reader, writer = await serialx.open_serial_connection(str(board.usb.path), baudrate=115200)
    try:
        async with asyncio.timeout(WITHIN_S):
            writer.write(b"\x03")
            await reader.readuntil(b">>> ")
            writer.write(f"import gc; gc.collect(); print('answer', {expression})\r".encode())
            await reader.readuntil(b"\nanswer ")
            return (await reader.readuntil(b"\n")).decode().strip()
    finally:
        writer.close()


async def _steady(folder: Path, files: dict[str, bytes]) -> tuple[int, list[int]]:
    """(bytes free after a collection, microseconds from closing to flash for each report) at the budget."""
    timed = {
        **firmware_files(find_firmware(), settings=SETTINGS, short=False),
        "main.py": main_with(files["main.py"], b"import timed"),
    }
    timed["timed.mpy"] = compiled(TIMED.encode(), "timed.py")
    async with Bench(folder / "timed", files=timed, paced=False) as bench:
        await bench.power_on()
        async with asking(bench.lines[NAME].path) as asker:
            await asker.enrol(NAME)
            await _reports(bench, asker, 10)
            took = [int(found) for found in re.findall(r"closed in (\d+) us", bench.boards[NAME].usb.printed())]
    async with Bench(folder / "steady", files=files, paced=False, heap_bytes=BUDGET_KIB * 1024) as bench:
        await bench.power_on()
        async with asking(bench.lines[NAME].path) as asker:
            await asker.enrol(NAME)
            await _reports(bench, asker, REPORTS)
            return int(await _ask_the_console(bench.boards[NAME], "gc.mem_free()")), took


def rows() -> list[Row]:
    """(what, figure, budget), all measured now; takes about a minute."""
    files = firmware_files(find_firmware(), settings=SETTINGS)
    with tempfile.TemporaryDirectory(prefix="laterne-bench-") as folder:
        smallest = asyncio.run(_smallest_heap(Path(folder), files))
        free, took = asyncio.run(_steady(Path(folder), files))
    what = f"smallest heap: first start, keys, enrolment, {REPORTS} reports, 3 sensors"
    return [
        (what, f"{smallest} KiB", f"{BUDGET_KIB} KiB"),
        (f"free after a collection, running, of {BUDGET_KIB} KiB", f"{free:,} B", ""),
        (f"a report, from closing to flash, median of {len(took)}", f"{median(took) / 1000:.1f} ms", ""),
    ]


if __name__ == "__main__":
    for what, measured, allowed in rows():
        print(f"{what:72}  {measured:>12}  {allowed}")
