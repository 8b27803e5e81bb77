"""What an update costs: bytes of a release and of one changed module, how fast they come over 115,200 baud, memory.

The release is the firmware of this checkout, as `laterne release build` makes it. *Goodput* is what T8 of the facts and
the peers count: bytes of the files as they stand on flash afterwards, over the time from the first byte of the index
that is wanted until the slot is whole. Beside it stands how much of the line's bytes were code, as it was deflated.

- The real firmware, in an emulated board with a session, readings and reports (updated_board.py): flash that takes no
  time, and the data sheet's typical figures, 45 ms for an erase and 0.4 ms for a page, in which the board is deaf. The
  unix port computes some hundred times as fast as an RP2040: what a board computes is not in these figures; the order
  of things, the bytes and the stalls are.
- A board of the tests behind the same line, which does nothing but wait as T8 reckons: for each 4,096 bytes of content
  one erase and 16 pages. littlefs erases a block for each file, however short: that is the difference to the above.

`mpremote cp` copies the same files over such a line in the same run to the interpreter of an emulated board, whose
flash takes no time: what it costs there comes on top.
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
from statistics import median

from tests.benchmarks.late_reports import late_s
from tests.benchmarks.updated_board import installed
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard
from tests.gateway.fake_releases import signed
from tests.gateway.parts import Parts, until
from tests.gateway.street import quick
from tests.gateway.wired import WiredLine

from laterne_emulator.bench import Bench
from laterne_emulator.flash import BLOCK_BYTES as FLASH_BLOCK_BYTES
from laterne_emulator.flash import INSTANT, PAGE_BYTES, TYPICAL_TIMING, FlashTiming
from laterne_emulator.line import Line
from laterne_emulator.uart import UartEnd
from laterne_gateway.blocks import Blocks, Want
from laterne_gateway.releases import Release
from laterne_protocol import release_file
from laterne_protocol.update_messages import (
    DEFLATED,
    FIRST_FILE,
    LEAST_WINDOW_BITS,
    MAX_BLOCK_BYTES,
    MAX_CODE_BYTES,
)
from laterne_provisioning import firmware_sources, releases

Row = tuple[str, str, str]

FIRMWARE = Path(__file__).parents[2] / "firmware"
BYTES_S = 115_200 / 10
ROOMY_BYTES, TIGHT_BYTES = 256 * 1024, 160 * 1024  # heaps; objects are twice as large as on an RP2040 with its 190 KiB
KEPT_BITS = 12  # of the window that a board with memory keeps between two blocks
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


def sources_of(made: release_file.Release) -> int:
    """Bytes of the sources of its files."""
    return releases.sizes(made, firmware_sources.read(FIRMWARE)).sources


def line_bytes(newer: Release, older: Release | None, bits: int = KEPT_BITS) -> int:
    """Bytes of code that a board which runs `older` gets of `newer`; none of what it has. bits: of its window."""
    blocks, total, item = Blocks(), 0, 0
    had = set() if older is None else set(older.items)
    while item < len(newer.items):
        last = item
        while FIRST_FILE <= last < len(newer.items) - 1 and newer.items[last + 1] not in had:
            last += 1
        if item < FIRST_FILE or newer.items[item] not in had:
            left, start, at, held = sum(map(len, newer.items[item : last + 1])), 0, item, 0
            while left:
                window = bits, min(held, 1 << bits)
                most = min(left, MAX_BLOCK_BYTES)
                code = blocks.code(newer, Want(at, start, most, MAX_CODE_BYTES, older, frozenset(), False, *window))
                is_kept = code.encoding == DEFLATED and bits > LEAST_WINDOW_BITS and item >= FIRST_FILE
                held = held + code.size if is_kept else 0
                total, left, start = total + len(code.data), left - code.size, start + code.size
                while at < last and start >= len(newer.items[at]):
                    at, start = at + 1, start - len(newer.items[at])
            item = last
        item += 1
    return total


async def received(
    folder: Path, made: release_file.Release, authority: FakeAuthority, timing: FlashTiming
) -> tuple[int, float]:
    """A board without a release gets this one: bytes of parts, and seconds."""
    folder.mkdir()
    board = quick(FakeBoard())
    board.updates.window_bits = KEPT_BITS
    block_s = (timing.erase_ms + FLASH_BLOCK_BYTES // PAGE_BYTES * timing.page_ms) / 1000
    board.updates.flash_s = lambda size: size / FLASH_BLOCK_BYTES * block_s
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


def share(rate: float) -> str:
    return f"{rate:,.0f} B/s = {rate / BYTES_S:.0%}"


def of_boards(folder: Path, made: release_file.Release, authority: FakeAuthority) -> list[Row]:
    """Goodput of the real firmware and of what waits as T8 reckons, without stalls and with them."""
    found = []
    for what, timing, budget in (("", INSTANT, ">= 85 %"), (", flash stalls", TYPICAL_TIMING, ">= 78 %")):
        again = asyncio.run(installed(folder / f"used{len(what)}", timing, ROOMY_BYTES, used=True))
        one = asyncio.run(installed(folder / f"real{len(what)}", timing, ROOMY_BYTES))
        found += [
            (f"real firmware: goodput{what}", share(one.content_bytes / one.took_s), budget),
            (f"the same into a slot used before{what}", share(again.content_bytes / again.took_s), budget),
            (f"real firmware: code on the line{what}", share(one.code_bytes / one.took_s), SMP),
            (f"real firmware: a whole release{what}", f"{one.took_s:.1f} s", ""),
        ]
        if what:
            stall_s = (one.erases * timing.erase_ms + one.programs * timing.page_ms) / 1000
            most = one.content_bytes / (one.code_bytes / BYTES_S + stall_s)
            said = f"{one.erases} erases, {stall_s:.1f} s: {most / BYTES_S:.0%}"
            found.append(("its stalls, and what a line without overhead would reach", said, ""))
        code, took_s = asyncio.run(received(folder / f"tests{len(what)}", made, authority, timing))
        content = sum(size for _, size, _ in made.entries)
        found += [
            (f"as T8 reckons: goodput{what}", share(content / took_s), budget),
            (f"as T8 reckons: code on the line{what}", share(code / took_s), budget),
        ]
    return found


def memory(folder: Path) -> list[Row]:
    roomy = asyncio.run(installed(folder / "watched", INSTANT, ROOMY_BYTES, watched=True))
    tight = asyncio.run(installed(folder / "tight", INSTANT, TIGHT_BYTES))
    assert roomy.idle_bytes is not None
    assert roomy.most_bytes is not None
    return [
        ("heap of an install, after collections", f"{roomy.most_bytes - roomy.idle_bytes:,} B", ""),
        (f"the same with a heap of {TIGHT_BYTES // 1024} KiB: goodput", share(tight.content_bytes / tight.took_s), ""),
        ("the same: bytes of code sent, starts of the board", f"{tight.code_bytes:,}, {tight.restarts + 1}", "1 start"),
    ]


def lateness(folder: Path) -> list[Row]:
    found = []
    for boards in (1, 16):
        without = late_s(folder / f"rest{boards}", boards, updating=False)
        late = late_s(folder / f"late{boards}", boards, updating=True)
        figure = " / ".join(f"{median(one) * 1000:.0f}, {max(one) * 1000:.0f} ms" for one in (without, late))
        found.append((f"reports of {boards} boards late, median and worst: without / with an update", figure, ""))
    return found


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = FakeAuthority()
        made = signed(built(FIRMWARE, folder, 2), authority.release_key)
        whole = Release(made)
        full = line_bytes(whole, None)
        source = sources_of(made)
        found = [
            ("a whole release: files / code on the line", f"{sum(map(len, whole.items[2:])):,} / {full:,}", ""),
            ("its code, of the sources of its files", f"{full:,} of {source:,} = {full / source:.1%}", "<= 16 %"),
            ("the same, to a board that keeps no window", f"{line_bytes(whole, None, LEAST_WINDOW_BITS):,}", ""),
        ]
        for sequence, module in enumerate(CHANGED, 3):
            newer = Release(signed(built(changed(folder, module), folder, sequence), authority.release_key))
            cost = line_bytes(newer, whole)
            found.append((f"one statement more in {module}", f"{cost:,} = {cost / full:.1%} of it", "<= 10 %"))
        found += of_boards(folder, made, authority)
        files = {path: made.contents[digest] for path, _, digest in made.entries}
        (folder / "mpremote").mkdir()
        took_s = asyncio.run(copied(folder / "mpremote", files))
        size = sum(map(len, files.values()))
        found.append(("mpremote cp of the same files: goodput", share(size / took_s), "the peer"))
        found.append(("mpremote cp, in all", f"{took_s:.1f} s", ""))
        return found + memory(folder) + lateness(folder)


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
