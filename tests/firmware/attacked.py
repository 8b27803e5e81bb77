"""A board that is attacked by way of its updates, and all who could do something to it, for tests of the firmware."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.firmware.operator_end import Operator
from tests.firmware.questions import Asker
from tests.firmware.release_end import Sender, SignedRelease, in_a_post, running, told_to_stage
from tests.gateway.fake_authority import FakeAuthority

from laterne_emulator import image
from laterne_emulator.board import EmulatedBoard
from laterne_emulator.slots import Release
from laterne_protocol import receipt
from laterne_protocol.update_messages import ENVELOPE, FAILED, STAGED

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

SETTINGS = {"report_s": 3600, "sample_ms": 3600000}  # rarely: what is counted at the flash is an update's
MUCH_LATER = 2_000_000_000
SMALL = SignedRelease({"laterne_firmware/app.mpy": b"anything", "lib/more.mpy": b"more of it" * 1500}, sequence=9)
OTHER = SignedRelease({"laterne_firmware/app.mpy": b"other"}, "0.3.0", sequence=9)


@dataclass
class Victim:
    """An enrolled board that runs its first release, and all who could do something to it."""

    board: EmulatedBoard
    asker: Asker
    operator: Operator

    @property
    def authority(self) -> FakeAuthority:
        return self.asker.authority

    @property
    def operations(self) -> int:
        return self.board.flash.count.operations

    def sender(self, envelope: bytes, release: SignedRelease = SMALL) -> Sender:
        return Sender(self.asker, release, envelope)

    async def judged(self, envelope: bytes, release: SignedRelease = SMALL) -> int | None:
        """Orders the release and sends this as its envelope. Why it is refused, None when it is not.

        Nothing is written to flash until then.
        """
        sender = self.sender(envelope, release)
        assert (await told_to_stage(self.operator, sender)).outcome == receipt.DONE
        count = self.operations
        found = await sender.until(
            lambda found: found.phase == FAILED or (found.wanted is not None and found.wanted[1] != ENVELOPE)
        )
        if found.phase != FAILED:
            assert found.wanted is not None
            assert found.wanted[0] == release.digest
            return None
        assert self.operations == count
        assert found.result is not None
        return found.result[0]

    async def staged(self, envelope: bytes, release: SignedRelease = SMALL) -> Sender:
        sender = self.sender(envelope, release)
        assert (await told_to_stage(self.operator, sender)).outcome == receipt.DONE
        assert (await sender.send_all()).phase == STAGED
        return sender

    async def ordered(self, action: int, *arguments: bytes | int) -> int | None:
        """Why an order is refused, None when it is not."""
        return (await self.operator.told(self.operator.order(action, list(arguments)))).reason


@asynccontextmanager
async def attacked(
    emulated_boards: "Benches",
    authority: FakeAuthority | None = None,
    *,
    other: Release | None = None,
    settings: Mapping[str, int] = SETTINGS,
    firmware: Path | None = None,
) -> AsyncIterator[Victim]:
    """other: what lies in slot b. firmware: where it is, if not in this checkout."""
    files = running(settings)[1] if firmware is None else image.firmware_files(firmware, settings=settings)
    files |= other.in_slot("b") if other is not None else {}
    async with in_a_post(await emulated_boards(files=files, paced=False), authority) as (board, asker, operator):
        yield Victim(board, asker, operator)
