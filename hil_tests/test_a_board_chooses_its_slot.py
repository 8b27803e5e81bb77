"""P4 on the board: what a start runs, release by release: what was proven, what is tried, and when it gives up."""

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.firmware.questions import WITHIN_S, asking

from laterne_emulator import image, slot_reading
from laterne_emulator.interpreter import compiled
from laterne_emulator.lives import Cause
from laterne_emulator.slots import Record, Release
from laterne_emulator.small_releases import CONFIRMS, HANGS, NOTHING, board_files, release
from laterne_protocol.manifest import envelope_of

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
DAMAGED, UNSUITABLE, CRASHED, POWER_FAILED = 1, 2, 3, 4
MAX_POWER_ONS = 32
RESCUE = release("RESCUE", NOTHING, 1)
OLD = release("OLD", NOTHING, 7)
NEW = release("NEW", NOTHING, 8)
RAISES = release("NEW", '    raise ValueError("a release that cannot work")', 8)
PROVEN = Record("a", floor=7, slots={"a": OLD.entry}, confirmed=("a",))


def tried(new: Release) -> Record:
    return replace(PROVEN, trial="b", slots={"a": OLD.entry, "b": new.entry})


async def a_board(emulated_boards: "Benches", a: Release, b: Release | None, record: Record | None) -> "EmulatedBoard":
    bench = await emulated_boards(files=board_files(a, b, record, RESCUE), powered=False)
    return bench.boards[NAME]


async def what_runs(board: "EmulatedBoard") -> str:
    """The release that a start by power runs; the board is off again afterwards."""
    async with asyncio.timeout(WITHIN_S):
        await board.power_on()
        await board.usb.wait_for_print("done")
        await board.power_off()
    (line,) = [line for line in board.usb.printed().splitlines() if line.startswith("runs ")]
    return line.removeprefix("runs ")


def record_of(board: "EmulatedBoard") -> Record:
    found = slot_reading.record(board.flash.image)
    assert found is not None
    return found


