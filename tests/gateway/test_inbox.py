"""The inbox: what is believed, what is refused and why, and what may be acknowledged."""

import logging
import os
from pathlib import Path

import pytest
from tests.gateway.fake_authority import ORDER, Key
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import Parts, limit_pages, parts

from laterne_gateway.examination import RefusedReport, examine
from laterne_gateway.inbox import (
    ACCEPTED,
    ASK_TIMES,
    MAX_SET_ASIDE_AN_HOUR,
    MAX_STEP,
    REFUSED,
    REPEATED,
)
from laterne_protocol import cose, report


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def high_s(body: bytes) -> bytes:
    """The other form that every ECDSA signature has."""
    s = ORDER - int.from_bytes(body[-32:], "big")
    return body[:-32] + s.to_bytes(32, "big")


def test_one_flipped_bit_anywhere_is_refused() -> None:
    board = FakeBoard()
    body, _ = board.make(1, board.credential_digest)
    examine(body, board.entry())
    for at in range(len(body)):
        with pytest.raises(RefusedReport):
            examine(flipped(body, at), board.entry())


FORGED = [
    ("nothing", lambda board: b"", "not a signed object"),
    ("noise", lambda board: os.urandom(300), "not a signed object"),
    ("too long", lambda board: bytes(report.MAX_REPORT_BYTES + 1), "not a signed object"),
    ("another board's key", lambda board: board.make(1, b"p" * 16, key=Key())[0], "signature"),
    ("signed as something else", lambda board: board.make(1, b"p" * 16, domain=cose.POSSESSION)[0], "signature"),
    ("the signature's second form", lambda board: high_s(board.make(1, b"p" * 16)[0]), "signature"),
    ("another board's name", lambda board: board.make(1, b"p" * 16, board="LE-0001")[0], "speaks for another"),
    ("signed nonsense", lambda board: board.key.sign(cose.REPORT, b"\xa0"), "malformed payload"),
    ("number 2**63", lambda board: board.make(2**63, b"p" * 16)[0], "malformed payload"),
    ("no number", lambda board: board.make(0, b"p" * 16)[0], "malformed payload"),
]


