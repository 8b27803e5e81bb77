"""P2 and P3 on the board: an operator's order gives it new keys, nobody else's does; its chain of reports goes on."""

from typing import TYPE_CHECKING

import pytest
from tests.firmware.initiator import take
from tests.firmware.operator_end import Operator
from tests.firmware.questions import Asker, enrolled
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_protocol import cose, credential, edhoc, edhoc_keys, order, receipt
from laterne_protocol.edhoc_messages import EdhocError

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}


async def test_a_board_takes_new_keys_and_its_chain_goes_on(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        await asker.wait_for_reports(1)
        old = asker.sign_key
        keys = await operator.rotate()
        assert (await asker.hello()).kid == credential.kid(old)
        new = operator.new_credential(keys)
        told = operator.order(order.TAKE, new)
        found = await operator.told(told)
        assert (found.outcome, found.result) == (receipt.DONE, None)
        assert (await asker.hello()).kid == credential.kid(keys.sign_key)
        while asker.reports[-1].sequence < found.sequence:
            await asker.poll()
        asker.sign_key = keys.sign_key
        made = await asker.wait_for_reports(2)
        assert [one.sequence for one in made] == [found.sequence + 1, found.sequence + 2]
        assert asker.handshakes == 1
    assert board.lives == []


async def test_an_order_that_comes_again_gets_the_same_receipt_also_after_a_restart(
    emulated_boards: "Benches",
) -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        told = operator.order(order.ROTATE)
        answer = await operator.tell(told)
        keys = operator.proved(told, operator.read(told, answer))
        assert await operator.tell(told) == answer
        # Another question of the same kind in between: the answer is not the last one's, but the one on flash.
        assert await operator.tell(b"nothing that is signed") == b""
        assert await operator.tell(told) == answer
        took = operator.order(order.TAKE, operator.new_credential(keys))
        taken = await operator.tell(took)
        board.reset()
        await board.usb.wait_for_print("start 2")
        asker.session = None
        assert await operator.tell(took, polling=False) == taken
        assert operator.read(told, await operator.tell(told, polling=False), keys.sign_key).reason == receipt.OTHER_KEY
        assert await operator.arrived(taken)
        assert not await operator.arrived(answer)  # it was another order's
        assert board.usb.printed().count(" begins") == asker.handshakes - 1  # no order has begun again


async def test_only_an_order_for_this_board_by_an_order_key_of_its_trust_is_obeyed(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        authority, stranger = asker.authority, FakeAuthority()
        good = operator.order(order.ROTATE)
        flipped = bytearray(good)
        flipped[40] ^= 1
        forged = [
            operator.order(order.ROTATE, board="board-02"),
            operator.order(order.ROTATE, key=stranger.order_key),
            *[operator.order(order.ROTATE, key=key) for key in (authority.enrolment_key, authority.release_key)],
            operator.order(order.ROTATE, key=authority.roster_key),
            *[operator.order(order.ROTATE, domain=domain) for domain in (cose.TRUST, cose.RECEIPT, cose.CREDENTIAL)],
            authority.order_key.sign(cose.ORDER, receipt.Receipt(NAME, bytes(16), 0, None, 0, None).to_payload()),
            authority.gateway_file(bytes(64)),
            good[:-1],
            good + b"\0",
            good[:20],
            bytes(flipped),
            bytes(700),
            b"\xff",
        ]
        for number, signed in enumerate(forged):
            assert await operator.tell(signed) == b"", number
        assert board.usb.printed().count("an order was refused") == len(forged)
        assert (await asker.hello()).kid == credential.kid(asker.sign_key)
        assert (await operator.told(good)).outcome == receipt.DONE  # all of that has used up no counter
        await asker.wait_for_reports(1)
    assert board.lives == []


async def test_an_old_counter_and_another_key_are_refused_and_displace_no_receipt(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        operator = Operator(asker)
        first, second = (operator.order(order.ROTATE) for _ in range(2))
        answer = await operator.tell(second)
        assert operator.read(second, answer).outcome == receipt.DONE
        for old, reason in (
            (first, receipt.OLD),
            (operator.order(order.DECOMMISSION, True, counter=operator.counter), receipt.OLD),
            (operator.order(order.DECOMMISSION, True, sign_key=bytes(64), counter=99), receipt.OTHER_KEY),
        ):
            found = await operator.told(old)
            assert (found.outcome, found.reason, found.result) == (receipt.REFUSED, reason, None)
        assert await operator.tell(second) == answer
        await asker.wait_for_reports(1)


async def test_keys_are_taken_only_with_a_credential_for_them_by_the_enrolment_key(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        authority, stranger = asker.authority, FakeAuthority()
        early = operator.order(order.TAKE, asker.credential)
        assert (await operator.told(early)).reason == receipt.NO_NEXT_KEYS
        keys = await operator.rotate()
        others = credential.Possession(keys.nonce, Key().public, keys.agree_key, keys.tier, keys.model, keys.hardware)
        for new, reason in (
            (operator.new_credential(others), receipt.NO_NEXT_KEYS),
            (asker.credential, receipt.NO_NEXT_KEYS),  # the present one
            (operator.new_credential(keys, board="board-02"), receipt.BAD_CREDENTIAL),
            (operator.new_credential(keys, key=stranger.enrolment_key), receipt.BAD_CREDENTIAL),
            (operator.new_credential(keys, key=authority.roster_key), receipt.BAD_CREDENTIAL),
            (operator.new_credential(keys, domain=cose.POSSESSION), receipt.BAD_CREDENTIAL),
            (operator.new_credential(keys)[:-1], receipt.BAD_CREDENTIAL),
            (b"\xff", receipt.BAD_CREDENTIAL),
        ):
            found = await operator.told(operator.order(order.TAKE, new))
            assert (found.outcome, found.reason) == (receipt.REFUSED, reason)
            assert (await asker.hello()).kid == credential.kid(asker.sign_key)
        await asker.wait_for_reports(1)
        found = await operator.told(operator.order(order.TAKE, operator.new_credential(keys)))
        assert found.outcome == receipt.DONE
    assert board.lives == []


async def test_a_gateway_with_the_old_roster_and_one_with_the_new_both_get_a_session(
    emulated_boards: "Benches",
) -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        operator = Operator(asker)
        keys = await operator.rotate()
        took = operator.order(order.TAKE, operator.new_credential(keys))
        taken = await operator.tell(took)
        old, new = asker.board, edhoc_keys.party(NAME, keys.agree_key)
        assert old is not None
        for _ in range(2):  # before and after a restart
            asker.session = None
            assert await operator.tell(took, polling=False) == taken  # the old key is tried first
            board.reset()
            await board.usb.wait_for_print("start")
        asker.session, asker.board = None, new
        await refused_once(asker)
        await asker.hello()
        assert "the former agreement key is erased" in board.usb.printed()
        asker.session, asker.board = None, old
        for _ in range(2):
            await refused_once(asker)


async def refused_once(asker: Asker) -> None:
    """A handshake with a board that uses another key than this gateway's roster says."""
    await asker.introduce()
    assert asker.board is not None
    made = asker.gateway.handshake(asker.board)
    answer = await asker.step(edhoc.MESSAGE_1, take(made, edhoc.START))
    assert answer is not None
    assert answer[0] == edhoc.MESSAGE_2
    with pytest.raises(EdhocError, match="nobody we talk to"):
        take(made, edhoc.MESSAGE_2, answer[1])
    # It has ended for the gateway. The board keeps others out until ten seconds are over: `ask` repeats until then.
