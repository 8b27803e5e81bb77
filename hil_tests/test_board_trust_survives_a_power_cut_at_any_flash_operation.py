"""P1 on the board: the power fails at every flash operation of storing a trust, a gateway, and a newer trust."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.firmware.initiator import GatewayEnd
from tests.firmware.programs import files_of
from tests.gateway.fake_authority import FakeAuthority

from laterne_emulator import cut_sweep
from laterne_emulator.flash import Cut, Torn
from laterne_protocol import trust
from laterne_protocol.report import digest

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

MAIN = Path(__file__).parent / "firmware_for_tests" / "believing.py"


async def _live(board: "EmulatedBoard", cut: Cut | None = None) -> dict[str, list[list[str]]]:
    """What a life said: its lines, by their first word."""
    await cut_sweep.live(board, cut)
    said: dict[str, list[list[str]]] = {}
    for line in board.usb.printed().splitlines():
        if line:
            said.setdefault(line.split()[0], []).append(line.split()[1:])
    return said


def _files(authority: FakeAuthority, gateway: GatewayEnd) -> dict[str, bytes]:
    first, second = (trust.pack(authority.trust_file(version)) for version in (1, 2))
    return files_of(MAIN) | {"first": first, "second": second, "gateway": gateway.credential}


async def test_a_board_that_is_enrolled_anew_forgets_the_gateway_of_the_authority_before(
    emulated_boards: "Benches",
) -> None:
    authority = FakeAuthority()
    files = _files(authority, GatewayEnd(authority)) | {"again": trust.pack(FakeAuthority().trust_file(1))}
    bench = await emulated_boards(files=files, powered=False)
    said = await _live(bench.boards["board-01"])
    assert said["gateway"]
    assert said["afterwards"] == [["nobody"]]


@pytest.mark.parametrize("torn", [Torn.CLEAN, Torn.HEAD])
async def test_a_cut_at_any_flash_operation_leaves_what_was_believed_before_or_after(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", torn: Torn
) -> None:
    authority = FakeAuthority()
    gateway = GatewayEnd(authority)
    bundles = [trust.pack(authority.trust_file(version)) for version in (1, 2)]
    digests = [trust.digest(trust.unpack(bundle)[0].payload).hex() for bundle in bundles]
    known = digest(gateway.credential).hex()
    files = _files(authority, gateway)
    bench = await emulated_boards(files=files, powered=False)
    board = bench.boards["board-01"]
    new = board.folder / "new.img"
    shutil.copy(board.flash.image, new)
    for case in fault_sweep("board, trust"):
        with case:
            at = case.number
            shutil.copy(new, board.flash.image)
            cut = await _live(board, Cut(at, torn, case.seed))
            after = await _live(board)
            assert "done" in after, f"cut at operation {at}"
            ((believed, introduced),) = after["found"]
            order = ["nothing", *digests]
            # At least what was said to be stored, and never anything else than one of the two.
            assert order.index(believed) >= order.index(cut["trust"][-1][0]) if "trust" in cut else True, at
            assert introduced == known if "gateway" in cut else introduced in ("nobody", known), at
            assert after["trust"][-1] == [digests[1]], at
            if "done" in cut:
                assert at > 20
                return
            case.survived()
