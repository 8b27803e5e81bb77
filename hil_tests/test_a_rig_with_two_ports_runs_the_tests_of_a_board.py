"""The tests of a real board, given the two ports of an emulated one as `--board` and `--board-line`: a rig in CI."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.questions import asking
from tests.typed import run

from laterne_emulator import image

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
TESTS = Path(__file__).with_name("test_a_board_on_a_usb_port.py")
WITHIN_S = 280.0
SETTINGS = b'{"report_s": 5}'
FASTER_PPM = 3_000_000  # a board's seconds are a quarter of ours


async def rig(bench: "Bench", folder: Path, code: int) -> str:
    """What pytest says of the board."""
    ports = ("--board", bench.boards[NAME].usb.path, "--board-line", bench.lines[NAME].path)
    command = (sys.executable, "-m", "pytest", TESTS, "-p", "no:cacheprovider", "--basetemp", folder)
    return (await run(*command, *ports, code=code, within_s=WITHIN_S))[0]


async def refused(bench: "Bench", folder: Path) -> None:
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol("LE-0001")
        assert "LE-0001 on " in await rig(bench, folder / "refused", 1)
        assert (await asker.hello()).boot == 1
    assert bench.boards[NAME].lives == [], "it was not reset"


async def test_all_tests_of_a_board_leave_a_new_one_new_and_refuse_one_in_service(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    bench = await emulated_boards(files={"settings.json": SETTINGS}, paced=False, powered=False)
    serving = await emulated_boards()
    board = bench.boards[NAME]
    board.clock_ppm = FASTER_PPM
    await bench.power_on()
    async with asyncio.TaskGroup() as both:
        both.create_task(refused(serving, tmp_path))
        assert "= 3 passed in " in await rig(bench, tmp_path / "rig", 0)
    assert board.lives, "it was this board"
    await board.power_off()
    held = image.contents(board.flash.image)
    assert not [name for name in held if name.startswith(("/k/credential", "/k/name", "/k/order"))]
    assert held["/settings.json"] == SETTINGS
