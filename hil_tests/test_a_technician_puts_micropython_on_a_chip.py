"""`laterne flash --interpreter`: an emulated board enters its boot loader by its REPL; a test does what its ROM does.

Only a chip has a boot loader's drive: here it is a folder that stands in a list of mounts. That the board has another
interpreter, a boot.py says in its place, which goes when the file is on the drive.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.provisioning.test_chip import RP2350, file_of, mounted, uf2
from tests.typed import WITHIN_S, begun, ended, laterne, run

from laterne_emulator import image, release_tool
from laterne_emulator.lives import Ending
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing import chip

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
AN_OLDER_PICO = b"""
show = print
def print(said):
    show(said[:1] + [[1, 22, 0], 5, "rp2", "Raspberry Pi Pico with RP2040"])
"""
# `laterne` as it is typed; only the mounts are not this machine's.
WITH_MOUNTS = """
import functools, pathlib, sys
from laterne_provisioning.__main__ import main
from laterne_provisioning.flashing import chip
chip.prepare = functools.partial(chip.prepare, mounts=pathlib.Path(sys.argv.pop(1)))
main()
"""


async def test_a_board_whose_interpreter_does_not_fit_gets_another_and_then_its_release(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    board = (await emulated_boards(files={"boot.py": AN_OLDER_PICO})).boards[NAME]
    office, release, mounts = tmp_path / "office", tmp_path / "release", tmp_path / "mounts"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    mounts.write_text("")
    given, other = file_of(tmp_path, uf2(300)), tmp_path / "pico2.uf2"
    other.write_bytes(uf2(family=RP2350))
    program = (sys.executable, "-c", WITH_MOUNTS, mounts)
    flash = ("flash", board.usb.path, "--release", release, "--authority", office, "--json", "--interpreter")
    # One for another chip is refused by what the board says it is.
    operations = board.flash.count.operations
    _, errors = await run(*program, *flash, other, code=2)
    assert "another chip (pico2) than the board on" in errors
    assert "has (pico). Nothing was written" in errors
    assert (board.lives, board.flash.count.operations) == ([], operations)
    async with begun(*program, *flash, given) as process, asyncio.timeout(WITHIN_S):
        await board.wait_until_down()
        assert board.lives[-1].ending == Ending.BOOTLOADER
        mounted(tmp_path, "RPI-RP2")
        drive = tmp_path / "drive 0" / given.name
        while not drive.exists() or drive.stat().st_size < given.stat().st_size:  # noqa: ASYNC110 - a process writes it
            await asyncio.sleep(0.05)
        image.build(board.flash.image, {})  # the interpreter that the file has brought says what it is
        await board.power_on()  # the port comes back
        done = json.loads((await ended(process))[0])
    assert drive.read_bytes() == given.read_bytes()
    assert (done["model"], done["written"] + 1) == ("emulated", done["files"])  # /main.py comes last
    # It fits now: the boot loader is not entered again, and nothing is written.
    out, _ = await run(*program, *flash, given)
    assert json.loads(out)["written"] == 0
    assert [life.ending for life in board.lives].count(Ending.BOOTLOADER) == 1


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
