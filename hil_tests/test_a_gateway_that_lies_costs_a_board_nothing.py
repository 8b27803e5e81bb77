"""P3 on the board: who holds its line sends too much, too little, the wrong thing, slowly, for ever, or nothing."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.attacked import SETTINGS, SMALL, attacked
from tests.firmware.release_end import SignedRelease, told_to_stage

from laterne_emulator import image
from laterne_protocol import fields, messages, receipt
from laterne_protocol.update_messages import ENVELOPE, FAILED, INDEX, RECEIVING, STAGED

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NOT_THE_ORDERED_ONE, TOO_OLD, BAD_FILE = 16, 20, 23


async def test_parts_that_are_not_wanted_cost_a_board_nothing(emulated_boards: "Benches") -> None:
    async with attacked(emulated_boards) as victim:
        envelope = SMALL.signed_by(victim.authority.release_key)
        sender = victim.sender(envelope)
        assert (await told_to_stage(victim.operator, sender)).outcome == receipt.DONE
        assert (await sender.ask()).wanted == (SMALL.digest, ENVELOPE, 0, 1024, 0, 10, 0)
        count = victim.operations
        data = messages.Data
        for number in range(3):  # endless, but for this test's end
            for wrong in (
                data(number, INDEX, 0, 4096, 0, 4096, 0, bytes(900)),  # another item
                data(number, 161, 32767, 1, 3, 4096, 3196, bytes(900)),  # the last one there could be
                data(number, ENVELOPE, 1, 900, 0, 900, 0, bytes(900)),  # another block
                data(number, ENVELOPE, 0, 300, 1, 300, 0, bytes(300)),  # another encoding
                data(number, ENVELOPE, 0, 1025, 0, 900, 0, bytes(900)),  # more content than is wanted
                data(number, ENVELOPE, 0, 1024, 0, 1025, 0, bytes(900)),  # longer than any
                data(number, ENVELOPE, 0, 300, 0, 300, 0, bytes(30)),  # the first one, again and again
                data(number, ENVELOPE, 0, 300, 0, 300, 60, bytes(30)),  # not the next part
                data(number, ENVELOPE, 0, 300, 0, 299, 30, bytes(30)),  # the next part of something else
                data(number, ENVELOPE, 0, 299, 0, 300, 30, bytes(30)),  # or of something shorter
            ):
                await sender.data(wrong)
        assert (await sender.ask()).wanted == (SMALL.digest, ENVELOPE, 0, 1024, 30, 10, 0)
        for offset in range(0, len(envelope), 7):  # slowly
            part = envelope[offset : offset + 7]
            await sender.data(data(0, ENVELOPE, 0, len(envelope), 0, len(envelope), offset, part))
        assert victim.operations == count
        assert (await sender.send_all()).phase == STAGED
    assert len(victim.board.lives) == 1, "it has been on since it was enrolled"


async def test_a_gateway_that_drops_or_delays_a_release_costs_no_reading(emulated_boards: "Benches") -> None:
    """Drop-request, slow retrieval, freeze: the board goes on as it is, and says what it wants to whoever asks."""
    async with attacked(emulated_boards, settings={**SETTINGS, "report_s": 5, "sample_ms": 200}) as victim:
        sender = victim.sender(SMALL.signed_by(victim.authority.release_key))
        assert (await told_to_stage(victim.operator, sender)).outcome == receipt.DONE
        assert (await sender.ask()).wanted == (await sender.ask()).wanted == (SMALL.digest, ENVELOPE, 0, 1024, 0, 10, 0)
        await sender.until(lambda found: found.wanted is not None and found.wanted[1:3] == (3, 8184))
        await sender.send(3, 8184, 0, SMALL.item(3)[8184:12000], most=100)
        await victim.asker.wait_for_reports(1)
        found = await sender.ask()
        assert found.phase == RECEIVING
        assert (await sender.send_all()).phase == STAGED
        assert [one.sequence for one in victim.asker.reports] == list(range(1, len(victim.asker.reports) + 1))


async def test_the_largest_sequence_that_a_release_key_signs_moves_no_floor_without_an_order(
    emulated_boards: "Benches",
) -> None:
    """Fast-forward: who has the release key alone cannot bring a board beyond all sequences that are to come."""
    async with attacked(emulated_boards) as victim:
        huge = SignedRelease(SMALL.files, sequence=fields.MAX_UINT)
        envelope = huge.signed_by(victim.authority.release_key)
        sender = victim.sender(envelope, huge)
        for told in (9, fields.MAX_UINT - 1):
            assert (await told_to_stage(victim.operator, sender, sequence=told)).outcome == receipt.DONE
            found = await sender.send_all()
            assert (found.phase, found.result, found.floor) == (FAILED, (TOO_OLD, huge.digest), 1)
        assert await victim.judged(envelope) == NOT_THE_ORDERED_ONE  # ordered was another one


async def test_blocks_without_an_end_are_written_up_to_a_limit_and_then_no_more(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    """The limit is 2,048 of flash; here it is five, so that this ends. After an operator's order it begins anew."""
    shutil.copytree(image.find_firmware(), tmp_path / "firmware")
    source = tmp_path / "firmware" / "laterne_firmware" / "updating.py"
    text = source.read_text(encoding="utf-8")
    assert "_MAX_BLOCKS = const(2048)" in text
    source.write_text(text.replace("_MAX_BLOCKS = const(2048)", "_MAX_BLOCKS = const(5)"), encoding="utf-8")
    async with attacked(emulated_boards, firmware=tmp_path / "firmware") as victim:
        sender = victim.sender(SMALL.signed_by(victim.authority.release_key))
        assert (await told_to_stage(victim.operator, sender)).outcome == receipt.DONE
        found = await sender.send_all()  # the index, a block of three that are written; then there is no more
        assert (found.phase, found.result) == (FAILED, (BAD_FILE, SMALL.digest))
        count = victim.operations
        for item in (INDEX, 2, 3):
            await sender.send(item, 0, 0, bytes(900))
        assert (await sender.ask()).phase == FAILED
        assert victim.operations == count
        assert (await told_to_stage(victim.operator, sender)).outcome == receipt.DONE
        assert (await sender.send_all()).phase == STAGED
