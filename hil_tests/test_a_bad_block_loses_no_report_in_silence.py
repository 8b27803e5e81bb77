"""P1 on the board: one block of the flash is bad, and each report that was there is offered, or stated as lost.

The backlog alone, on a flash of a board that has run before: it starts on the bad block, offers, appends and
acknowledges; then once more on a flash on which all blocks are good. No number is used twice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from laterne_emulator import cut_sweep, damage, image

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

MAIN = Path(__file__).parent / "firmware_for_tests" / "backlog.py"
UNUSABLE = "the flash stays as it is: rescue"


class Life:
    """What one life said. stated: numbers that it states as lost."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.offered: dict[int, str] = {}
        self.appended: dict[int, str] = {}
        self.stated: set[int] = set()
        for line in said.splitlines():
            match line.split():
                case ["offer", sequence, body]:
                    self.offered[int(sequence)] = body
                case ["append" | "adopt", sequence, body]:
                    self.appended[int(sequence)] = body
                case ["gap", first, last, _]:
                    self.stated |= set(range(int(first), int(last) + 1))

    @property
    def has_no_flash(self) -> bool:
        return UNUSABLE in self.said


async def live(board: "EmulatedBoard") -> Life:
    return Life((await cut_sweep.live(board)).printed)


def is_older(before: Mapping[str, bytes], board: "EmulatedBoard", harmed: bytes) -> bool:
    """Whether littlefs shows a folder as it was some commits before: it takes what follows damage for a torn commit."""
    place = board.folder / "harmed.img"
    place.write_bytes(harmed)
    found, unreadable = image.readable(place)
    return any(len(found.get(path, b"")) < len(before[path]) for path in before if path not in unreadable)


def main() -> bytes:
    """The program, with more of a backlog, and an end whatever happens."""
    source = MAIN.read_bytes().replace(b"APPENDED, KEPT = 5, 2", b"APPENDED, KEPT = 7, 16")
    made = source.replace(
        b"\nstart()\n", b'\ntry:\n    start()\nexcept Exception as why:\n    print("ended by", why)\nprint("done")\n'
    )
    assert made.count(b"KEPT = 7, 16") == made.count(b"ended by") == 1
    return made


async def test_each_report_is_offered_or_stated_as_lost_whatever_block_is_bad(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    files = image.firmware_files(image.find_firmware(), short=False) | {"main.py": main()}
    bench = await emulated_boards(files=files, powered=False, boot="frozen", heap_bytes=256 * 1024)
    board = bench.boards["board-01"]
    there = damage.used(board.flash.image)
    lives = [await live(board) for _ in range(3)]
    used = {number: body for life in lives for number, body in life.appended.items()}
    acknowledged = max(used) - 16
    assert len(used) == 21
    before = board.flash.image.read_bytes()
    before_files = image.contents(board.flash.image)
    blocks = [0, 1, *(block for block in damage.used(board.flash.image) if block not in there)]
    cases = fault_sweep("board, backlog, bad block", quick=100)
    harms = damage.every(blocks, damage.AT_REST + damage.WHEN_WRITTEN, cases.seed)
    for case, (number, harm) in zip(cases, enumerate(harms), strict=False):
        while number < case.number:  # one case is repeated
            number, harm = number + 1, next(harms)
        with case:
            harmed = harm.do(board.flash, before)
            first = await live(board)
            if first.has_no_flash:
                assert board.flash.image.read_bytes() == harmed, str(harm)
                cases.ended("without its flash")
                case.survived()
                continue
            if is_older(before_files, board, harmed):
                assert "ended by" not in first.said, str(harm)
                cases.ended("older state")
                case.survived()
                continue
            board.flash.bad = None
            second = await live(board)
            said = f"{harm}\n{first.said}\n{second.said}"
            made = used | first.appended
            assert not set(first.appended) & set(used), f"a number twice: {said}"
            assert not set(second.appended) & set(made), f"a number twice: {said}"
            wanted = {number for number in made if number > acknowledged}
            offered = {
                number for life in (first, second) for number, body in life.offered.items() if made.get(number) == body
            }
            lost = wanted - offered - first.stated - second.stated
            case.survived(sent=len(wanted), delivered=len(wanted & offered), lost=len(lost))
            assert not lost, f"{sorted(lost)} are lost in silence: {said}"
            whole = first.said.count("ended by") == 0 and wanted <= offered
            cases.ended("as without" if whole else "goes on later")
