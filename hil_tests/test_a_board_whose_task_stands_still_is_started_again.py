"""P4: the watchdog is fed by progress, not by a timer: one task that stands still ends in a new start."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from laterne_emulator import image
from laterne_emulator.lives import Ending

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

MAIN = (Path(__file__).parent / "firmware_for_tests" / "standing.py").read_bytes()
WITHIN_S = 10.0  # a bound for what would hang; it takes 2 s


async def test_a_board_whose_task_stands_still_is_bitten_by_the_watchdog(emulated_boards: "Benches") -> None:
    files = image.firmware_files(image.find_firmware(), short=False) | {"main.py": MAIN}
    board = (await emulated_boards(files=files, powered=False)).boards["board-01"]
    await board.power_on()
    await board.usb.wait_for_print("task stand still stands still")
    async with asyncio.timeout(WITHIN_S):
        life = await board.wait_for_life(0)
    assert life.ending is Ending.WATCHDOG


async def test_a_board_whose_tasks_work_is_left_alone(emulated_boards: "Benches") -> None:
    main = MAIN.replace(b"STANDS_STILL_AFTER = 50", b"STANDS_STILL_AFTER = 0")
    files = image.firmware_files(image.find_firmware(), short=False) | {"main.py": main}
    board = (await emulated_boards(files=files, powered=False)).boards["board-01"]
    await board.power_on()
    await board.usb.wait_for_print("step 250")  # 2.5 s: the watchdog would have bitten after one
    assert not board.lives
