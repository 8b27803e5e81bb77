"""P1 on the board: the power fails at every flash operation of appending and acknowledging, and no report is lost.

Each operation is torn in each way, on a new board and on one that has a backlog; and a second cut comes while the board
starts after the first.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from laterne_emulator import cut_sweep, image
from laterne_emulator.flash import Cut, Torn

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps
    from laterne_emulator.sweep import Case

MAIN = Path(__file__).parent / "firmware_for_tests" / "backlog.py"


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
    await cut_sweep.live(board, cut)
    return Life(board.usb.printed())


def _check(before: Life, cut: Life, after: Life, at: str) -> None:
    used = before.appended | cut.offered | cut.appended
    acknowledged = max(before.acknowledged, cut.acknowledged)
    # The report that was being appended may be there or not; nobody has seen it.
    unseen = max(used, default=0) + 1
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
    assert after.next_sequence == max(after.offered, default=0) + 1, at
    assert after.done, at


def _count(case: "Case", before: Life, cut: Life, after: Life) -> None:
    """sent: what had been appended and not been acknowledged. delivered: what the board still offers of it."""
    acknowledged = max(before.acknowledged, cut.acknowledged)
    used = before.appended | cut.offered | cut.appended
    wanted = {sequence: body for sequence, body in used.items() if sequence > acknowledged}
    found = {sequence for sequence, body in after.offered.items() if wanted.get(sequence) == body}
    case.survived(sent=len(wanted), delivered=len(found), lost=len(set(wanted) - found))


def _files() -> dict[str, bytes]:
    return image.firmware_files(image.find_firmware(), short=False) | {"main.py": MAIN.read_bytes()}


@pytest.mark.parametrize("torn", list(Torn), ids=lambda torn: torn.value)
@pytest.mark.parametrize("lives", [0, 1, 2])
async def test_a_cut_at_any_flash_operation_loses_no_report(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", torn: Torn, lives: int
) -> None:
    """lives: how often the board has run before."""
    bench = await emulated_boards(files=_files(), powered=False)
    board = bench.boards["board-01"]
    before = Life("")
    for _ in range(lives):
        former, before = before, await _live(board)
        before.appended = former.appended | before.appended
        assert before.done
    whole = board.folder / "whole.img"
    shutil.copy(board.flash.image, whole)
    for case in fault_sweep("board, power cut"):
        with case:
            at = case.number
            shutil.copy(whole, board.flash.image)
            cut = await _live(board, Cut(at, torn, case.seed))
            if cut.done:
                assert at > 20  # the sweep has met appends, new segments, removals and the state record
                return
            after = await _live(board)
            _count(case, before, cut, after)
            _check(before, cut, after, f"cut at operation {at}, {torn.value}")


@pytest.mark.parametrize("torn", [Torn.HEAD, Torn.RANDOM_BITS], ids=lambda torn: torn.value)
async def test_a_second_cut_while_the_board_starts_again_loses_no_report(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", torn: Torn
) -> None:
    bench = await emulated_boards(files=_files(), powered=False)
    board = bench.boards["board-01"]
    before = await _live(board)
    whole = board.folder / "whole.img"
    shutil.copy(board.flash.image, whole)
    for case in fault_sweep("board, cut again", quick=60):
        with case:
            first, second = case.number % 40, case.dice.randrange(10)
            shutil.copy(whole, board.flash.image)
            cut = await _live(board, Cut(first, torn, case.seed))
            again = await _live(board, Cut(second, torn, case.seed + 1))
            after = await _live(board)
            both = Life("")
            both.boot = max(cut.boot, again.boot)
            both.offered, both.appended = cut.offered | again.offered, cut.appended | again.appended
            both.acknowledged = max(cut.acknowledged, again.acknowledged)
            _count(case, before, both, after)
            _check(before, both, after, f"cut at operation {first}, again at {second}, {torn.value}")
