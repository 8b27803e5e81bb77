"""P1 on the board: the power fails at every flash operation of appending and acknowledging, and no report is lost."""

import asyncio
import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from laterne_emulator import image
from laterne_emulator.flash import Cut, Torn

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

MAIN = Path(__file__).parent / "firmware_for_tests" / "backlog.py"
WITHIN_S = 20.0  # a bound for what would hang


class Life:
    """What one life said: its start, what it found, what it appended and acknowledged before it ended."""

    def __init__(self, said: str) -> None:
        self.boot = self.next_sequence = self.gaps = -1
        self.offered: dict[int, str] = {}
        self.appended: dict[int, str] = {}
        self.drafts: dict[int, str] = {}
        self.acknowledged = 0
        self.done = False
        for line in said.splitlines():
            match line.split():
                case ["start", boot, sequence, _, gaps]:
                    self.boot, self.next_sequence, self.gaps = int(boot), int(sequence), int(gaps)
                case ["offer", sequence, body]:
                    self.offered[int(sequence)] = body
                case ["append" | "adopt", sequence, body]:
                    self.appended[int(sequence)] = body
                case ["draft", sequence, body]:
                    self.drafts[int(sequence)] = body
                case ["acknowledge", sequence]:
                    self.acknowledged = int(sequence)
                case ["done"]:
                    self.done = True


async def _live(board: "EmulatedBoard", cut: Cut | None = None) -> Life:
    log = board.folder / "console.log"
    log.unlink(missing_ok=True)
    async with asyncio.timeout(WITHIN_S):
        await board.power_on(cut)
        down = asyncio.create_task(board.wait_until_down())
        done = asyncio.create_task(board.usb.wait_for_print("done"))
        await asyncio.wait([down, done], return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        await board.power_off()
        await down
    return Life(board.usb.printed())


def _check(before: Life, cut: Life, after: Life, at: str) -> None:
    used = before.appended | cut.offered | cut.appended
    acknowledged = max(before.acknowledged, cut.acknowledged)
    # The report that was being appended may be there or not; nobody has seen it.
    unseen = max(used) + 1
    wanted = {sequence: body for sequence, body in used.items() if sequence > acknowledged}
    assert {n: body for n, body in after.offered.items() if n in wanted} == wanted, at
    assert all(n in used or n == unseen for n in after.offered), at
    # What was open is a report now, unless its own report was appended in the very operation that was cut.
    draft = cut.drafts.get(unseen)
    if draft is not None:
        assert after.offered[unseen] == draft or unseen not in after.appended, at
        assert unseen in after.offered, at
    assert after.gaps == 0, at
    assert after.boot > max(before.boot, cut.boot), at
    assert after.next_sequence == max(after.offered) + 1, at
    assert after.done, at


@pytest.mark.parametrize("torn", [Torn.CLEAN, Torn.HEAD, Torn.RANDOM_BITS])
async def test_a_cut_at_any_flash_operation_loses_no_report(
    emulated_boards: "Benches", board_seed: int, torn: Torn
) -> None:
    files = image.firmware_files(image.find_firmware(), short=False) | {"main.py": MAIN.read_bytes()}
    bench = await emulated_boards(files=files, powered=False)
    board = bench.boards["board-01"]
    before = await _live(board)
    assert before.done
    whole = board.folder / "whole.img"
    shutil.copy(board.flash.image, whole)
    for at in itertools.count():
        shutil.copy(whole, board.flash.image)
        cut = await _live(board, Cut(at, torn, board_seed + at))
        if cut.done:
            assert at > 20  # the sweep has met appends, new segments, removals and the state record
            return
        _check(before, cut, await _live(board), f"cut at operation {at}, {torn.value}")
