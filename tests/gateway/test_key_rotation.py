"""The keys of a board change at its line: no report is passed over, and each key counts where it may."""

from collections.abc import Callable
from pathlib import Path

from tests.gateway.fake_authority import Key
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, parts, until

from laterne_gateway.inbox import ACCEPTED, AWAITS_ROSTER, REFUSED
from laterne_protocol import cose, credential, order, receipt, report, roster

MakeLine = Callable[..., FakeLine]


def rotated(board: FakeBoard, former: Key, last: int, version: int, gateway: Parts) -> bytes:
    """The next roster, which names the board's new key and the former one with its last report."""
    entry = board.entry()
    entry.former = (roster.Former(former.public, board.credential_digest, last),)
    return gateway.authority.roster_file([entry], version)


async def test_reports_go_on_while_the_keys_of_a_board_change_and_none_is_passed_over(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 3
    former = board.key
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        board.close_reports(3)
        await board.forgets(3)
        gateway.orders.take(board.name, gateway.authority.order(board.name, former.kid, order.ROTATE))
        board.close_reports(1)
        await board.forgets(4)  # while it works
        name, signed, _ = await gateway.orders.receipt()
        proof = credential.possession_of(cose.parse(_result(signed), 512).payload)
        body = gateway.authority.credential(name, proof.sign_key, proof.agree_key)
        gateway.orders.take(name, gateway.authority.order(name, former.kid, order.TAKE, body))
        await gateway.orders.receipt()
        assert board.key is not former
        last = max(board.taken)
        board.close_reports(2)
        await board.forgets(last)
        await until(lambda: "reports wait" in str(gateway.health.snapshot()[name]["alarms"]))
        assert sorted(board.backlog) == [last + 1, last + 2], "by a key that no roster names: they wait on the board"
        gateway.roster_file.write_bytes(rotated(board, former, last, 2, gateway))
        assert await gateway.roster.reload() is None
        for bus in gateway.buses:
            bus.wake()
        await board.forgets(last + 2)
        assert (await gateway.stored())[name] == list(range(1, last + 3))
        assert gateway.health.counted(name, "reports missing") == 0
        assert gateway.health.counted(name, "refused: signature") == 0


async def test_a_gateway_that_starts_between_the_change_of_keys_and_the_roster_asks_for_no_report(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    former, agree = board.key, board.agree_key
    async with parts(tmp_path, board) as gateway:
        board.close_reports(1)
        board.key = Key()  # the next one; the agreement key is still good, as on a board whose receipt is on its way
        board.close_reports(1)
        async with gateway.asking(line_of(board)):
            await until(lambda: gateway.health.counted(board.name, "answers with another key") > 0)
        assert await gateway.stored() == {}
        gateway.roster_file.write_bytes(rotated(board, former, 1, 2, gateway))
        assert await gateway.roster.reload() is None
        async with gateway.asking(line_of(board, name="again")):
            await board.forgets(2)
        assert agree is board.agree_key
        assert (await gateway.stored())[board.name] == [1, 2]


async def test_a_former_key_counts_up_to_its_last_report_and_the_next_one_from_there(tmp_path: Path) -> None:
    board = FakeBoard()
    former = board.key
    async with parts(tmp_path, board) as gateway:
        board.close_reports(2)
        forged, _ = board.make(3, cose_digest(board.taken[2]), key=former)
        early, _ = board.make(2, cose_digest(board.taken[1]), key=(new := Key()))
        board.key = new
        board.close_reports(1)
        gateway.roster_file.write_bytes(rotated(board, former, 2, 2, gateway))
        assert await gateway.roster.reload() is None
        entry = gateway.roster.entry(board.name)
        assert entry is not None
        assert gateway.inbox.take(entry, board.taken[1]) == ACCEPTED
        assert gateway.inbox.take(entry, early) == REFUSED
        assert gateway.inbox.take(entry, board.taken[2]) == ACCEPTED
        assert gateway.inbox.take(entry, forged) == REFUSED
        assert gateway.inbox.take(entry, board.taken[3]) == ACCEPTED
        await gateway.inbox.settle()
        assert await gateway.stored() == {board.name: [1, 2, 3]}


async def test_a_former_agreement_key_names_its_board_and_opens_nothing(tmp_path: Path) -> None:
    board = FakeBoard()
    former, agree = Key(), board.agree_key
    async with parts(tmp_path, board) as gateway:
        for version in (2, 3):
            board.agree_key = Key()
            gateway.roster_file.write_bytes(rotated(board, former, 2, version, gateway))
            assert await gateway.roster.reload() is None
            assert gateway.roster.name_of_key(agree.kid) == board.name
            assert gateway.roster.entry_of_key(agree.kid) is None
            entry = gateway.roster.entry_of_key(board.agree_key.kid)
            assert entry is not None
            assert entry.board == board.name
            agree = board.agree_key
        assert len(gateway.roster._boards_of_keys) == 2


async def test_only_the_key_that_an_order_brings_makes_a_report_wait(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        stranger, following = Key(), Key()
        gateway.roster.expect(board.name, following.kid)
        assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=following)[0]) == (
            AWAITS_ROSTER
        )
        assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=stranger)[0]) == REFUSED


async def test_reports_wait_for_the_roster_also_when_keys_are_rotated_twice_before_it_comes(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        second, third = Key(), Key()
        for key in (second, third):
            gateway.roster.expect(board.name, key.kid)
        for key in (second, third):
            assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=key)[0]) == (
                AWAITS_ROSTER
            )
        gateway.roster_file.write_bytes(rotated(board, second, 1, 2, gateway))
        assert await gateway.roster.reload() is None
        assert not gateway.roster.awaits(board.name, second.kid)
        assert gateway.roster.awaits(board.name, third.kid)


def cose_digest(body: bytes) -> bytes:
    return report.digest(cose.parse(body, report.MAX_REPORT_BYTES).payload)


def _result(signed: bytes) -> bytes:
    found = receipt.receipt_of(cose.parse(signed, receipt.MAX_RECEIPT_BYTES).payload)
    assert isinstance(found.result, bytes)
    return found.result
