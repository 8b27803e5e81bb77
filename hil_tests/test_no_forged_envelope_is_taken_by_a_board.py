"""P1 on the board: whatever is made of a signed envelope, a board takes it for none and writes nothing.

The order is always for what comes: as if who orders were with the forger, or mistaken. Flash operations are counted at
the block device. The protocol's code meets many more of these (tests/fuzz/releases.py).
"""

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.firmware.enrolled import record
from tests.firmware.release_end import Sender, SignedRelease, in_a_post, running, told_to_stage
from tests.fuzz.envelopes import mutated
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_emulator import image
from laterne_protocol import cbor, manifest, receipt
from laterne_protocol.errors import WireError
from laterne_protocol.update_messages import ENVELOPE, FAILED

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

MAIN = "firmware_for_tests/judging_envelopes.py"
HEAP_BYTES = 336 * 1024  # names are not shortened here
SETTINGS = {"report_s": 3600, "sample_ms": 3600000}
WITHIN_S = 20.0  # a bound for what would hang
AT_ONCE = 200  # in one life of a board
MAX_BYTES = 1024
RELEASE = SignedRelease({"laterne_firmware/app.mpy": b"anything"}, "0.2.0", sequence=9)


def ordered(envelope: bytes) -> tuple[bytes, int]:
    """Digest and sequence as an order must name them to have this taken, as far as one can be read from it."""
    try:
        found = manifest.envelope_of(envelope)
    except WireError:
        return RELEASE.digest, RELEASE.sequence
    return found.digest[:16], found.sequence


async def test_no_forged_envelope_is_taken_over_the_line_nor_costs_a_flash_operation(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    _, files = running(SETTINGS)
    bench = await emulated_boards(files=files, paced=False)
    async with in_a_post(bench) as (board, asker, operator):
        good = RELEASE.signed_by(asker.authority.release_key)
        for case in fault_sweep("a forged envelope comes over the line", quick=40):
            with case:
                envelope = mutated(good, case.dice)
                envelope = envelope[:MAX_BYTES]  # of a longer one no part is taken
                digest, sequence = ordered(envelope)
                sender = Sender(asker, RELEASE, envelope)
                told = await told_to_stage(operator, sender, digest=digest, sequence=sequence)
                assert told.outcome == receipt.DONE
                count = board.flash.count.operations
                if envelope:
                    assert (await sender.send_all()).phase == FAILED, envelope.hex()
                assert board.flash.count.operations == count
                case.survived()
        sender = Sender(asker, RELEASE, good)
        assert (await told_to_stage(operator, sender)).outcome == receipt.DONE
        count = board.flash.count.operations
        await sender.until(lambda found: found.wanted is not None and found.wanted[1] != ENVELOPE)
        assert board.flash.count.operations > count, "the true one is taken, and written"
    assert len(board.lives) == 1


async def test_no_forged_envelope_is_taken_by_the_boards_own_judgement(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", request: pytest.FixtureRequest
) -> None:
    """Many more of them, without a line, many in a life; two of two keys must have signed."""
    authority = FakeAuthority()
    authority.release_keys = [Key(), Key()]
    authority.release_threshold = 2
    good = RELEASE.signed_by(*authority.release_keys)
    files = image.firmware_files(image.find_firmware(), short=False)
    kept = {path: content for path, content in files.items() if path.startswith(("a/", "boot"))}
    kept["main.py"] = (request.path.parent / MAIN).read_bytes()
    kept |= record("k/trust", authority.trust().to_payload())
    bench = await emulated_boards(files={**kept, "x/envelopes": b""}, powered=False, heap_bytes=HEAP_BYTES)
    (board,) = bench.boards.values()
    for case in fault_sweep("forged envelopes are judged, 200 each", quick=4):
        with case:
            given = [mutated(good, case.dice)[:MAX_BYTES] or b"\0" for _ in range(AT_ONCE)] + [good]
            bodies = [cbor.encode([*ordered(one), 1, one, False]) for one in given]
            image.write(
                board.flash.image,
                {"x/envelopes": b"".join(len(body).to_bytes(2, "big") + body for body in bodies)},
            )
            (board.folder / "console.log").unlink(missing_ok=True)
            async with asyncio.timeout(WITHIN_S):
                await board.power_on()
                await board.usb.wait_for_print("begins")
                count = board.flash.count.operations
                await board.usb.wait_for_print("done")
                assert board.flash.count.operations == count
                await board.power_off()
            said = [line.split()[1] for line in board.usb.printed().splitlines() if line.startswith("judged")]
            assert len(said) == len(given)
            for envelope, what in zip(given, said, strict=True):
                assert (what == "0") == (envelope == good), envelope.hex()
            case.survived()
