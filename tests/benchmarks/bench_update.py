"""What an update costs: bytes of a release and of one changed module, and how fast they come over 115,200 baud.

The release is the firmware of this checkout, as `laterne release build` makes it, signed by a key of the tests. The
gateway's parts serve a board of the tests (tests/gateway/board_updates.py) that speaks the messages, in sessions, over
the emulator's Line at its pace; with stalls the board is busy 45 ms for an erase and 0.4 ms for each page with each
block, the data sheet's typical figures, and answers after that. `mpremote cp` copies the same files over such a line in
the same run to the interpreter of an emulated board, whose flash takes no time: what it costs there comes on top.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard
from tests.gateway.fake_releases import signed
from tests.gateway.parts import Parts, until
from tests.gateway.street import quick
from tests.gateway.wired import WiredLine

from laterne_emulator.bench import Bench
from laterne_emulator.flash import INSTANT, PAGE_BYTES, TYPICAL_TIMING, FlashTiming
from laterne_emulator.line import Line
from laterne_emulator.uart import UartEnd
from laterne_gateway.patches import Base, encoded
from laterne_gateway.releases import Release
from laterne_protocol import release_file
from laterne_protocol.update_messages import BLOCK_BYTES

Row = tuple[str, str, str]

FIRMWARE = Path(__file__).parents[2] / "firmware"
BYTES_S = 115_200 / 10
CHANGED = ("laterne_firmware/link.py", "laterne_firmware/backlog.py", "laterne_firmware/sensors/sht4x.py")
SMP = "SMP 33-45 % (R)"  # zephyr, PR #101821


def built(firmware: Path, folder: Path, sequence: int) -> release_file.Release:
    """The release of a firmware folder, unsigned."""
    file = folder / f"{sequence}.laterne"
    options = ["--sequence", str(sequence), "--version", f"{sequence}.0", "--uncommitted"]
    command = [sys.executable, "-m", "laterne_provisioning", "release", "build", "-o", str(file), "--firmware"]
    subprocess.run([*command, str(firmware), *options], check=True, capture_output=True, timeout=120)
    return release_file.release_of(file.read_bytes())


def changed(folder: Path, module: str) -> Path:
    """A copy of the firmware in which a function of this module has one statement more."""
    copy = folder / f"changed-{Path(module).stem}"
    shutil.copytree(FIRMWARE, copy / "firmware", ignore=shutil.ignore_patterns("__pycache__", "build"))
    shutil.copytree(FIRMWARE.parent / "protocol", copy / "protocol", ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "firmware" / module
    source = file.read_text()
    more, count = re.subn(
        r"(\n    def __init__\(.*?\) -> None:\n)", r'\1        print("changed %d" % 42)\n', source, count=1, flags=re.S
    )
    assert count == 1
    file.write_text(more)
    return copy / "firmware"


def line_bytes(newer: Release, older: Release | None) -> int:
    """Parts' bytes that a board which runs `older` gets of `newer`; none of what it has."""
    total = 0
    had = set() if older is None else set(older.items)
    for item, content in enumerate(newer.items):
        if item > 1 and content in had:
            continue
        base = None if older is None else older.same(newer, item)
        against = Base(base) if base else None
        for number in range(-(-len(content) // BLOCK_BYTES)):
            block = content[number * BLOCK_BYTES :][:BLOCK_BYTES]
            total += len(block) if item == 0 else len(encoded(block, number, against)[1])
    return total


async def received(
    folder: Path, made: release_file.Release, authority: FakeAuthority, timing: FlashTiming
) -> tuple[int, float]:
    """A board without a release gets this one: bytes of parts, and seconds."""
    folder.mkdir()
    board = quick(FakeBoard())
    board.updates.flash_s = lambda size: (timing.erase_ms + -(-size // PAGE_BYTES) * timing.page_ms) / 1000
    line = WiredLine(folder / "line", [board], 1, paced=True)
    parts = Parts(folder, [board])
    parts.authority.release_key, parts.authority.release_keys = authority.release_key, authority.release_keys
    parts.trust_file.write_bytes(parts.authority.trust_file())
    await parts.open()
    try:
        await parts.releases.add(made.to_bytes(), ())
        async with parts.asking(line):
            await until(lambda: parts.updates.has_answered(board.name, parts.buses[0]._contacts[0].link.session))
            board.updates.stage(made)
            parts.buses[0]._contacts[0].update_due_s = 0.0
            parts.buses[0]._line.stir()
            began_s = time.perf_counter()
            await until(lambda: board.updates.staged is not None)
            return board.updates.bytes_taken, time.perf_counter() - began_s
    finally:
        await line.close()
        await parts.buffer.close()


async def copied(folder: Path, files: dict[str, bytes]) -> float:
    """`mpremote cp` of these files over a paced line: seconds."""
    source = folder / "files"
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    async with Bench(folder / "bench", files={"main.py": b"print('ready')"}) as bench:
        await bench.power_on()
        board = bench.boards["board-01"]
        await board.usb.wait_for_print("ready")
        end = UartEnd()
        end.powered = True
        line = Line(folder / "slow", [end], paced=True)
        usb = os.open(board.usb.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        loop.add_reader(usb, lambda: end.board_side.send(os.read(usb, 512)))
        loop.add_reader(end.board_side, lambda: os.write(usb, end.board_side.recv(512)))
        try:
            tool = Path(sys.executable).with_name("mpremote")
            top = sorted({path.split("/")[0] for path in files})
            began_s = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                tool, "connect", str(folder / "slow"), "cp", "-r", *[str(source / one) for one in top], ":",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            output, _ = await process.communicate()
            if process.returncode != 0:
                raise RuntimeError(output.decode(errors="replace"))
            return time.perf_counter() - began_s
        finally:
            loop.remove_reader(usb)
            loop.remove_reader(end.board_side)
            os.close(usb)
            line.close()
            end.close()


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = FakeAuthority()
        made = signed(built(FIRMWARE, folder, 2), authority.release_key)
        whole = Release(made)
        full = line_bytes(whole, None)
        found = [
            ("a whole release: content / bytes of parts", f"{whole.size:,} / {full:,}", ""),
        ]
        for sequence, module in enumerate(CHANGED, 3):
            newer = Release(signed(built(changed(folder, module), folder, sequence), authority.release_key))
            cost = line_bytes(newer, whole)
            found.append((f"one statement more in {module}", f"{cost:,} = {cost / full:.1%} of it", "<= 10 %"))
        for what, timing, budget in (("", INSTANT, ">= 85 %"), (", flash stalls", TYPICAL_TIMING, ">= 78 %")):
            taken, took_s = asyncio.run(received(folder / f"r{budget[3:5]}", made, authority, timing))
            found += [
                (
                    f"parts over 115,200 baud{what}",
                    f"{taken / took_s:,.0f} B/s = {taken / took_s / BYTES_S:.0%}",
                    budget,
                ),
                (
                    f"content of files{what}",
                    f"{whole.size / took_s:,.0f} B/s = {whole.size / took_s / BYTES_S:.0%}",
                    SMP,
                ),
                (f"the whole release{what}", f"{took_s:.1f} s", ""),
            ]
        files = {path: made.contents[digest] for path, _, digest in made.entries}
        (folder / "mpremote").mkdir()
        took_s = asyncio.run(copied(folder / "mpremote", files))
        size = sum(map(len, files.values()))
        found.append(
            ("mpremote cp of the same files", f"{size / took_s:,.0f} B/s = {size / took_s / BYTES_S:.0%}", "the peer")
        )
        found.append(("mpremote cp, in all", f"{took_s:.1f} s", ""))
        return found


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
