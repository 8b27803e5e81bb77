"""P1 and P3 on the board: decommissioned by order it delivers what it has, signs no more, and ends as a blank one."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.firmware.operator_end import Operator
from tests.firmware.questions import Asker, asking, enrolled

from laterne_emulator import image, release_tool
from laterne_emulator.lives import Ending
from laterne_protocol import credential, messages, order, receipt
from laterne_provisioning.flashing import repl, steps
from laterne_provisioning.flashing.repl import NoRepl

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}


async def test_a_board_delivers_what_it_has_and_then_never_signs_again(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        operator = Operator(asker)
        await asker.wait_for_reports(1)
        told = operator.order(order.DECOMMISSION, False)
        answer = await operator.tell(told)
        found = operator.read(told, answer)
        last = asker.reports[-1].sequence
        assert (found.outcome, found.sequence, found.result) == (receipt.DONE, last, last)
        served = bench.readings_served(NAME)
        assert await operator.tell(operator.order(order.ROTATE)) == b""  # there is no key for a receipt
        for start in (2, 3):
            board.reset()
            await board.usb.wait_for_print(f"start {start}")
            asker.session = None
            assert await operator.tell(told, polling=False) == answer
            reported = await asker.poll()
            assert (reported.waiting, reported.reports) == (0, [])
        assert bench.readings_served(NAME) == served
        assert "report" not in board.usb.printed().replace("reports", "")


async def test_a_blank_board_is_left_when_the_receipt_has_arrived_and_old_orders_do_not_move_it(
    emulated_boards: "Benches",
) -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        before = asker.sign_key
        told = operator.order(order.DECOMMISSION, False)
        answer = await operator.tell(told)
        assert not await operator.arrived(answer[:-1])
        assert await operator.arrived(answer)
        await board.wait_for_life(0)
        await board.usb.wait_for_print("waiting for enrolment")
        again = Asker(asker._reader, asker._writer, asker._address)
        again.authority, again.gateway = asker.authority, asker.gateway
        refused = await again.ask(lambda number: messages.Enrolment(number, messages.ORDER, told))
        assert isinstance(refused, messages.Refusal)
        assert refused.reason == messages.NOT_ENROLLED
        await again.enrol(NAME)
        assert again.sign_key != before
        (first,) = await again.wait_for_reports(1)
        assert (first.sequence, first.gaps) == (1, [])
        recorded = Operator(again)
        assert recorded.read(told, await recorded.tell(told)).reason == receipt.OTHER_KEY
        await again.wait_for_reports(1)
    await board.power_off()
    names = image.names(board.flash.image)
    assert not [name for name in names if name.startswith(("/k/order", "/k/next", "/k/former"))]


async def test_reports_that_wait_are_not_given_up_unless_the_order_says_so(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        (made,) = await asker.wait_for_reports(1)
        await asker.poll()  # acknowledges it
        told = operator.order(order.DECOMMISSION, False)
        found = await operator.told(told, polling=False)
        assert (found.outcome, found.reason) == (receipt.REFUSED, receipt.REPORTS_WAIT)
        assert found.sequence > made.sequence
        assert (await operator.told(told)).reason == receipt.REPORTS_WAIT  # the same order again, though none waits now
        await asker.wait_for_reports(2)  # readings go on
        acknowledged = asker.reports[-1].sequence
        told = operator.order(order.DECOMMISSION, True)
        found = await operator.told(told, polling=False)
        assert found.outcome == receipt.DONE
        assert isinstance(found.result, int)
        assert acknowledged - 1 <= found.result < found.sequence
        while asker.reports[-1].sequence < found.sequence:  # nothing hinders the session from delivering it yet
            await asker.poll()
        assert (await asker.hello()).kid == credential.kid(asker.sign_key)
    assert board.lives == []


async def test_only_the_operators_order_gives_a_technician_a_board_in_service_back(emulated_boards: "Benches") -> None:
    # There is no maintenance that keeps the keys: who has a REPL can read them (firmware/README.md, decision 17).
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    release = release_tool.release(image.find_firmware())

    def flash() -> steps.Flashed:
        return steps.flashed(str(board.usb.path), release, None, None, lambda _: None)

    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        operator = Operator(asker)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repl, "ATTEMPTS", 1)
            with pytest.raises(NoRepl, match="decommissions it"):
                await asyncio.to_thread(flash)
        told = operator.order(order.DECOMMISSION, True)
        answer = await operator.tell(told)
        assert await operator.arrived(answer)
        await board.wait_for_life(0)
        await board.usb.wait_for_print("waiting for enrolment")
        done = await asyncio.to_thread(flash)
        assert done.checked is not None, "all of it was read back, and its sensors were read"
        again = Asker(asker._reader, asker._writer, asker._address)
        again.authority, again.gateway = asker.authority, asker.gateway
        await again.enrol(NAME)
        assert again.sign_key != asker.sign_key
    assert {life.ending for life in board.lives} == {Ending.RESET}, "no watchdog has bitten"
