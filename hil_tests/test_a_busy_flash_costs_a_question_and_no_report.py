"""While flash is busy: an erase makes the UART deaf beyond its FIFO, and what is asked meanwhile is asked again (P1).

The real firmware on boards whose flash takes its time, the typical one and the longest that the data sheet allows. They
are asked without a pause, which no gateway does, so that questions do meet erases.
"""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from tests.firmware.questions import REPEAT_AFTER_S, Asker, asking
from tests.firmware.release_end import Sender, SignedRelease, in_a_post, running, told_to_stage

from laterne_emulator.flash import SLOWEST_TIMING, TYPICAL_TIMING
from laterne_emulator.uart import FIFO_BYTES
from laterne_protocol import frame, receipt
from laterne_protocol.update_messages import STAGED

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

RARELY = {"report_s": 3600, "sample_ms": 3600000}
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

    asker.exchange = counting  # type: ignore[method-assign]  # of this one only
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


async def test_no_byte_of_a_release_meets_a_busy_flash(emulated_boards: "Benches") -> None:
    _, files = running(RARELY)
    content = b"".join(sha256(b"%d" % number).digest() for number in range(350))
    release = SignedRelease({"laterne_firmware/app.mpy": b"anything", "lib/more.mpy": content}, sequence=9)
    bench = await emulated_boards(files=files, timing=TYPICAL_TIMING)
    async with in_a_post(bench) as (board, asker, operator):
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key))
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        count, erases = _counted(asker), board.flash.count.erases
        board.uart.count.overrun = 0
        assert (await sender.send_all()).phase == STAGED
    lost = board.uart.count.overrun
    assert sender.bytes_sent > len(content)
    assert board.flash.count.erases > erases + 3
    # Nothing of a release comes while the board writes; a question does that was repeated, for a busy machine.
    assert lost <= count.unanswered * count.longest
