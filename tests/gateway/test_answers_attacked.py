"""What a board can put into one answer: several reports, of which not all are what the gateway asked for.

Each is judged by itself, in the order in which it stands there. What is good before the first bad one is stored, once;
what is behind it is not taken for what follows a gap, because the gap would be the gateway's own doing.
"""

import os
from pathlib import Path

import pytest
from tests.gateway.fake_board import Arrange, FakeBoard
from tests.gateway.parts import parts
from tests.gateway.test_bus import MakeLine, arrive

from laterne_gateway.questions import MAX_UNCOMMITTED
from laterne_protocol import messages

OTHER = FakeBoard("LE-0008")
OTHER.close_reports(2)


def once(board: FakeBoard, arrange: Arrange) -> None:
    """The first answer with several reports in it is arranged so, all others are as a board gives them."""

    def arranged(bodies: list[bytes]) -> list[bytes]:
        if len(bodies) < 3:
            return bodies
        board.arrange = lambda bodies: bodies
        return arrange(bodies)

    board.arrange = arranged


@pytest.mark.parametrize(
    ("instead_of_the_second", "counted"),
    [
        (os.urandom(150), "refused: not a signed object"),
        (b"\x00", "refused: not a signed object"),
        (OTHER.taken[2], "refused: speaks for another"),
    ],
    ids=["noise", "a byte", "another board's"],
)
async def test_what_stands_behind_a_bad_report_is_asked_for_again(
    tmp_path: Path, line_of: MakeLine, instead_of_the_second: bytes, counted: str
) -> None:
    board = FakeBoard()
    board.close_reports(12)
    once(board, lambda bodies: [bodies[0], instead_of_the_second, *bodies[2:5]])
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)  # all twelve, in order, none of them missing
        assert gateway.health.counted(board.name, counted) == 1
        assert gateway.health.counted(board.name, "reports stored") == 12
        assert (await gateway.buffer.tallies())["set aside"] == 0


async def test_a_report_twice_in_an_answer_is_stored_and_counted_once(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(6)
    once(board, lambda bodies: [bodies[0], *bodies[:4]])
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
        assert gateway.health.counted(board.name, "reports stored") == 6
        assert gateway.health.counted(board.name, "reports repeated") == 1


async def test_a_signed_report_that_does_not_follow_the_one_before_it_in_the_answer_is_a_second_board(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(2)
    copy = board.clone()
    board.close_reports(2)
    copy.close_reports(2, readings=5)
    once(board, lambda bodies: [*bodies[:3], copy.taken[4]])  # its own third, the copy's fourth
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
        assert gateway.health.counted(board.name, "refused: chain broken") == 1
        assert "second board with its key" in str(gateway.health.snapshot()[board.name]["alarms"])


async def test_what_is_under_way_to_the_disk_is_bounded_however_many_come_at_once(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(200)
    most = 0

    def seen(bodies: list[bytes]) -> list[bytes]:
        nonlocal most
        most = max(most, gateway.inbox.uncommitted(board.entry()))
        return bodies

    board.arrange = seen
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
    assert 0 < most < MAX_UNCOMMITTED + messages.MAX_REPORTS
