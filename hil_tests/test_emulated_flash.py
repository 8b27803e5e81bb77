"""The flash of an emulated board: power fails at any operation and tears it, cells fail, and a busy flash is deaf."""

import asyncio
import itertools
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.emulator.talking import FIRMWARE, TALK, talking

from laterne_emulator import image
from laterne_emulator.board import EmulatedBoard
from laterne_emulator.cut_states import States, Trace, left_by
from laterne_emulator.flash import Cut, Flash, FlashMisuse, FlashTiming, Torn, torn_erase, torn_program
from laterne_emulator.lives import Ending
from laterne_emulator.uart import FIFO_BYTES

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

UPDATE = {"main.py": (FIRMWARE / "update.py").read_bytes(), "file": b"A" * 700}
NEW = b"B" * 1300


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


async def test_an_image_made_of_a_recorded_run_is_the_one_that_a_cut_leaves(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files=UPDATE, powered=False)
    board = bench.boards["board-01"]
    fresh = board.flash.image.read_bytes()
    trace = Trace(board.flash)
    assert await _update(board, Cut(1000))
    run = trace.end()
    assert run.before == fresh
    assert len(run.operations) > 4
    for at in range(len(run.operations)):
        for torn in Torn:
            board.flash.image.write_bytes(fresh)
            cut = Cut(at, torn, seed=at)
            assert not await _update(board, cut)
            left = zip(board.flash.image.read_bytes(), left_by(run, cut), strict=True)
            # But for the times of two files, which littlefs keeps, and the checksums over them.
            assert sum(really != made for really, made in left) <= 12 * (at + 1), cut
    made = list(States(run, seed=1).all_of_one_seed())
    assert len({state.image for state in made}) == len(made) > 2 * len(run.operations)
    endless = list(itertools.islice(States(run, seed=1), 4 * len(made)))
    assert endless[: len(made)] == made
    assert len({state.image for state in endless}) == len(endless), "with other seeds there are others"
