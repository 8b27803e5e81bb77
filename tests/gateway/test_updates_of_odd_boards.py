"""Boards that know no updates, want what is not there, or take nothing: each bounds nobody but itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import parts, until
from tests.gateway.updating import updating

from laterne_protocol import frame

LineOf = Callable[..., FakeLine]


async def test_a_board_that_knows_no_updates_is_served_as_before(tmp_path: Path, line_of: LineOf) -> None:
    board = FakeBoard()
    board.updates.is_deaf = True
    board.close_reports(3)
    async with parts(tmp_path, board) as made, made.asking(line_of(board)):
        await board.forgets(3)
        assert board.sessions.counts["sessions opened"] == 1
        assert made.health.counted("LE-0007", "fell silent") == 0


@pytest.mark.parametrize(
    "wanted",
    [(0, 1023, 1, 0), (1, 32767, 8192, 0), (3, 3000, 1, 0), (161, 0, 8192, 0), (9, 32767, 8192, 4096)],
    ids=["behind the end of the envelope", "of the index", "of a file", "no such file", "far beyond"],
)
async def test_a_board_that_wants_what_is_not_in_the_release_gets_nothing_and_is_asked_rarely(
    tmp_path: Path, line_of: LineOf, wanted: tuple[int, int, int, int]
) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.claims["wanted"] = (case.new.digest, *wanted, 10, 0)
        case.board.close_reports(2)
        async with case.parts.asking(case.line):
            await until(
                lambda: case.parts.health.counted("LE-0007", "updates: asked for what is not in its release") > 0
            )
            case.board.close_reports(2)
            await case.board.forgets(4)
        assert case.board.updates.asked == 1
        assert case.board.updates.bytes_taken == case.board.updates.bytes_dropped == 0


async def test_a_board_that_takes_nothing_of_what_it_wants_is_sent_it_ever_more_rarely(
    tmp_path: Path, line_of: LineOf
) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.claims["wanted"] = (case.new.digest, 4, 0, 3000, 0, 10, 0)
        async with case.parts.asking(case.line):
            await until(lambda: case.parts.health.counted("LE-0007", "updates: parts in vain") >= 2)
            case.board.close_reports(4)
            await case.board.forgets(4)
        assert case.board.updates.asked <= 6


async def test_a_board_that_flaps_between_parts_gets_twice_a_release_and_no_more(
    tmp_path: Path, line_of: LineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from laterne_gateway import updates

    monkeypatch.setattr(updates, "BUDGET_BYTES", 50_000)
    async with updating(tmp_path, line_of) as case:
        items = [3, 4]
        claims = case.board.updates.claims

        def to_boards(one: frame.Frame) -> list[frame.Frame]:
            if len(one.payload) < 100:  # a question
                items.reverse()
                claims["wanted"] = (case.new.digest, items[0], 0, 3000, 0, 10, 0)
            return [one]

        case.line.to_boards = to_boards
        async with case.parts.asking(case.line):
            await until(lambda: case.parts.health.counted("LE-0007", "updates: put off") > 0)
            case.board.close_reports(4)
            await case.board.forgets(4)
        assert case.board.updates.bytes_dropped <= 50_000


async def test_a_board_out_of_its_messages_bounds_is_not_heard(tmp_path: Path, line_of: LineOf) -> None:
    """A credit of a megabyte is no message of ours; the board is served its polls."""
    async with updating(tmp_path, line_of) as case:
        case.board.updates.claims["credit"] = 1 << 20
        async with case.parts.asking(case.line):
            case.board.close_reports(2)
            await case.board.forgets(2)
            await until(lambda: case.parts.health.counted("line line", "messages malformed") > 0)
        assert case.board.updates.bytes_taken == 0
