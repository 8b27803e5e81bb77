"""P4: a flash that cannot be mounted. Stock MicroPython formats it, and that is seen; one of ours never does."""

import asyncio
import re
from typing import TYPE_CHECKING

from tests.firmware.questions import WITHIN_S, asking

from laterne_emulator import image
from laterne_emulator.flash import BLOCK_BYTES
from laterne_protocol import messages

if TYPE_CHECKING:
    from pathlib import Path

    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}
CTRL_A_TO_E = b"\x01\x02\x03\x04\x05"


def make_unreadable(flash: "Path") -> None:
    """Both copies of the superblock are damaged; the rest of the flash is as it was."""
    content = bytearray(flash.read_bytes())
    for block in range(2):
        content[block * BLOCK_BYTES : block * BLOCK_BYTES + 64] = bytes(64)
    flash.write_bytes(bytes(content))


async def prints(board: "EmulatedBoard", text: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print(text)


async def test_stock_micropython_formats_it_and_the_board_says_so(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, powered=False)
    board = bench.boards[NAME]
    make_unreadable(board.flash.image)
    await board.power_on()
    assert board.formatted == 1
    await prints(board, ">>>")  # nothing is there that could run: a new board, to be flashed again
    await board.power_off()
    assert image.names(board.flash.image) == []
    image.build(board.flash.image, image.firmware_files(image.find_firmware()))
    await board.power_on()
    await prints(board, "making keys")


async def test_an_interpreter_of_ours_runs_the_rescue_leaves_the_flash_and_goes_on_when_it_can_be_read(
    emulated_boards: "Benches",
) -> None:
    bench = await emulated_boards(
        files=image.firmware_files(image.find_firmware(), settings=SETTINGS), paced=False, boot="frozen"
    )
    board = bench.boards[NAME]
    assert not any(path.startswith(("/l/", "/r/", "/main.py")) for path in image.names(board.flash.image))
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.wait_for_reports(1)
        await board.power_off()
        whole = board.flash.image.read_bytes()
        make_unreadable(board.flash.image)
        unreadable = board.flash.image.read_bytes()
        for _ in range(2):
            await board.power_on()
            await prints(board, "rescue, start 1")
            board.usb.path.write_bytes(CTRL_A_TO_E + b"\r\x03\x03\x01import os\x04")
            async with asyncio.timeout(WITHIN_S):
                answer = None
                while answer is None:  # in the clear: without its flash it knows nobody
                    answer = await asker.ask_in_the_clear(messages.Hello(1))
            assert (answer.release, answer.board, answer.kid) == ("rescue", None, None)
            assert not any(text in board.usb.printed() for text in (">>>", "raw REPL", "making keys"))
            await board.power_off()
            assert board.flash.image.read_bytes() == unreadable
        assert board.formatted == 0
        board.flash.image.write_bytes(whole)
        await board.power_on()
        asker.session = None
        (made,) = await asker.wait_for_reports(1)
        assert made.boot == 2


async def test_a_new_chip_gets_a_file_system_and_one_with_a_single_byte_on_it_does_not(
    emulated_boards: "Benches",
) -> None:
    files = image.firmware_files(image.find_firmware())
    bench = await emulated_boards(files=files, powered=False, boot="frozen")
    board = bench.boards[NAME]
    blank = b"\xff" * len(board.flash.image.read_bytes())
    board.flash.image.write_bytes(blank[:-1] + b"\xfe")
    await board.power_on()
    await prints(board, "rescue, start 1")
    await board.power_off()
    board.flash.image.write_bytes(blank)
    await board.power_on()
    await prints(board, "keys made")
    await board.power_off()
    assert re.search("release [0-9.]+, start 1", board.usb.printed())
    assert "/k/keys.0" in image.names(board.flash.image)


async def test_the_slots_of_a_board_with_an_interpreter_of_ours_are_run_and_the_frozen_rescue_if_they_are_damaged(
    emulated_boards: "Benches",
) -> None:
    files = image.firmware_files(image.find_firmware()) | {"k/name.0": b"a board that is enrolled"}
    bench = await emulated_boards(files=files, powered=False, boot="frozen")
    board = bench.boards[NAME]
    await board.power_on()
    await prints(board, "release 0")
    await board.power_off()
    image.write(board.flash.image, {}, remove=["a/app.mpy"])
    await board.power_on()
    await prints(board, "rescue, start 2")


async def test_a_young_board_that_sees_the_empty_root_of_its_formatting_again_writes_nothing(
    emulated_boards: "Benches",
) -> None:
    files = image.firmware_files(image.find_firmware()) | {"k/name.0": b"a board that is enrolled"}
    bench = await emulated_boards(files=files, powered=False, boot="frozen")
    board = bench.boards[NAME]
    content = bytearray(board.flash.image.read_bytes())
    content[BLOCK_BYTES : 2 * BLOCK_BYTES] = b"\xff" * BLOCK_BYTES  # the half of the root that is newer
    board.flash.image.write_bytes(bytes(content))
    assert image.names(board.flash.image) == []
    await board.power_on()
    await prints(board, "rescue, start 1")
    await board.power_off()
    assert "the root is empty, and the flash is not" in board.usb.printed()
    assert board.flash.image.read_bytes() == bytes(content)
