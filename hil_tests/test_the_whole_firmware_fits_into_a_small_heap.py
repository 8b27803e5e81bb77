"""A board with three sensors makes its keys, is enrolled, shakes hands and delivers reports in less heap than it has.

The unix port has objects twice as large as a board's: what fits here fits there (firmware/README.md, "Memory").
"""

from typing import TYPE_CHECKING

from tests.firmware.questions import asking

from laterne_emulator.image import find_firmware, firmware_files, main_with
from laterne_protocol import report_reading

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SERVICE_PIN = 22
HEAP_BYTES = 140 * 1024  # emulated boards have 152 for updates (laterne_emulator.board)
HANDSHAKES = 20
# Handshakes follow one another here without the half minute that a board puts between them.
WITHOUT_BOUNDS = b"""
from sessions import Bucket
Bucket.REFILL_MS = 1
del Bucket
"""
NEAR_THE_WRAP_MS = (1 << 30) - 9000  # ticks wrap while the board works


async def test_a_board_with_three_sensors_starts_and_reports_in_140_kib_and_never_starts_again(
    emulated_boards: "Benches",
) -> None:
    bench = await emulated_boards(
        settings={"report_s": 5, "sample_ms": 200}, paced=False, powered=False, heap_bytes=HEAP_BYTES
    )
    board = bench.boards[NAME]
    board.ticks_at_start_ms = NEAR_THE_WRAP_MS
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        for made in await asker.wait_for_reports(3):
            assert made.boot == 1
            assert {channel for channel, *_ in report_reading.readings_of(made)} == {1, 2, 3, 4}
    assert board.lives == []
    assert "MemoryError" not in board.usb.printed()


async def test_twenty_handshakes_need_no_more_memory_than_one(emulated_boards: "Benches") -> None:
    files = firmware_files(find_firmware(), settings={"report_s": 60, "sample_ms": 2000}, used_by=WITHOUT_BOUNDS)
    main = main_with(files["main.py"], WITHOUT_BOUNDS)
    bench = await emulated_boards(files={**files, "main.py": main}, paced=False, powered=False, heap_bytes=HEAP_BYTES)
    board = bench.boards[NAME]
    await bench.power_on()
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        for _ in range(HANDSHAKES):
            await asker.shake_hands()
            assert (await asker.hello()).boot == 1
        board.pins.drive(SERVICE_PIN, 0)
        await asker.wait_for_reports(1)
        assert asker.handshakes == HANDSHAKES
    assert board.lives == []
    assert "no memory" not in board.usb.printed()
