"""A flashing is interrupted at every tenth write of the flash, is given again, and ends well (P4).

Each case has a blank board and another tenth write at which it is interrupted first; the repetition is interrupted in
the two other ways, somewhere. Three ways: the board loses its power, and what it was writing is torn; the cable is
pulled out, and the board goes on; the command is killed.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from laterne_emulator import image, release_tool, sweep
from laterne_emulator.flash import Cut, Torn
from laterne_protocol.release_file import Release, release_of
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing import layout, steps

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps
    from laterne_emulator.sweep import Case

LATERNE = [sys.executable, "-m", "laterne_provisioning"]
WITHIN_S = 30.0  # a bound for what would hang
QUICK = 21  # of some 205 tenth writes; a soak has ten times as many, which is all of them
AT_ONCE = 4
EVERY = 10
TORN = list(Torn)
SETTINGS = {"report_s": 5}

Interrupted = Callable[["EmulatedBoard", int, random.Random], Awaitable[bool]]


def flash(board: "EmulatedBoard", release: Release) -> steps.Flashed:
    return steps.flashed(str(board.usb.path), release, None, SETTINGS, lambda _: None)


def at_operation(board: "EmulatedBoard", at: int, then: Callable[[], None]) -> None:
    """Once, before the flash operation `at` from now."""
    begins, left = type(board.flash).begins, at

    def watched() -> tuple[Cut | None, bool]:
        nonlocal left
        left -= 1
        if left < 0:
            del vars(board.flash)["begins"]
            then()
        return begins(board.flash)

    vars(board.flash)["begins"] = watched


def forget(board: "EmulatedBoard") -> None:
    vars(board.flash).pop("begins", None)
    board.flash.cut_power(None)


class Workshop:
    """What all cases have: a signed release and who has signed it."""

    def __init__(self, folder: Path, release: Release) -> None:
        self.file, self.office = folder / "release", folder / "office"
        self.file.write_bytes(release.to_bytes())
        self._take()

    async def open(self) -> None:
        for command in (
            ("init", self.office, "--no-passphrase"),
            ("release", "sign", self.file, "--authority", self.office),
        ):
            process = await asyncio.create_subprocess_exec(*LATERNE, *map(str, command), stdout=subprocess.DEVNULL)
            assert await process.wait() == 0
        self._take()  # its signature lies on flash, too

    def _take(self) -> None:
        self.release = release_of(self.file.read_bytes())
        plan = layout.layout(self.release, "emulated", SETTINGS)
        self.wanted = {f"/{file.path}": file.content for file in plan.all}

    async def operations(self, board: "EmulatedBoard") -> int:
        """How many flash operations it takes, up to the reset; the firmware that starts then writes, too."""
        before = board.flash.count.operations  # it was given a file system
        flashing = asyncio.create_task(asyncio.to_thread(flash, board, self.release))
        async with asyncio.timeout(WITHIN_S):
            await board.wait_for_life(0)
        counted = board.flash.count.operations - before
        await flashing
        return counted

    # Each says whether it came to the interruption: a repetition may have less to write than that.

    async def power_fails(self, board: "EmulatedBoard", at: int, dice: random.Random) -> bool:
        board.flash.cut_power(Cut(at, dice.choice(TORN), seed=dice.getrandbits(32)))
        if not await self._stopped(board):
            return False
        async with asyncio.timeout(WITHIN_S):
            await board.wait_until_down()
        self._require_nothing_half(board)
        await board.power_on()
        return True

    async def cable_is_pulled(self, board: "EmulatedBoard", at: int, dice: random.Random) -> bool:
        at_operation(board, at, board.usb.unplug)
        if not await self._stopped(board):
            return False
        self._require_nothing_half(board)
        board.usb.plug()
        return True

    async def command_is_killed(self, board: "EmulatedBoard", at: int, dice: random.Random) -> bool:
        command = ("flash", board.usb.path, "--release", self.file, "--authority", self.office, "--report-seconds", 5)
        process = await asyncio.create_subprocess_exec(
            *LATERNE, *map(str, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        at_operation(board, at, process.kill)
        try:
            async with asyncio.timeout(WITHIN_S):
                ended = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if ended == 0:
            return False
        assert ended == -9, "it had no other reason to fail"
        self._require_nothing_half(board)
        return True

    async def _stopped(self, board: "EmulatedBoard") -> bool:
        try:
            await asyncio.to_thread(flash, board, self.release)
        except OperatorError:
            return True
        return False

    def _require_nothing_half(self, board: "EmulatedBoard") -> None:
        held = image.contents(board.flash.image)
        assert "/main.py" not in held or held.items() >= self.wanted.items(), "nothing starts before all of it is right"

    async def require_good(self, board: "EmulatedBoard") -> None:
        """The command is given once more, and nothing interrupts it."""
        done = await asyncio.to_thread(flash, board, self.release)
        assert done.written.files == len(self.wanted)
        async with asyncio.timeout(WITHIN_S):
            await board.usb.wait_for_print(", start ")
        await board.power_off()
        held = image.contents(board.flash.image)
        assert {path: held.get(path) for path in self.wanted} == self.wanted
        ours = {path for path in held if path.startswith(("/a/", "/b/", "/l/", "/r/"))}
        assert ours <= set(self.wanted), "and nothing else is left in our folders"


async def test_a_flashing_ends_well_however_it_was_interrupted(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", tmp_path: Path
) -> None:
    shop = Workshop(tmp_path, release_tool.release(image.find_firmware()))
    await shop.open()
    whole = (await emulated_boards(blank=True)).boards["board-01"]
    tenths = list(range(0, await shop.operations(whole), EVERY))
    await whole.power_off()
    ways: list[Interrupted] = [shop.power_fails, shop.cable_is_pulled, shop.command_is_killed]
    cases = fault_sweep("board, flashed by USB", QUICK)
    random.Random(cases.seed).shuffle(tenths)

    async def run(case: "Case") -> None:
        board = (await emulated_boards(blank=True, paced=False)).boards["board-01"]
        order = case.dice.sample(ways, len(ways))
        at = tenths[case.number % len(tenths)]
        for number, interrupted in enumerate(order):
            came = await interrupted(board, at, case.dice)
            forget(board)
            assert came or number, "the first time it always comes to the tenth write that was chosen"
            at = case.dice.randrange(max(1, len(tenths) * EVERY - at))
        await shop.require_good(board)
        case.survived()

    printed_to = sys.stdout
    await sweep.at_once(cases, AT_ONCE, run)
    assert sys.stdout is printed_to, "several at a time, in threads, leave the process as it was"
