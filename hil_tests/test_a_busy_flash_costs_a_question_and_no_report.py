"""P1 while flash is busy: an erase makes the UART deaf beyond its FIFO, and what is asked meanwhile is asked again.

The real firmware on boards whose flash takes its time, the typical one and the longest that the data sheet allows. They
are asked without a pause, which no gateway does, so that questions do meet erases.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.firmware.questions import REPEAT_AFTER_S, Asker, asking

from laterne_emulator.flash import SLOWEST_TIMING, TYPICAL_TIMING
from laterne_emulator.uart import FIFO_BYTES
from laterne_protocol import frame

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

SETTINGS = {"report_s": 5, "sample_ms": 250}
REPORTS = 2
TIME = (1, 1_790_000_000_000, 12)  # a poll that tells the time is longer than the FIFO


@dataclass
class Count:
    """Of questions. longest: in bytes on the line."""

    asked: int = 0
    unanswered: int = 0
    longest: int = 0


def _counted(asker: Asker) -> Count:
    count, exchange = Count(), asker.exchange

    async def counting(sent: frame.Frame, within_s: float = REPEAT_AFTER_S) -> frame.Frame | None:
        received = await exchange(sent, within_s)
        count.asked += 1
        count.unanswered += received is None
        count.longest = max(count.longest, len(sent.to_bytes()) + 1)
        return received

    asker.exchange = counting  # type: ignore[method-assign]
    return count


async def test_what_meets_a_busy_flash_is_asked_again_and_no_report_is_lost(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(boards=2, settings=SETTINGS, timing=TYPICAL_TIMING)
    typical, slowest = bench.boards.values()
    slowest.flash.timing = SLOWEST_TIMING
    counts: dict[str, Count] = {}

    async def one(name: str) -> None:
        uart = bench.boards[name].uart
        async with asking(bench.lines[name].path) as asker:
            await asker.enrol(name)
            await asker.poll(TIME)
            uart.count.overrun = 0
            counts[name] = _counted(asker)
            while len(asker.reports) < REPORTS:  # the asker checks that each follows the one before
                await asker.poll(TIME)
            assert [made.sequence for made in asker.reports] == list(range(1, REPORTS + 1))
            await asker.poll()  # its acknowledgement

    async with asyncio.TaskGroup() as group:
        for name in bench.boards:
            group.create_task(one(name))
    for board in (typical, slowest):
        count, lost = counts[board.name], board.uart.count.overrun
        assert board.lives == []
        assert count.longest > FIFO_BYTES
        # All bytes that were lost are of questions that had no answer, and were repeated.
        assert lost <= count.unanswered * count.longest, board.name
    assert slowest.uart.count.overrun > 0, "nobody was deaf in erases of 0.4 s, and always somebody asked"
