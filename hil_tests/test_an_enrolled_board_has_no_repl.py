"""P2: who has the USB port of an enrolled board in his hand gets no REPL, and with it neither keys nor code."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.questions import WITHIN_S, Asker, asking, enrolled

from laterne_emulator import image

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}
SERVICE_PIN = 22
CTRL_A_TO_E = b"\x01\x02\x03\x04\x05"


async def _mpremote(board: "EmulatedBoard", *arguments: str) -> tuple[int | None, str]:
    """Status and words of the real tool; None: it was still trying after WITHIN_S."""
    tool = Path(sys.executable).with_name("mpremote")
    process = await asyncio.create_subprocess_exec(
        str(tool), "connect", str(board.usb.path), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WITHIN_S):
            out, _ = await process.communicate()
        return process.returncode, out.decode()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, ""


def _type(board: "EmulatedBoard", data: bytes) -> None:
    # Never waits: the board's end of the port is served by this thread, so that it would wait for ever.
    port = os.open(board.usb.path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):  # the port is full: the board has enough to read
            os.write(port, data)
    finally:
        os.close(port)


def _no_repl(board: "EmulatedBoard") -> bool:
    return not any(text in board.usb.printed() for text in (">>>", "raw REPL", "KeyboardInterrupt", "soft reboot"))


async def _still_speaks(asker: Asker, board: "EmulatedBoard", boot: int) -> None:
    assert (await asker.hello()).boot == boot
    assert _no_repl(board), board.usb.printed()


async def test_a_blank_board_gives_a_repl_and_an_enrolled_one_does_not(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    await board.usb.wait_for_print("release")  # while a file of it begins, no board lets Ctrl-C in
    assert await _mpremote(board, "exec", "print(6 * 7)") == (0, "42\n")
    lives = len(board.lives)
    board.reset()
    await board.wait_for_life(lives)
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)  # from this moment on, without a restart
        for boot in (2, 3):
            lives = len(board.lives)
            for _ in range(20):
                _type(board, CTRL_A_TO_E)
                _type(board, b"\r\x03\x03\x01import os\x04")
            await _still_speaks(asker, board, boot)
            status, said = await _mpremote(board, "exec", "print(6 * 7)")
            assert status != 0
            assert "could not enter raw repl" in said
            await _still_speaks(asker, board, boot)
            assert len(board.lives) == lives, "nothing of it has reset the board"
            if boot == 2:
                board.pins.drive(SERVICE_PIN, 0)  # the switch is not the way in any more
                board.reset()
                await board.wait_for_life(lives)
                asker.session = None
        assert "maintenance" not in board.usb.printed()
        board.pins.drive(SERVICE_PIN, None)


async def test_ctrl_c_from_the_first_moment_of_a_start_gives_no_repl(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        for lives in range(1, 4):
            board.reset()
            await board.wait_for_life(lives - 1)
            async with asyncio.timeout(WITHIN_S):
                while "release" not in board.usb.printed():
                    if board.usb.path.exists():
                        _type(board, b"\x03")
                    await asyncio.sleep(0)
            assert not any(text in board.usb.printed() for text in (">>>", "raw REPL"))
        asker.session = None
        await asker.hello()


async def test_an_enrolled_board_whose_firmware_cannot_start_resets_and_gives_no_repl(
    emulated_boards: "Benches",
) -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, _):
        await board.power_off()
    app = "/a/app.py"  # comes before app.mpy, and no index names it: the slot is still whole
    for content in (b"# nothing to run", b"raise SystemExit", b"not a module"):
        image.write(board.flash.image, {app: content})
        lives = len(board.lives)
        await board.power_on()
        for life in (lives, lives + 1):
            async with asyncio.timeout(WITHIN_S):
                await board.wait_for_life(life)
            assert not any(text in board.usb.printed() for text in (">>>", "raw REPL"))
        await board.power_off()
