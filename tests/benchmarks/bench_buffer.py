"""The gateway's buffer: a month's backlog at the start, its way out, its repair; and what a day costs the card.

The gateway runs as a process with a real mosquitto. Its directory lies below TMPDIR: what is written is counted by the
kernel for the disk there (/proc/PID/io, write_bytes), which is 0 on a tmpfs.
"""

import asyncio
import contextlib
import re
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.servers import Mosquitto

from laterne_gateway import salvage, wear
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import Accepted
from laterne_gateway.config import BufferSettings
from laterne_gateway.database import FILE_NAME, open_database
from laterne_gateway.health import Health

MANY = 1_000_000
BODY = bytes(range(256)) + bytes(144)  # a report of 96 readings has about 400 bytes
BOARDS = 32
DRAINED = 40_000
REPORTS_A_DAY = BOARDS * 24 * 60
SAMPLE = 2400
GROUPS = (1, 2, 4, 6)


def rows() -> list[tuple[str, str, str]]:
    return asyncio.run(_rows())


async def _rows() -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as place:
        empty, many = Path(place) / "empty", Path(place) / "many"
        figures = {}
        for directory, count in ((empty, 0), (many, MANY)):
            directory.mkdir()
            async with _gateway(directory) as (gateway, broker):
                fill(directory / "state", count)
                figures[count] = await _start(gateway, count)
                if count:
                    await broker.start_async()
                    found.append(await _drain(gateway, directory, count))
        (start_0, memory_0), (start_many, memory_many) = figures[0], figures[MANY]
        found.insert(0, ("start, nothing waiting", f"{start_0:.2f} s, {memory_0:.1f} MiB", ""))
        found.insert(1, (f"start, {MANY:,} reports waiting", f"{start_many:.2f} s", "≤ 2 s"))
        found.insert(2, ("memory more than with nothing waiting", f"{memory_many - memory_0:+.1f} MiB", "≤ 5 MiB"))
        found.append(_repair(many / "state"))
        found += await _wear(Path(place) / "wear")
    return found


@contextlib.asynccontextmanager
async def _gateway(directory: Path) -> AsyncIterator[tuple[GatewayProcess, Mosquitto]]:
    board = FakeBoard()
    line = FakeLine(directory / "line", [board])
    broker = Mosquitto(directory / "broker")
    gateway = GatewayProcess(directory, [board], [line], broker)
    text = gateway.config.read_text().replace("[mqtt]\n", "[mqtt]\nbacklog_a_second = 100000\n")
    gateway.config.write_text(text + "[buffer]\nmax_mib = 4096\n")
    try:
        yield gateway, broker
    finally:
        await gateway.end()
        broker.stop()
        await line.close()


def fill(directory: Path, count: int) -> None:
    """So many reports of 32 boards, as if nothing had ever been delivered."""
    db = open_database(directory)
    db.execute("pragma synchronous = off")
    db.execute("begin")
    names = [f"LE-{number:04}" for number in range(BOARDS)]
    db.executemany(
        "insert into report values (?, ?, ?, 1770000000000, null, ?, ?)",
        (
            (n, names[n % BOARDS], n // BOARDS + 1, zlib.crc32(BODY, zlib.crc32(f"{name(names, n)} ".encode())), BODY)
            for n in range(1, count + 1)
        ),
    )
    db.executemany(
        "insert into chain values (?, x'00', ?, null)", [(one, count // BOARDS + 1) for one in names if count]
    )
    db.execute("commit")
    db.execute("pragma wal_checkpoint(truncate)").fetchall()
    db.close()


def name(names: list[str], number: int) -> str:
    return f"{names[number % BOARDS]} {number // BOARDS + 1}"


async def _start(gateway: GatewayProcess, count: int) -> tuple[float, float]:
    """Seconds until it serves, MiB in memory when it has told of itself."""
    began = time.perf_counter()
    await gateway.start()
    await gateway.says(f"{count} reports waiting")
    taken = time.perf_counter() - began
    await gateway.says("boot 1")
    return taken, _resident_mib(gateway)


def _resident_mib(gateway: GatewayProcess) -> float:
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    return int(resident[1]) / 1024


async def _drain(gateway: GatewayProcess, directory: Path, count: int) -> tuple[str, str, str]:
    await gateway.says("connected to")
    began, first = time.perf_counter(), _waiting(gateway)
    await until(lambda: _waiting(gateway) <= first - DRAINED)
    rate = (first - _waiting(gateway)) / (time.perf_counter() - began)
    memory = _resident_mib(gateway)
    assert await gateway.stop() == 0
    return (
        "a backlog's way out to mosquitto, as fast as it goes; memory meanwhile",
        f"{rate:,.0f} reports/s, {memory:.1f} MiB",
        "",
    )


def _waiting(gateway: GatewayProcess) -> int:
    found = gateway.status()
    return int(found["buffer"]["waiting"]["mqtt"]) if found else MANY  # type: ignore[index]  # as laterne_gateway.status has written it


def _repair(directory: Path) -> tuple[str, str, str]:
    with (directory / FILE_NAME).open("r+b") as file:
        file.write(bytes(100))
    began = time.perf_counter()
    outcome = salvage.repair(directory, "a benchmark", salvage.Known())
    taken = time.perf_counter() - began
    return f"repair of a file without its first page: {outcome.kept:,} reports kept", f"{taken:.0f} s", ""


async def _wear(directory: Path) -> list[tuple[str, str, str]]:
    """Reports committed in groups of so many, and delivered a moment later: what the kernel writes for them.

    32 a minute make groups of 1 with gather_s = 0, of 2 with 2, of 3 to 4 with 5, of 6 with 10.
    """
    found = []
    for group in GROUPS:
        buffer = Buffer(directory / str(group), ("mqtt",), BufferSettings(), Health())
        before = wear.written_bytes() or 0
        for first in range(0, SAMPLE, group):
            await asyncio.gather(*(buffer.put(_accepted(number)) for number in range(first, first + group)))
            buffer.delivered(buffer.lanes["mqtt"][-1], buffer.last_id)
        commits = buffer.commits
        await buffer.close()
        a_report = ((wear.written_bytes() or 0) - before) / SAMPLE
        found.append(
            (
                f"written a day, {BOARDS} boards, {len(BODY)} B a minute each, {SAMPLE / commits:.1f} reports a commit",
                f"{a_report * REPORTS_A_DAY / 2**20:,.0f} MiB; {a_report:,.0f} B a report",
                "",
            )
        )
    return found


def _accepted(number: int) -> Accepted:
    board, sequence = f"LE-{number % BOARDS:04}", number // BOARDS + 1
    return Accepted(board, sequence, bytes(16), bytes(16), sequence - 1 or None, 1_770_000_000_000, None, BODY)
