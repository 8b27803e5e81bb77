"""What emulated boards cost: how fast they start, answer and die, and what the emulator keeps of their heap."""

import asyncio
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import serialx
from rich.console import Console
from rich.table import Table

from laterne_emulator import interpreter
from laterne_emulator.bench import Bench
from laterne_emulator.board import EMULATOR_HEAP_BYTES, HEAP_BYTES
from laterne_emulator.flash import Cut, Torn

FIRMWARE = Path(__file__).parents[2] / "hil_tests" / "firmware_for_tests"
TALK = {"main.py": (FIRMWARE / "talk.py").read_bytes()}
UPDATE = {"main.py": (FIRMWARE / "update.py").read_bytes(), "file": b"A" * 700}
BOARDS = 16
ECHOES = 300

Row = tuple[str, str, str]
Measure = Callable[[Path], Awaitable[list[Row]]]


async def _ask(port: Path, command: bytes, times: int = 1) -> float:
    """Seconds for one exchange at the gateway's end of a line."""
    reader, writer = await serialx.open_serial_connection(str(port), baudrate=115200)
    began = time.perf_counter()
    for _ in range(times):
        writer.write(command + b"\n")
        await reader.readline()
    took = (time.perf_counter() - began) / times
    writer.close()
    return took


async def _start(folder: Path) -> list[Row]:
    async with Bench(folder / "one", files=TALK) as bench:
        board = bench.boards["board-01"]
        starts = []
        for _ in range(20):
            began = time.perf_counter()
            await board.power_on()
            starts.append(time.perf_counter() - began)
            await board.power_off()
        heap = board.emulator_heap_bytes
    kept = f"{heap:,} B, its allowance {EMULATOR_HEAP_BYTES:,} B"
    return [
        ("power-on to boot.py, median of 20", f"{statistics.median(starts) * 1e3:.0f} ms", ""),
        ("boards started a second, one after the other", f"{1 / statistics.mean(starts):.0f}", ""),
        (f"heap the emulator keeps, beside the firmware's {HEAP_BYTES:,} B", kept, "its allowance"),
    ]


async def _sixteen(folder: Path) -> list[Row]:
    began = time.perf_counter()
    async with Bench(folder / "sixteen", BOARDS, files=TALK) as bench:
        await bench.power_on()
        await asyncio.gather(*(_ask(line.path, b"echo x") for line in bench.lines.values()))
        took = time.perf_counter() - began
    return [(f"{BOARDS} boards answering, from nothing", f"{took:.2f} s", "1 s")]


async def _exchange(folder: Path) -> list[Row]:
    rows = []
    for paced, what in ((True, "at 115,200 baud"), (False, "not paced")):
        async with Bench(folder / what, files=TALK, paced=paced) as bench:
            await bench.power_on()
            took = await _ask(bench.lines["board-01"].path, b"echo 0123456789", ECHOES)
        wire = f"{(16 + 11) * 10 / 115.2:.2f} ms on the line" if paced else ""
        rows.append((f"exchange of 16 + 11 bytes, {what}", f"{took * 1e3:.2f} ms", wire))
    return rows


async def _cuts(folder: Path) -> list[Row]:
    async with Bench(folder / "cuts", files=UPDATE, blocks=32) as bench:
        board = bench.boards["board-01"]
        fresh = folder / "fresh.img"
        shutil.copy(board.flash.image, fresh)
        cases = 0
        began = time.perf_counter()
        for torn in Torn:
            for at in itertools.count():
                shutil.copy(fresh, board.flash.image)
                cases += 1
                await board.power_on(Cut(at, torn))
                down = asyncio.create_task(board.wait_until_down())
                done = asyncio.create_task(board.usb.wait_for_print("updated"))
                await asyncio.wait([down, done], return_when=asyncio.FIRST_COMPLETED)
                finished = board.powered
                for task in (down, done):
                    task.cancel()
                await board.power_off()
                await board.power_on()
                await board.usb.wait_for_print("found ")
                await board.power_off()
                if finished:
                    break
        took = (time.perf_counter() - began) / cases
    return [(f"a power-cut case with both boots, mean of {cases}", f"{took * 1e3:.0f} ms", "100 ms")]


async def _all(folder: Path) -> list[Row]:
    measures: list[Measure] = [_start, _sixteen, _exchange, _cuts]
    return [row for measure in measures for row in await measure(folder)]


def rows() -> list[Row]:
    interpreter.on_board_folder()  # compiled once in each process; not what is measured
    with tempfile.TemporaryDirectory(prefix="laterne-bench-") as folder:
        return asyncio.run(_all(Path(folder)))


if __name__ == "__main__":
    table = Table("what", "figure", "budget or peer")
    for row in rows():
        table.add_row(*row)
    Console().print(table)
