"""A board with three sensors makes its keys, is enrolled and delivers reports in less heap than the budget gives it.

The unix port has objects twice as large as a board's: what fits here fits there (firmware/README.md, "Memory").
"""

from typing import TYPE_CHECKING

from tests.firmware.questions import asking

from laterne_protocol import report_reading

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
HEAP_BYTES = 124 * 1024  # four KiB less than the budget of design.md 11
NEAR_THE_WRAP_MS = (1 << 30) - 9000  # ticks wrap while the board works


async def test_a_board_with_three_sensors_starts_and_reports_in_124_kib_and_never_starts_again(
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