def damage(board: "EmulatedBoard", path: str) -> None:
    content = bytearray(image.read(board.flash.image, path) or b"")
    content[len(content) // 2] ^= 1
    image.write(board.flash.image, {path: bytes(content)})


# What was proven -------------------------------------------------------------------------------------------------


async def test_a_start_by_power_checks_the_active_slot_and_writes_nothing(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, NEW, PROVEN)
    assert await what_runs(board) == "OLD OLD from /a"
    assert board.flash.count.operations == 0
    damage(board, "/a/part.mpy")
    assert await what_runs(board) == "RESCUE RESCUE from /r"
    assert board.flash.count.operations == 0


@pytest.mark.parametrize("path", ["a/M", "a/app.mpy", "a/laterne_protocol/__init__.mpy"])
async def test_a_slot_that_lacks_a_file_is_not_run(emulated_boards: "Benches", path: str) -> None:
    board = await a_board(emulated_boards, OLD, None, PROVEN)
    image.write(board.flash.image, {}, remove=[path])
    assert await what_runs(board) == "RESCUE RESCUE from /r"


async def test_a_damaged_slot_gives_way_to_the_other_one_only_if_that_was_confirmed(
    emulated_boards: "Benches",
) -> None:
    both = {"a": OLD.entry, "b": NEW.entry}
    for confirmed, runs in ((("a",), "RESCUE RESCUE from /r"), (("a", "b"), "NEW NEW from /b")):
        board = await a_board(emulated_boards, OLD, NEW, replace(PROVEN, slots=both, confirmed=confirmed))
        damage(board, "/a/part.mpy")
        assert await what_runs(board) == runs


async def test_a_confirmed_slot_is_run_though_its_sequence_is_below_the_floor(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, None, replace(PROVEN, floor=100))
    assert await what_runs(board) == "OLD OLD from /a"


async def test_a_board_that_was_flashed_without_an_index_runs_its_first_slot(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, None, None)
    image.write(board.flash.image, {}, remove=["a/M"])
    assert await what_runs(board) == "OLD OLD from /a"


async def test_a_lost_record_proves_no_slot(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, NEW, None)
    assert await what_runs(board) == "RESCUE RESCUE from /r", "it was there: the index of the slot is"
    image.write(board.flash.image, {"slot.0": b"\xff" * 40, "slot.1": b""})
    assert await what_runs(board) == "RESCUE RESCUE from /r"
    image.write(board.flash.image, {"slot.1": PROVEN.files()["slot.1"]})
    assert await what_runs(board) == "OLD OLD from /a", "one copy is enough"


async def test_a_board_whose_loader_is_damaged_runs_the_rescue(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, NEW, PROVEN)
    for path in ("l/loader.mpy", "l/cbor.mpy", "l/slots.mpy"):
        image.write(board.flash.image, {}, remove=[path])
        assert await what_runs(board) == "RESCUE RESCUE from /r"


# What is tried ---------------------------------------------------------------------------------------------------


async def test_twenty_power_cuts_in_a_row_do_not_roll_a_release_back_and_thirty_three_do(
    emulated_boards: "Benches",
) -> None:
    board = await a_board(emulated_boards, OLD, NEW, tried(NEW))
    for start in range(1, 21):
        assert await what_runs(board) == "NEW NEW from /b"
        assert (record_of(board).power_ons, record_of(board).attempts) == (start, 0)
    twenty = board.folder / "twenty.img"
    shutil.copy(board.flash.image, twenty)
    good = release("NEW", CONFIRMS, 8)
    image.write(board.flash.image, good.in_slot("b") | tried(good).files())
    image.write(board.flash.image, replace(tried(good), power_ons=20).files())
    assert await what_runs(board) == "NEW NEW from /b"
    assert (record_of(board).active, record_of(board).floor) == ("b", 8)
    shutil.copy(twenty, board.flash.image)
    for _ in range(20, MAX_POWER_ONS):
        assert await what_runs(board) == "NEW NEW from /b"
    assert await what_runs(board) == "OLD OLD from /a"
    assert record_of(board) == replace(
        tried(NEW), trial=None, result=(POWER_FAILED, NEW.digest), refused=NEW.digest
    )  # fmt: skip


async def test_a_release_that_cannot_work_is_rolled_back_after_three_resets(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, RAISES, replace(tried(RAISES)))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await board.power_on()
    async with asyncio.timeout(60):  # with its pauses of 3 s; the start by power is a fourth one
        for life in range(4):
            await board.wait_for_life(life)
        await board.usb.wait_for_print("runs OLD OLD from /a")
    assert loop.time() - begun < 60
    await board.power_off()
    assert [life.cause for life in board.lives] == [Cause.POWER_ON, *[Cause.HARD] * 4]
    assert record_of(board).result == (CRASHED, RAISES.digest)


async def test_a_release_that_hangs_while_it_is_imported_is_started_again_by_the_watchdog(
    emulated_boards: "Benches",
) -> None:
    new = release("NEW", HANGS, 8)
    endless = {"part.mpy": compiled(b"while True:\n    pass\n", "part")}
    hanging = replace(new, files={**new.files, **endless})
    board = await a_board(emulated_boards, OLD, hanging, tried(hanging))
    await board.power_on()
    async with asyncio.timeout(WITHIN_S):
        life = await board.wait_for_life(0)
        await board.usb.wait_for_print("slot b is tried: start 1, by power 1")
    assert "watchdog" in life.ending.value
    await board.power_off()


async def test_a_release_below_the_floor_is_not_tried(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, NEW, replace(tried(NEW), floor=9))
    assert await what_runs(board) == "OLD OLD from /a"
    assert record_of(board).result == (UNSUITABLE, NEW.digest)


async def test_a_release_for_another_interpreter_is_not_tried(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, replace(NEW, abi=7), tried(replace(NEW, abi=7)))
    assert await what_runs(board) == "OLD OLD from /a"
    assert record_of(board).result == (UNSUITABLE, replace(NEW, abi=7).digest)


async def test_a_trial_whose_record_names_no_slot_ends(emulated_boards: "Benches") -> None:
    board = await a_board(emulated_boards, OLD, NEW, replace(PROVEN, trial="b"))
    assert await what_runs(board) == "OLD OLD from /a"
    assert record_of(board).trial is None


# The firmware itself ------------------------------------------------------------------------------------------------


def of_the_firmware(
    files: dict[str, bytes], sequence: int = 1, trial_s: int | None = None, **changed: bytes
) -> Release:
    """The release in slot a of an image, perhaps with other files."""
    paths = [path for path in files if path.startswith("a/") and path not in ("a/M", "a/E")]
    held = {path[2:]: files[path] for path in paths}
    if sequence == 1 and not changed:  # as it was built: its name depends on what its envelope says besides
        signed = envelope_of(files["a/E"])
        signed.index = files["a/M"]
        return Release(held, signed=signed)
    return Release(held | changed, sequence=sequence, trial_s=trial_s)


def with_slot_b(files: dict[str, bytes], new: Release) -> dict[str, bytes]:
    """An image that tries this release at its next start."""
    slots = {"a": of_the_firmware(files).entry, "b": new.entry}
    record = Record("a", trial="b", floor=1, slots=slots, confirmed=("a",))
    return files | new.in_slot("b") | record.files() | {"k/name.0": b"a board that is enrolled"}


async def test_a_release_that_kills_the_link_is_rolled_back_by_its_own_clock_and_the_board_answers_again(
    emulated_boards: "Benches",
) -> None:
    firmware = image.find_firmware()
    files = image.firmware_files(firmware, short=False)
    source = (firmware / "laterne_firmware" / "line.py").read_bytes()
    deaf = source.replace(b"if question.kind in _KINDS", b"if question.kind in ()")
    assert deaf != source
    path = "laterne_firmware/line.mpy"
    new = of_the_firmware(files, 2, trial_s=60, **{path: compiled(deaf, "line")})
    bench = await emulated_boards(files=with_slot_b(files, new), paced=False, powered=False, heap_bytes=256 * 1024)
    board = bench.boards[NAME]
    board.clock_ppm = 59_000_000  # a minute of the board takes a second
    await board.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        async with asyncio.timeout(60):
            for life in range(4):
                await board.wait_for_life(life)
        assert (await asker.hello()).release
    await board.power_off()
    assert record_of(board).result == (CRASHED, new.digest)


async def test_the_first_report_of_a_start_names_the_release_that_runs_and_no_other_does(
    emulated_boards: "Benches",
) -> None:
    files = image.firmware_files(image.find_firmware(), settings={"report_s": 5, "sample_ms": 250})
    bench = await emulated_boards(files=files, paced=False, powered=False)
    board = bench.boards[NAME]
    running = record_of(board).slots["a"][0][:8], False
    await board.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        for boot in (1, 2):
            found = await asker.wait_for_reports(2)
            assert [(made.boot, made.release) for made in found] == [(boot, running), (boot, None)]
            await board.power_off()
            # What is tried says so, too.
            before = record_of(board)
            image.write(board.flash.image, replace(before, active="b", trial="a").files())
            running = running[0], True
            await board.power_on()
            asker.session = None


async def test_the_rescue_speaks_in_sessions_and_takes_no_readings(emulated_boards: "Benches") -> None:
    settings = {"report_s": 5, "sample_ms": 250}
    bench = await emulated_boards(settings=settings, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.wait_for_reports(1)
        await board.power_off()
        damage(board, "/a/reports.mpy")
        served = bench.readings_served(NAME)
        await board.power_on()
        asker.session = None
        assert (await asker.hello()).release == "rescue"
        log = board.usb.printed()
        while (await asker.poll()).waiting:
            pass
        await asyncio.sleep(1)  # four rows of readings; that nothing happens is no event
        assert bench.readings_served(NAME) == served, log
        assert "rescue" in board.usb.printed()
    await board.power_off()
    # Repaired, it goes on where it was.
    good = image.firmware_files(image.find_firmware(), settings=settings)
    path = "a/reports.mpy"
    image.write(board.flash.image, {path: good[path]})
    await board.power_on()
    async with asking(bench.lines[NAME].path) as again:
        again.__dict__.update({**asker.__dict__, "_reader": again._reader, "_writer": again._writer, "session": None})
        (made,) = await again.wait_for_reports(1)
        assert made.boot == 3


async def test_starts_that_no_power_began_are_counted_until_one_has_lived_for_ten_minutes_or_the_power_begins_one(
    emulated_boards: "Benches",
) -> None:
    files = image.firmware_files(image.find_firmware()) | {"k/name.0": b"a board that is enrolled"}
    bench = await emulated_boards(files=files, paced=False, powered=False)
    board = bench.boards[NAME]
    before = record_of(board)

    async def resets(until: str) -> Record:
        lives = len(board.lives)
        async with asyncio.timeout(WITHIN_S):
            await board.power_on()
            await board.usb.wait_for_print("release")
            board.reset()
            await board.wait_for_life(lives)
            await board.usb.wait_for_print(until)
            await board.power_off()
        return record_of(board)

    assert await resets("release") == replace(before, attempts=1)
    assert await resets("release") == replace(before, attempts=1), "the power began a new row"
    board.clock_ppm = 399_000_000
    assert await resets("has run for ten minutes") == before
