"""P3 on the board: both copies of the record of the slots are gone. The rescue takes updates, but no older release."""

from typing import TYPE_CHECKING

import pytest
from tests.firmware.release_end import Sender, SignedRelease, in_a_post, running, told_to_stage

from laterne_emulator import image, slots
from laterne_emulator.slots import Release
from laterne_protocol import order, receipt
from laterne_protocol.update_messages import RESCUE

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

OTHER = SignedRelease({"other.mpy": b"was here before"}, sequence=6)
SETTINGS = {"report_s": 3600, "sample_ms": 3600000}


def under(release: Release, sequence: int) -> SignedRelease:
    """The same files under another sequence."""
    return SignedRelease(release.files, "0.2.0", sequence=sequence)


@pytest.mark.parametrize("lost", ["damaged", "gone"])
async def test_a_board_without_its_record_takes_no_release_below_the_highest_that_lies_on_it(
    emulated_boards: "Benches", lost: str
) -> None:
    old, files = running(SETTINGS)
    bench = await emulated_boards(files=files | OTHER.in_slot("b"), paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        await board.power_off()
        image.write(board.flash.image, under(old, 7).in_slot("a"))
        if lost == "gone":
            image.write(board.flash.image, {}, remove=["slot.0", "slot.1"])
        else:
            image.write(board.flash.image, {"slot.0": b"\xff" * 99, "slot.1": b""})
        await board.power_on()
        await board.usb.wait_for_print("the record of the slots is lost: rescue")
        await board.usb.wait_for_print("start 3")
        asker.session = None
        key = asker.authority.release_key
        older, newer = (SignedRelease({"laterne_firmware/app.mpy": b"anything"}, sequence=each) for each in (6, 8))
        sender = Sender(asker, older, older.signed_by(key))
        found = await sender.ask()
        assert (found.phase, found.floor) == (RESCUE, 7)
        assert (await told_to_stage(operator, sender)).reason == receipt.BELOW_FLOOR
        sender = Sender(asker, newer, newer.signed_by(key))
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        done = await sender.send_all()
        assert (done.staged, done.floor) == (newer.digest, 7)
        armed = operator.order(order.ARM, [newer.digest, done.nonce, 2_000_000_000])
        assert (await operator.told(armed)).outcome == receipt.DONE
    await board.power_off()
    record = slots.Record.of(image.read(board.flash.image, "slot.0") or b"")
    assert record is not None
    assert (record.trial, record.floor) == ("b", 7)  # from now on it is in the record again


async def test_a_damaged_envelope_is_no_floor_and_does_not_hide_the_others(emulated_boards: "Benches") -> None:
    """At last there is the rescue's, which nobody writes: of the day on which the board was flashed."""
    old, files = running(SETTINGS)
    bench = await emulated_boards(files=files | OTHER.in_slot("b"), paced=False)
    async with in_a_post(bench) as (board, asker, _):
        await board.power_off()
        image.write(board.flash.image, {}, remove=["slot.0", "slot.1"])
        damaged = bytearray(under(old, 9).envelope)
        damaged[damaged.index(b"\x01\x01\x02\x09") + 3] = 10  # the sequence: a bit of the flash, or whoever holds it
        for start, (slot, floor) in enumerate((("a", OTHER.sequence), ("b", old.sequence)), 3):
            image.write(board.flash.image, {f"{slot}/E": bytes(damaged)})
            await board.power_on()
            await board.usb.wait_for_print(f"start {start}")
            asker.session = None
            assert (await Sender(asker, OTHER, b"").ask()).floor == floor
            await board.power_off()
