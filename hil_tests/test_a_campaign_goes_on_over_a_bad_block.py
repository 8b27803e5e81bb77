"""P4 on the board: one block of the flash does not take what is written, whichever it is, while a release is installed.

What littlefs finds by reading back it writes to another block; what the driver refuses, and the two blocks of the root,
which stay where they are, may end the campaign. Then the release that runs is untouched, the record says so, and on a
flash that takes everything the campaign goes on from there and ends as it would have. In a soak the power fails, too.
"""

from typing import TYPE_CHECKING

from tests.firmware.known_campaigns import CAMPAIGNS, HEAP_BYTES, Whole

from laterne_emulator import cut_sweep, damage, image
from laterne_emulator.flash import Cut, Torn
from laterne_emulator.sweep import Settings

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

SAYS = ("Traceback", "refuses", "is not tried")
NAME = "a release is installed, tried and confirmed"


async def test_a_block_that_does_not_take_what_is_written_costs_no_release(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    campaign = CAMPAIGNS[NAME]
    bench = await emulated_boards(
        files=campaign.files(), powered=False, heap_bytes=HEAP_BYTES, blocks=campaign.blocks, boot="frozen"
    )
    board = bench.boards["board-01"]
    before = board.flash.image.read_bytes()
    judge = Whole(campaign)
    operations = board.flash.count.operations
    await cut_sweep.goes_on(board, before, judge, "without a bad block")
    operations = board.flash.count.operations - operations
    is_soak = Settings.found(None, None).factor > 1
    cases = fault_sweep("board, campaign, bad block", quick=150)
    harms = damage.every(list(range(campaign.blocks)), damage.WHEN_WRITTEN, cases.seed)
    for case, (number, harm) in zip(cases, enumerate(harms), strict=False):
        while number < case.number:  # one case is repeated
            number, harm = number + 1, next(harms)
        with case:
            harm.do(board.flash, before)
            said = ""
            if is_soak and number % 2:
                cut = Cut(case.dice.randrange(operations), case.dice.choice(list(Torn)), case.seed)
                said = (await cut_sweep.live(board, cut)).printed
                judge.at_any_time(image.contents(board.flash.image), f"{harm}, {cut}")
            life = await cut_sweep.live(board)
            said += life.printed
            found = image.contents(board.flash.image)
            ended = life.is_done and "Traceback" not in life.printed and life.runs[-1] == campaign.runs
            if ended:
                judge.at_the_end(found, life, str(harm))
            else:
                judge.at_any_time(found, str(harm))
                assert any(why in said for why in SAYS), f"{harm}: {said}"
                board.flash.bad = None
                if "order 1 refused" in said or "order 2 refused" in said:  # the operator has to give it again
                    assert (await cut_sweep.live(board)).runs[-1] == "OLD OLD from /a", str(harm)
                else:
                    await cut_sweep.goes_on(board, board.flash.image.read_bytes(), judge, f"{harm}, then a good flash")
            cases.ended("as without" if ended else "goes on later")
            case.survived()
