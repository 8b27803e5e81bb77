"""The USB port of an emulated board: mpremote and a technician work with it, and it vanishes in a hard reset."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import serialx
from tests.emulator.talking import TALK, WITHIN_S

from laterne_emulator.board import EmulatedBoard
from laterne_emulator.lives import Ending

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches


async def mpremote(board: EmulatedBoard, *arguments: str, status: int = 0) -> str:
    tool = Path(sys.executable).with_name("mpremote")
    process = await asyncio.create_subprocess_exec(
        tool, "connect", board.usb.path, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(WITHIN_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == status, output
    return output.decode().replace("\r", "")


async def test_a_program_that_fails_leaves_the_repl(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={"main.py": b"1/0"})
    board = bench.boards["board-01"]
    await board.usb.wait_for_print(">>> ")
    assert "ZeroDivisionError" in board.usb.printed()
    assert "2" in await mpremote(board, "resume", "eval", "1+1")


async def test_mpremote_copies_lists_runs_and_resets(emulated_boards: "Benches", tmp_path: Path) -> None:
    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    every_byte = tmp_path / "every_byte.bin"
    every_byte.write_bytes(bytes(range(256)) * 8)
    await mpremote(board, "cp", str(every_byte), ":copy.bin")
    assert "2048 copy.bin" in await mpremote(board, "resume", "ls")
    await mpremote(board, "resume", "cp", ":copy.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == every_byte.read_bytes()
    assert await mpremote(board, "exec", "import sys; print(sys.path)") == "['', '.frozen', '/lib']\n"
    await mpremote(board, "soft-reset")
    lives = len(board.lives)
    await mpremote(board, "resume", "reset")
    assert (await board.wait_for_life(lives)).ending is Ending.RESET
    await board.usb.wait_for_print("ready")  # main.py runs again


async def test_mpremote_interrupts_a_running_program(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={"main.py": b"x = 7\nprint('looping')\nwhile True: pass"})
    board = bench.boards["board-01"]
    await board.usb.wait_for_print("looping")
    assert await mpremote(board, "resume", "exec", "print(x)") == "7\n"


async def test_ctrl_c_between_two_programs_of_the_repl_ends_no_board(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(blank=True)
    board = bench.boards["board-01"]
    await board.usb.wait_for_print(">>> ")
    reader, writer = await serialx.open_serial_connection(str(board.usb.path), baudrate=115200)
    writer.write(b"\x01")
    await board.usb.wait_for_print("raw REPL")
    for number in range(1500):  # programs that end about when their interruption comes
        writer.write(b"a=%d\x04" % number)
        await asyncio.sleep(number % 20 * 50e-6)
        writer.write(b"\x03")
    writer.write(b"\x03print('alive', 6*7)\x04")
    async with asyncio.timeout(WITHIN_S):
        await reader.readuntil(b"alive 42")
    assert not board.lives
    writer.close()


async def test_ctrl_c_interrupts_a_program_and_never_its_flash(emulated_boards: "Benches") -> None:
    program = b"""
import os
stopped, said = 0, -1
while True:
    try:
        while True:
            if said != stopped:
                said = stopped
                print("stopped", stopped, "times")
            for number in range(4):
                with open("file%d" % number, "w") as file:
                    file.write("*" * 1500)
            os.remove("file1")
    except KeyboardInterrupt:
        stopped += 1
"""
    bench = await emulated_boards(files={"main.py": program}, paced=False)
    board = bench.boards["board-01"]
    _, writer = await serialx.open_serial_connection(str(board.usb.path), baudrate=115200)
    async with asyncio.timeout(WITHIN_S):
        for number in range(200):
            await board.usb.wait_for_print(f"stopped {number} times")
            await asyncio.sleep(number % 20 * 50e-6)
            writer.write(b"\x03")
        await board.usb.wait_for_print("stopped 200 times")
    assert not board.lives
    assert not board.flash.misused
    writer.close()


async def test_every_byte_but_ctrl_c_reaches_a_program_through_the_repl(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={"main.py": b"import sys\nprint('go')\nprint(list(sys.stdin.buffer.read(5)))"})
    board = bench.boards["board-01"]
    await board.usb.wait_for_print("go")
    _, writer = await serialx.open_serial_connection(str(board.usb.path), baudrate=115200)
    writer.write(b"\x1c\x1a\x04\r\x11")  # to a terminal: SIGQUIT, SIGTSTP, end of file, newline, XON
    await board.usb.wait_for_print("[28, 26, 4, 13, 17]")
    writer.close()


async def test_the_usb_port_vanishes_in_a_hard_reset(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(blank=True)
    board = bench.boards["board-01"]
    before = board.usb.path.readlink()
    # mpremote has the port open when the board goes: it must not wait for ever.
    assert "rror" in await mpremote(board, "exec", "import machine; machine.reset()", status=1)
    await board.usb.wait_for_print(">>> ")
    assert board.usb.path.is_symlink()
    await board.power_off()
    assert not board.usb.path.is_symlink(), before


async def test_output_that_nobody_reads_does_not_stop_the_board(emulated_boards: "Benches") -> None:
    program = b"import machine\nfor i in range(3000): print('line', i, '.' * 50)\nmachine.Pin(25, machine.Pin.OUT)(1)"
    bench = await emulated_boards(files={"main.py": program})
    board = bench.boards["board-01"]
    async with asyncio.timeout(WITHIN_S):
        await board.pins.wait_for_output(25, 1)
    await board.usb.wait_for_print("line 2999")
    assert (board.folder / "console.log").stat().st_size < 300_000
    assert "4" in await mpremote(board, "resume", "eval", "2+2")
