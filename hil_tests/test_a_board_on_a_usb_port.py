"""What a technician does with a board by USB, and nothing that only an emulated one can do.

    pytest hil_tests/test_a_board_on_a_usb_port.py --board /dev/ttyACM0

takes a real board that is not enrolled: its slots are written, its keys and its other files stay. Without --board it
is an emulated one.
"""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.typed import LATERNE, laterne, run

from laterne_emulator import image, release_tool

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

WITHIN_S = 180.0  # a real board's flash may take 400 ms for each of 220 erases


@pytest.fixture
async def usb(request: pytest.FixtureRequest, emulated_boards: "Benches") -> Path:
    """The USB port of a board that nobody has enrolled."""
    given = request.config.getoption("--board")
    if given is not None:
        return Path(given)
    return (await emulated_boards(blank=True)).boards["board-01"].usb.path


@pytest.fixture
async def flashing(usb: Path, tmp_path: Path) -> list[object]:
    """The command that flashes it with a release of this checkout, which an authority of this test has signed."""
    office, release = tmp_path / "office", tmp_path / "release"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    return ["flash", usb, "--release", release, "--authority", office, "--json"]


async def test_a_board_is_flashed_twice_and_tells_how_it_is(usb: Path, flashing: list[object]) -> None:
    first = await laterne(*flashing, within_s=WITHIN_S)
    again = await laterne(*flashing, within_s=WITHIN_S)
    assert (again["written"], again["files"], again["model"]) == (0, first["files"], first["model"])
    assert all(reading["value"] is not None for reading in again["readings"])
    found = await laterne("board", "doctor", usb, "--json")
    assert {finding["verdict"] for finding in found["findings"]} <= {"ok", "look at"}
    assert not found["enrolled"]
    state = json.loads((await run(*LATERNE, "board", "watch", usb, "--count", 1))[0].splitlines()[-1])
    assert (state["release"], state["slot"]) == (first["version"], "a")


async def test_a_command_that_is_killed_on_its_way_is_given_again(usb: Path, flashing: list[object]) -> None:
    progress, told = os.openpty()  # on a terminal it tells how far it is
    os.set_blocking(progress, False)
    process = await asyncio.create_subprocess_exec(
        *LATERNE, *map(str, flashing), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told
    )
    os.close(told)
    heard, said = asyncio.Event(), bytearray()

    def hear() -> None:
        try:
            said.extend(os.read(progress, 65536))
        except OSError:  # EIO: it has ended
            asyncio.get_running_loop().remove_reader(progress)
        if b"Writing release" in said:
            heard.set()

    asyncio.get_running_loop().add_reader(progress, hear)
    try:
        async with asyncio.timeout(WITHIN_S):
            await heard.wait()
        process.kill()
        await process.wait()
    finally:
        asyncio.get_running_loop().remove_reader(progress)
        os.close(progress)
        if process.returncode is None:
            process.kill()
            await process.wait()
    done = await laterne(*flashing, within_s=WITHIN_S)
    assert done["files"] > 100
    found = await laterne("board", "doctor", usb, "--json")
    assert {finding["verdict"] for finding in found["findings"]} <= {"ok", "look at"}
