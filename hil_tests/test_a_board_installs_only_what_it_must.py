"""P1 and P3 on the board: releases that are forged, for others, old or not ordered cost no flash operation.

Flash operations are counted at the block device. The board takes readings and closes reports rarely here, so what is
counted would be the installer's.
"""

from typing import TYPE_CHECKING

from tests.firmware.release_end import Sender, SignedRelease, in_a_post, running, told_to_stage
from tests.gateway.fake_authority import Key

from laterne_emulator import image
from laterne_protocol import messages, order, receipt
from laterne_protocol.update_messages import FAILED, IDLE

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

SETTINGS = {"report_s": 3600, "sample_ms": 3600000}
NOT_THE_ORDERED_ONE, NOT_SIGNED, TOO_OLD = 16, 17, 20


async def test_no_flash_is_written_for_a_release_that_is_not_proved(emulated_boards: "Benches") -> None:
    _, files = running(SETTINGS)
    release = SignedRelease({"laterne_firmware/app.mpy": b"anything"}, "0.2.0", sequence=9)
    other = SignedRelease({"laterne_firmware/app.mpy": b"other"}, "0.3.0", sequence=9)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        key = asker.authority.release_key
        good = release.signed_by(key)
        sender = Sender(asker, release, good)
        # Without an order, with an old nonce, below the floor: nothing is asked for.
        assert (await sender.ask()).phase == IDLE
        await sender.send(0, 0, 0, good)
        assert (await sender.ask()).phase == IDLE
        assert (await told_to_stage(operator, sender, nonce=bytes(8))).reason == receipt.OLD_NONCE
        assert (await told_to_stage(operator, sender, sequence=0)).reason == receipt.BELOW_FLOOR
        nonce = (await sender.ask()).nonce
        early = operator.order(order.ARM, [release.digest, nonce, 2_000_000_000])
        assert (await operator.told(early)).reason == receipt.NOT_STAGED
        mutated = bytearray(good)
        mutated[-9] ^= 1  # in the manifest
        wrong = {
            "nobody has signed it": (release.signed_by(), NOT_SIGNED),
            "a stranger has signed it": (release.signed_by(Key()), NOT_SIGNED),
            "the order key has signed it": (release.signed_by(asker.authority.order_key), NOT_SIGNED),
            "another release": (other.signed_by(key), NOT_THE_ORDERED_ONE),
            "a byte is another one": (bytes(mutated), NOT_THE_ORDERED_ONE),
            "no envelope": (b"\xff" * 300, NOT_THE_ORDERED_ONE),
        }
        for what, (envelope, result) in wrong.items():
            sender = Sender(asker, release, envelope)
            assert (await told_to_stage(operator, sender)).outcome == receipt.DONE, what
            count = board.flash.count.operations
            # Parts of other items, and too much of this one, change nothing.
            await sender.send(2, 0, 0, b"x" * 4096)
            found = await sender.send_all()
            assert (found.phase, found.result) == (FAILED, (result, release.digest)), what
            assert board.flash.count.operations == count, what
        # Ordered with another sequence than the one that is signed.
        sender = Sender(asker, release, good)
        assert (await told_to_stage(operator, sender, sequence=10)).outcome == receipt.DONE
        count = board.flash.count.operations
        assert (await sender.send_all()).result == (TOO_OLD, release.digest)
        assert board.flash.count.operations == count
        assert isinstance(await sender.ask(), messages.Progress)
    await board.power_off()
    assert [name for name in image.names(board.flash.image) if name.startswith("/b/")] == []
