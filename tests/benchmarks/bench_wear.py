"""What flash and card suffer at a report a minute: erases of a board, bytes written by a gateway with 32 boards.

The board is the whole firmware on an emulated chip that counts its block erases. Time runs ten times as fast: reports
close after 6 s, rows of readings are 250 ms apart, drafts are 2 s old at most; so each report has the readings and the
drafts that it has in a minute. What waits is fetched and acknowledged over the line.

The gateway is `laterne-gateway run` with its database in a directory of this machine. Every 0.4 s one of 32 boards
closes a report (in the street: every 1.9 s). That is slower than a commit waits for company, so no two reports share
one, as none do in the street; a cursor goes with the next report's commit in both. Bytes are those that the kernel
counts for the process as written to a disk (proc(5), io; getrusage(2), oublock), with the last checkpoint of the log
when it stops; what the file system writes for itself is not among them.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from tests.benchmarks.bench_gateway import served
from tests.benchmarks.observed import cost
from tests.benchmarks.quick_boards import Street
from tests.firmware.questions import asking

from laterne_emulator.bench import Bench
from laterne_emulator.image import find_firmware, firmware_files, main_with
from laterne_emulator.interpreter import compiled

Row = tuple[str, str, str]

NAME = "board-01"
FASTER = 10
SETTINGS = {"report_s": 60 // FASTER, "sample_ms": 2500 // FASTER}
DRAFTS = """
from laterne_firmware import reports
reports.DRAFT_MS //= %d
"""
REPORTS = 10
REPORTS_A_DAY = 1440
HEAP_BYTES = 256 * 1024  # names are not shortened here, so that a constant can be changed by its name
ERASES_OF_A_BLOCK = 100_000  # W25Q16JV and its like: what data sheets promise

BOARDS, EVERY_S, MINUTES_OF_BOARDS = 32, 0.4, 5
OUBLOCK_BYTES = 512


async def erases_of_a_report(folder: Path) -> tuple[float, float, int]:
    """(erases, bytes programmed) a report, and the number of blocks of the file system."""
    files = firmware_files(find_firmware(), settings=SETTINGS)
    quick = {
        **firmware_files(find_firmware(), settings=SETTINGS, short=False),
        "main.py": main_with(files["main.py"], b"import drafts"),
        "drafts.mpy": compiled((DRAFTS % FASTER).encode(), "drafts.py"),
    }
    async with Bench(folder, files=quick, paced=False, heap_bytes=HEAP_BYTES) as bench:
        await bench.power_on()
        flash = bench.boards[NAME].flash
        async with asking(bench.lines[NAME].path) as asker:
            await asker.enrol(NAME)
            await asker.wait_for_reports(1)
            erases, written = flash.count.erases, flash.count.bytes_programmed
            await asker.wait_for_reports(REPORTS)
            return (
                (flash.count.erases - erases) / REPORTS,
                (flash.count.bytes_programmed - written) / REPORTS,
                flash.blocks,
            )


def bytes_of_a_report(folder: Path) -> float:
    """Bytes that the gateway writes for a report of 96 readings."""
    street = Street(BOARDS // 4, 4, MINUTES_OF_BOARDS, 96)
    with served(folder, street) as (gateway, counter):
        counter.listen(3.0)  # what the start left to write
        before = cost(gateway.pid).written_bytes
        due_s = time.monotonic()
        for number in range(street.reports):
            street.release_one(number % BOARDS)
            due_s += EVERY_S
            counter.listen(due_s - time.monotonic())
        counter.until(lambda: len(counter.arrived) == street.reports)
        counter.listen(2.0)  # the last cursor
        gateway.terminate()
        _, status, used = os.wait4(gateway.pid, 0)
        gateway.returncode = os.waitstatus_to_exitcode(status)
    return (used.ru_oublock * OUBLOCK_BYTES - before) / street.reports


def rows() -> list[Row]:
    """(what, figure, beside it), all measured now; takes about three minutes."""
    with tempfile.TemporaryDirectory(prefix="laterne-bench-") as folder:
        erases, programmed, blocks = asyncio.run(erases_of_a_report(Path(folder) / "board"))
        written = bytes_of_a_report(Path(folder))
    a_day = erases * REPORTS_A_DAY
    years = ERASES_OF_A_BLOCK * blocks / a_day / 365
    card = written * BOARDS * REPORTS_A_DAY
    return [
        (
            "board: block erases a day, a report of 96 readings a minute",
            f"{a_day:,.0f}",
            f"{erases:.1f} and {programmed:,.0f} B programmed a report",
        ),
        (
            f"board: years until {blocks} blocks have {ERASES_OF_A_BLOCK:,} erases, spread evenly",
            f"{years:.0f}",
            "",
        ),
        (
            f"gateway: written a day, {BOARDS} boards, a report a minute each",
            f"{card / 1e6:,.0f} MB",
            f"{written:,.0f} B a report of about 400 B",
        ),
    ]


if __name__ == "__main__":
    for what, figure, beside in rows():
        print(f"{what:66}  {figure:12}  {beside}")
