"""P4 on the board: the power fails at every flash operation of a campaign, and again while the board goes on.

From the order to stage a release to its confirmation, or to its end: install, arm, trial, roll-back, an install given
up, a slot that is used again, and the rescue that installs where no slot is good. After each cut the image is read from
outside (littlefs-python, its own digests): the release that runs is untouched, a slot with an index is whole, the
record is there. Then the board goes on, and the campaign ends as it does without a cut.
"""

from typing import TYPE_CHECKING

import pytest
from tests.firmware.known_campaigns import CAMPAIGNS, HEAP_BYTES, NEW, Whole

from laterne_emulator import cut_sweep, image
from laterne_protocol.update_messages import FIRST_FILE

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps


@pytest.mark.parametrize("name", CAMPAIGNS)
async def test_a_campaign_ends_well_whatever_operation_is_cut_and_cut_again(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", name: str
) -> None:
    campaign = CAMPAIGNS[name]
    bench = await emulated_boards(
        files=campaign.files(),
        powered=False,
        heap_bytes=HEAP_BYTES,
        blocks=campaign.blocks,
        page_bytes=campaign.page_bytes,
        boot="frozen",
    )
    await cut_sweep.sweep(bench.boards["board-01"], Whole(campaign), fault_sweep, "board, campaign", campaign.ways)


async def test_a_bit_that_turns_over_while_the_rest_of_a_release_comes_is_found_before_the_slot_is_whole(
    emulated_boards: "Benches",
) -> None:
    campaign = CAMPAIGNS["a release is installed, tried and confirmed"]
    bench = await emulated_boards(files=campaign.files(), powered=False, heap_bytes=HEAP_BYTES, boot="frozen")
    board = bench.boards["board-01"]
    path = "deep/er/new.mpy"
    turned = cut_sweep.turn_a_bit_over_when_it_is_there(board, NEW.files[path])
    life = await cut_sweep.live(board)
    assert len(turned) == 1
    again = f"wants {FIRST_FILE + sorted(NEW.files).index(path)} 0"
    assert life.lines.count(again) == 1, "the file came again, and not behind another one as before"
    Whole(campaign).at_the_end(image.contents(board.flash.image), life, "a bit turned over")
