"""`laterne flash --interpreter`: an emulated board enters its boot loader by its REPL; a test does what its ROM does.

Only a chip has a boot loader's drive: here it is a folder that stands in a list of mounts, and the interpreter that the
file would have brought is the one that the board has anyway.
"""

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.provisioning.test_chip import file_of, mounted, uf2

from laterne_emulator import image, release_tool
from laterne_emulator.lives import Ending
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import chip, steps

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
WITHIN_S = 60.0


async def test_a_board_whose_interpreter_does_not_fit_gets_another_and_then_its_release(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    board = (await emulated_boards(blank=True)).boards[NAME]
    port = str(board.usb.path)
    release = release_tool.release(image.find_firmware())
    given = chip.Image(file_of(tmp_path, uf2(300)), uf2(300), "emulated", "RPI-RP2")
    mounts = tmp_path / "mounts"
    mounts.write_text("")
    said: list[str] = []
    asked, written = threading.Event(), threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "boot loader" in text:
            asked.set()
        if "Waiting" in text:
            written.set()

    # It fits: nothing is entered, nothing written.
    await asyncio.to_thread(chip.prepare, given, port, release.head, say, mounts)
    assert "is not needed" in said[-1]
    assert not board.lives
    # One for another chip is refused by what the board says it is.
    other = chip.read(given.path)
    former = release.head.abi
    vars(release.head)["abi"] = former + 1
    try:
        with pytest.raises(UsageError, match=r"another chip \(pico\) than the board on .* has \(emulated\)"):
            await asyncio.to_thread(chip.prepare, other, port, release.head, say, mounts)
        async with asyncio.timeout(WITHIN_S):
            work = asyncio.create_task(asyncio.to_thread(chip.prepare, given, port, release.head, say, mounts))
            await asyncio.to_thread(asked.wait, WITHIN_S)
            await board.wait_until_down()
            assert board.lives[-1].ending == Ending.BOOTLOADER
            mounted(tmp_path, "RPI-RP2")
            await asyncio.to_thread(written.wait, WITHIN_S)
            await board.power_on()  # the port comes back
            await work
    finally:
        vars(release.head)["abi"] = former
    assert (tmp_path / "drive 0" / given.path.name).read_bytes() == given.data
    async with asyncio.timeout(WITHIN_S):
        done = await asyncio.to_thread(steps.flashed, port, release, None, None, say)
    assert done.written.written + 1 == done.written.files  # and /main.py, which comes back last


async def test_what_gives_no_repl_needs_a_finger_on_bootsel(emulated_boards: "Benches", tmp_path: Path) -> None:
    files = {"main.py": b"import micropython\nmicropython.kbd_intr(-1)\nwhile True: pass\n"}
    board = (await emulated_boards(files=files)).boards[NAME]
    given = chip.read(file_of(tmp_path, uf2()))
    (tmp_path / "mounts").write_text("")
    release = release_tool.release(image.find_firmware())
    with pytest.raises(OperatorError, match="hold BOOTSEL"):
        await asyncio.to_thread(
            chip.prepare, given, str(board.usb.path), release.head, lambda _: None, tmp_path / "mounts"
        )
