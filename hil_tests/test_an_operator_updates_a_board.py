"""P3 on the board: a release is fetched, checked and written beside the running one, tried and confirmed; readings and
reports go on, and a loss of power delays it only."""

from typing import TYPE_CHECKING

from tests.firmware.release_end import Sender, SignedRelease, assert_whole, in_a_post, running, told_to_stage

from laterne_emulator import image, slots
from laterne_emulator.lives import Ending
from laterne_protocol import order, receipt
from laterne_protocol.update_messages import IDLE, RECEIVING, STAGED, TRIAL

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

ROOMY_BYTES = 256 * 1024
SETTINGS = {"report_s": 5, "sample_ms": 500}
CHANGED = "clock.mpy"
NEW = {"extra.mpy": bytes(range(256)) * 80, "none.mpy": b""}


def next_release(old: slots.Release) -> SignedRelease:
    """One file more, an empty one, and one that a firmware does not notice: its last byte is behind the code."""
    return SignedRelease({**old.files, **NEW, CHANGED: old.files[CHANGED] + b"\0"}, "0.2.0", sequence=2)


async def test_a_release_is_staged_tried_and_confirmed_while_readings_go_on(emulated_boards: "Benches") -> None:
    old, files = running(SETTINGS)
    release = next_release(old)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key), old)
        before = await sender.ask()
        assert (before.phase, before.running, before.sequence, before.wanted) == (IDLE, old.digest, 1, None)
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        first = await sender.ask()
        assert (first.phase, first.wanted, first.credit) == (RECEIVING, (release.digest, 0, 0, 1024, 0, 10, 0), 1024)
        assert first.nonce != before.nonce
        done = await sender.send_all()
        assert (done.phase, done.staged, done.result) == (STAGED, release.digest, None)
        # What the running release has is copied by the board, and not asked for; of one byte more little is sent.
        wanted = {release.paths[item - 2] for item in sender.wanted if item > 1}
        assert wanted == {"extra.mpy", CHANGED}
        assert sender.bytes_sent < 4000
        await asker.wait_for_reports(1)
        armed = operator.order(order.ARM, [release.digest, (await sender.ask()).nonce, 2_000_000_000])
        answer = await operator.tell(armed)
        found = operator.read(armed, answer)
        assert (found.outcome, found.reason) == (receipt.DONE, None)
        await board.usb.wait_for_print("start 3")
        asker.session = None
        tried = await sender.ask()
        assert (tried.phase, tried.running, tried.sequence, tried.floor) == (TRIAL, release.digest, 2, 1)
        # Another release cannot come now, and one that is not on trial is not confirmed.
        assert (await told_to_stage(operator, sender)).reason == receipt.TRIAL_OPEN
        assert (await sender.ask(told=old.digest)).phase == TRIAL
        assert (await sender.ask(told=release.digest)).floor == 2
        after = await sender.ask(told=release.digest)
        assert (after.phase, after.running, after.floor, after.wanted) == (IDLE, release.digest, 2, None)
        while asker.reports[-1].boot != 3:
            await asker.wait_for_reports(1)
    await board.power_off()
    assert_whole(board, release)
    record = slots.Record.of(image.read(board.flash.image, "slot.0") or b"")
    assert record is not None
    assert (record.active, record.trial, record.floor, record.confirmed) == ("b", None, 2, ("a", "b"))
    assert image.read(board.flash.image, "stage.0") is None


async def test_a_board_with_memory_takes_blocks_that_go_on_with_each_other(emulated_boards: "Benches") -> None:
    old, files = running(SETTINGS)
    last = {"laterne_protocol/zz.mpy": bytes(range(256)) * 4}  # behind files which the board copies
    release = SignedRelease({**old.files, **NEW, **last, CHANGED: old.files[CHANGED] + b"\0"}, "0.2.0", sequence=2)
    bench = await emulated_boards(files=files, paced=False, heap_bytes=ROOMY_BYTES)
    async with in_a_post(bench) as (board, asker, operator):
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key), old)
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        assert (await sender.send_all()).staged == release.digest
        # Of the new file, 20,480 bytes, three blocks. With a patch no block goes on, nor with what does not follow it.
        assert sender.windows == [(12, 0), (12, 4096), (12, 4096), (12, 0)]
    await board.power_off()
    assert_whole(board, release)


async def test_a_release_is_fetched_on_after_the_power_was_off_and_after_the_gateway_was(
    emulated_boards: "Benches",
) -> None:
    old, files = running(SETTINGS)
    release = next_release(old)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key))
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        extra = release.paths.index("extra.mpy") + 2
        await sender.until(lambda found: found.wanted is not None and found.wanted[1:3] == (extra, 8192))
        asker.session = None  # the gateway was started again: hands are shaken, and it goes on
        await sender.until(lambda found: found.wanted is not None and found.wanted[1:3] == (extra, 16384))
        board.reset()
        await board.usb.wait_for_print("start 3")
        asker.session = None
        sender.wanted.clear()
        assert (await sender.send_all()).staged == release.digest
        assert sender.wanted == [extra]  # neither envelope nor index nor what was whole
    await board.power_off()
    assert_whole(board, release)


# Stands before the true module until the start after it: each start loads it once, for its names.
NO_MEMORY = b"""
import machine, os
if machine.reset_cause() != machine.PWRON_RESET:
    os.remove("/a/installer.py")
def __getattr__(name):  # what it has is found under a short name
    raise MemoryError
"""


async def test_a_board_whose_memory_lies_in_pieces_starts_anew_and_goes_on_with_the_release(
    emulated_boards: "Benches",
) -> None:
    old, files = running(SETTINGS)
    release = next_release(old)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        await board.power_off()
        image.write(board.flash.image, {"a/installer.py": NO_MEMORY})
        await board.power_on()
        await board.usb.wait_for_print("start 3")
        lives, asker.session = len(board.lives), None
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key))
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        await sender.until(lambda _: len(board.lives) > lives)
        asker.session = None
        assert (await sender.send_all()).staged == release.digest
        assert [life.ending for life in board.lives[lives:]] == [Ending.RESET]
        await asker.wait_for_reports(1)
    await board.power_off()
    assert_whole(board, release)


async def test_a_board_whose_memory_never_suffices_starts_anew_once_and_goes_on_reporting(
    emulated_boards: "Benches",
) -> None:
    old, files = running(SETTINGS)
    release = next_release(old)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        await board.power_off()
        always = NO_MEMORY.replace(b"!= machine.PWRON_RESET", b"< 0")
        image.write(board.flash.image, {"a/installer.py": always})
        await board.power_on()
        await board.usb.wait_for_print("start 3")
        lives, asker.session = len(board.lives), None
        sender = Sender(asker, release, release.signed_by(asker.authority.release_key))
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        await sender.until(lambda _: len(board.lives) > lives)
        asker.session = None
        while board.usb.printed().count("no memory to install") < 40:  # 16 were enough for that start
            await sender.step()
        assert (len(board.lives), "starts anew" in board.usb.printed()) == (lives + 1, False)
        await asker.wait_for_reports(1)