@pytest.mark.parametrize(("name", "forge", "reason"), FORGED, ids=[one[0] for one in FORGED])
async def test_a_forged_report_is_refused_counted_and_never_stored(
    tmp_path: Path, name: str, forge: object, reason: str
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        assert callable(forge)
        assert gateway.inbox.take(board.entry(), forge(board)) == REFUSED
        await gateway.inbox.settle()
        assert gateway.health.counted(board.name, f"refused: {reason}") == 1
        assert await gateway.stored() == {}
        assert gateway.inbox.acknowledged(board.entry()) is None
        assert gateway.inbox.after(board.entry()) == 0


async def take_all(gateway: Parts, board: FakeBoard) -> None:
    for sequence in sorted(board.taken):
        assert gateway.inbox.take(board.entry(), board.taken[sequence]) == ACCEPTED
    await gateway.inbox.settle()


async def test_reports_are_taken_ahead_of_the_disk_and_acknowledged_behind_it(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(3)
    async with parts(tmp_path, board) as gateway:
        for sequence in (1, 2, 3):
            gateway.inbox.take(board.entry(), board.taken[sequence])
            assert gateway.inbox.after(board.entry()) == sequence
            assert gateway.inbox.acknowledged(board.entry()) is None  # nothing has been committed yet
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(board.entry()) == 3
        assert [row.body for row in await gateway.buffer.oldest(0, 9)] == list(board.taken.values())


async def test_after_a_restart_the_disk_says_where_the_chain_is(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(2)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        await gateway.reopen()
        assert gateway.inbox.after(board.entry()) == 2
        stray, _ = board.make(3, os.urandom(16))
        assert gateway.inbox.take(board.entry(), stray) == REFUSED
        board.close_reports(1)
        assert gateway.inbox.take(board.entry(), board.taken[3]) == ACCEPTED
        await gateway.inbox.settle()


async def test_a_repeated_report_is_counted_and_stored_once(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(2)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        assert gateway.inbox.take(board.entry(), board.taken[2]) == REPEATED
        assert gateway.inbox.take(board.entry(), board.taken[1]) == REPEATED
        await gateway.inbox.settle()
        assert gateway.health.counted(board.name, "reports repeated") == 2
        assert await gateway.stored() == {board.name: [1, 2]}


@pytest.mark.parametrize("delivered", [False, True], ids=["still in the buffer", "already delivered"])
async def test_two_boards_with_one_key_raise_an_alarm(tmp_path: Path, delivered: bool) -> None:
    board = FakeBoard()
    board.close_reports(2)
    copy = board.clone()
    board.close_reports(1)
    copy.close_reports(1, readings=5)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        if delivered:
            gateway.buffer.delivered(gateway.buffer.lanes["mqtt"][-1], gateway.buffer.last_id)
            await gateway.reopen()
        for _ in range(3):
            assert gateway.inbox.take(board.entry(), copy.taken[3]) == REPEATED
            await gateway.inbox.settle()
        assert (await gateway.buffer.tallies())["set aside"] == 1, "the same one is kept once"
        alarms = gateway.health.snapshot()[board.name]["alarms"]
        assert "second board with its key" in str(alarms)
        assert gateway.inbox.acknowledged(board.entry()) == 3


async def test_a_report_that_does_not_follow_is_refused_and_an_alarm(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(1)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        stray, _ = board.make(2, os.urandom(16))
        assert gateway.inbox.take(board.entry(), stray) == REFUSED
        assert gateway.health.counted(board.name, "refused: chain broken") == 1
        assert "does not follow" in str(gateway.health.snapshot()[board.name]["alarms"])


async def test_the_first_report_follows_the_credential(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        body, _ = board.make(1, os.urandom(16))
        assert gateway.inbox.take(board.entry(), body) == REFUSED
        body, _ = board.make(1, board.credential_digest)
        assert gateway.inbox.take(board.entry(), body) == ACCEPTED
        await gateway.inbox.settle()


async def test_a_board_that_comes_from_another_gateway_goes_on_with_its_numbers(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        body, _ = board.make(500, os.urandom(16))
        assert gateway.inbox.take(board.entry(), body) == ACCEPTED
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(board.entry()) == 500
        assert gateway.health.counted(board.name, "reports missing") == 0


async def test_a_gap_is_counted_and_what_the_board_says_of_it(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(1)
    board.lose(4)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        assert await gateway.stored() == {board.name: [1, 6]}
        assert gateway.health.counted(board.name, "reports missing") == 4
        assert gateway.health.counted(board.name, "reports missing, stated by the board") == 4


async def test_a_report_refused_three_times_is_set_aside_and_passed_over(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(3)
    damaged = flipped(board.taken[2], len(board.taken[2]) - 1)
    async with parts(tmp_path, board) as gateway:
        gateway.inbox.take(board.entry(), board.taken[1])
        for time in range(ASK_TIMES):
            assert gateway.inbox.after(board.entry()) == 1, f"passed over after {time} refusals"
            assert gateway.inbox.take(board.entry(), damaged) == REFUSED
        assert gateway.inbox.after(board.entry()) == 2
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(board.entry()) == 2
        assert (await gateway.buffer.tallies())["set aside"] == 1
        await gateway.reopen()
        assert gateway.inbox.take(board.entry(), board.taken[3]) == ACCEPTED
        await gateway.inbox.settle()
        assert await gateway.stored() == {board.name: [1, 3]}


async def test_two_refusals_and_then_the_true_one_lose_nothing(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(1)
    async with parts(tmp_path, board) as gateway:
        for _ in range(ASK_TIMES - 1):
            gateway.inbox.take(board.entry(), os.urandom(200))
        assert gateway.inbox.take(board.entry(), board.taken[1]) == ACCEPTED
        await gateway.inbox.settle()
        assert (await gateway.buffer.tallies())["set aside"] == 0


@pytest.mark.parametrize("claimed", [2**53 - 1, 1000, 3])
async def test_a_forger_cannot_have_many_reports_passed_over(tmp_path: Path, claimed: int) -> None:
    board, forger = FakeBoard(), FakeBoard()
    forged, _ = forger.make(claimed, os.urandom(16), board=board.name)
    async with parts(tmp_path, board) as gateway:
        for _ in range(ASK_TIMES):
            gateway.inbox.take(board.entry(), forged)
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(board.entry()) == min(claimed, MAX_STEP)


async def test_what_is_set_aside_of_a_board_in_an_hour_is_bounded_and_so_is_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        for _ in range((MAX_SET_ASIDE_AN_HOUR + 5) * ASK_TIMES):
            assert gateway.inbox.take(board.entry(), os.urandom(50)) == REFUSED
            await gateway.inbox.settle()
        assert (await gateway.buffer.tallies())["set aside"] == MAX_SET_ASIDE_AN_HOUR
        assert gateway.inbox.acknowledged(board.entry()) == MAX_SET_ASIDE_AN_HOUR
        assert len([said for said in caplog.records if said.levelno >= logging.WARNING]) == 2


async def test_a_full_disk_takes_back_everything_that_was_under_way(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(5)
    async with parts(tmp_path, board) as gateway:
        gateway.inbox.take(board.entry(), board.taken[1])
        await gateway.inbox.settle()
        # Report 2 cannot be stored; 3 to 5, taken meanwhile, must not be stored on top of the hole.
        await limit_pages(gateway.buffer, 0)
        filler = [
            gateway.buffer.keep_file("roster", version, bytes(60_000)) for version in range(2)
        ]  # what fills the disk, in the same group
        for sequence in (2, 3, 4, 5):
            gateway.inbox.take(board.entry(), board.taken[sequence])
        for one in filler:
            with pytest.raises(Exception, match="full"):
                await one
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(board.entry()) == gateway.inbox.after(board.entry())
        await limit_pages(gateway.buffer, None)
        for sequence in range(gateway.inbox.after(board.entry()) + 1, 6):
            assert gateway.inbox.take(board.entry(), board.taken[sequence]) == ACCEPTED
        await gateway.inbox.settle()
        assert await gateway.stored() == {board.name: [1, 2, 3, 4, 5]}


async def test_a_board_with_a_new_credential_begins_a_new_chain(tmp_path: Path) -> None:
    board = FakeBoard()
    board.close_reports(2)
    async with parts(tmp_path, board) as gateway:
        await take_all(gateway, board)
        gateway.buffer.delivered(gateway.buffer.lanes["mqtt"][-1], gateway.buffer.last_id)
        await gateway.reopen()
        renewed = FakeBoard(board.name)
        renewed.close_reports(1)
        assert gateway.inbox.after(renewed.entry()) == 0
        assert gateway.inbox.acknowledged(renewed.entry()) is None
        assert gateway.inbox.take(renewed.entry(), renewed.taken[1]) == ACCEPTED
        await gateway.inbox.settle()
        assert gateway.inbox.acknowledged(renewed.entry()) == 1
