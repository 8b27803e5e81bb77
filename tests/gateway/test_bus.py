"""Lines and buses with every fault a line has: over real PTYs, with boards that speak the real protocol."""

import fcntl
import logging
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.board_sessions import Bucket
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, limit_pages, parts, until

from laterne_gateway.exchange import answer_within_s
from laterne_gateway.questions import SESSIONS_SAID
from laterne_protocol import messages

MakeLine = Callable[..., FakeLine]


async def arrive(gateway: Parts, *boards: FakeBoard) -> None:
    """Waits until everything that these boards closed has been acknowledged, and compares both ends."""
    for board in boards:
        await board.forgets(max(board.taken))
    found = {row.body for row in await gateway.buffer.oldest(0, 1_000_000)}
    for board in boards:
        assert found >= set(board.taken.values())
    stored = await gateway.stored()
    for board in boards:
        assert stored[board.name] == sorted(board.taken)
        assert gateway.health.counted(board.name, "reports missing") == 0


async def test_a_board_is_found_and_its_backlog_fetched(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(40)
    line = line_of(board)
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert board.backlog == {}
        assert gateway.health.counted("line line", "questions without answer") == 0
        assert board.questions < 20, "an answer holds several"


async def test_a_board_is_told_the_time(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(2)
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
        assert board.time is not None
        assert board.time[0] == board.boot


async def test_a_line_that_loses_bytes_loses_no_report(tmp_path: Path, line_of: MakeLine) -> None:
    """One answer in ten is hit at 0.05 % of bytes lost, another one in twenty is noise."""
    board = FakeBoard()
    board.close_reports(30)
    line = line_of(board)
    line.lose, line.damage = 0.0005, 0.05
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert gateway.health.counted("line line", "questions repeated") > 0


async def test_late_answers_are_not_taken_for_others(tmp_path: Path, line_of: MakeLine) -> None:
    """Every fifth answer comes after its question was given up: it must not count for the next one."""
    board = FakeBoard()
    board.close_reports(8)
    line = line_of(board)
    too_late_s = answer_within_s(60, 115_200) * 1.1
    line.late_s = lambda: too_late_s if board.questions % 5 == 4 else 0.0
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert gateway.health.counted(board.name, "refused: chain broken") == 0


async def test_where_no_long_answer_arrives_short_ones_do_and_the_session_stays(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    line = line_of(board)
    line.to_gateway = lambda one: [one] if len(one.payload) < 300 else []
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        board.close_reports(10)
        await arrive(gateway, board)
        assert gateway.health.counted("line line", "questions repeated") > 0
        assert gateway.health.counted(board.name, "sessions opened") == 1


async def test_boards_of_a_bus_take_turns_and_a_dead_one_does_not_stop_them(tmp_path: Path, line_of: MakeLine) -> None:
    living = [FakeBoard(f"LE-{address}", address) for address in (1, 2, 3)]
    dead = FakeBoard("LE-9", 9)
    for board in living:
        board.close_reports(20)
    line = line_of(*living, dead)
    line.boards.append(dead)
    dead.silent = True
    async with parts(tmp_path, *living, dead) as gateway, gateway.asking(line):
        await arrive(gateway, *living)
        order = [row.board for row in await gateway.buffer.oldest(0, 100)]
        # None is served only after another one's whole backlog is gone.
        assert max(order.index(board.name) for board in living) < 3 * messages.MAX_REPORTS


async def test_a_busy_board_is_asked_again(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    board.busy = 1
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)


async def test_a_board_that_is_not_in_the_roster_is_served_as_soon_as_it_is(tmp_path: Path, line_of: MakeLine) -> None:
    board, stranger = FakeBoard(), FakeBoard("LE-6666", 2)
    board.close_reports(1)
    stranger.close_reports(1)
    stranger.sessions.replace_after_s = 0.0  # the handshake that was refused is half-made there
    line, other = line_of(board), line_of(stranger, name="other")
    async with parts(tmp_path, board) as gateway:
        buses = gateway.asking(line, other)
        async with buses:
            await arrive(gateway, board)
            await until(lambda: gateway.health.counted("line other", "refused: unknown board") > 0)
            assert stranger.acknowledged == 0
            assert len(stranger.backlog) == 1, "its reports stay on it"
            gateway.roster_file.write_bytes(gateway.authority.roster_file([board.entry(), stranger.entry()], 2))
            assert await gateway.roster.reload() is None
            await arrive(gateway, stranger)


async def test_a_refused_report_is_asked_for_again_and_the_line_goes_on(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(4)
    broken = bytearray(board.taken[2])
    broken[-1] ^= 1
    board.backlog[2] = bytes(broken)  # as damaged flash would have it
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await board.forgets(4)
        assert await gateway.stored() == {board.name: [1, 3, 4]}
        assert gateway.health.counted(board.name, "refused: signature") == 3
        assert gateway.health.counted(board.name, "reports missing") == 1
        assert (await gateway.buffer.tallies())["set aside"] == 1


async def test_random_bytes_at_full_speed_on_one_line_cost_the_other_nothing(tmp_path: Path, line_of: MakeLine) -> None:
    babbler, board = FakeBoard("LE-1"), FakeBoard("LE-2")
    babbling, line = line_of(babbler, name="babbling"), line_of(board, name="quiet")
    async with parts(tmp_path, babbler, board) as gateway, gateway.asking(babbling, line):
        board.close_reports(5)
        await arrive(gateway, board)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        babbling.babble()
        while gateway.health.counted("line babbling", "bytes received") < 5_000_000:
            board.close_reports(5)
            await arrive(gateway, board)
        assert gateway.health.counted("line babbling", "frames damaged") > 10_000
        assert gateway.health.counted("line quiet", "frames damaged") == 0
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert grown_kib < 8192, "reports are kept meanwhile, noise is not"


async def test_an_unplugged_port_is_opened_again(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        for _ in range(3):
            board.close_reports(3)
            await arrive(gateway, board)
            lost = gateway.health.counted("line line", "lost")
            line.unplug()
            await until(partial(lambda before: gateway.health.counted("line line", "lost") > before, lost))
            line.plug_in()
        assert gateway.health.counted("line line", "opened") >= 3


async def test_a_port_is_opened_for_one_process_alone(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    line = line_of(board)
    holder = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        async with parts(tmp_path, board) as gateway, gateway.asking(line):
            await until(lambda: bool(gateway.health.snapshot().get("line line", {}).get("alarms")))
            assert "in use by another program" in str(gateway.health.snapshot()["line line"]["alarms"])
            fcntl.flock(holder, fcntl.LOCK_UN)
            await arrive(gateway, board)
    finally:
        os.close(holder)


async def test_a_restarted_board_gets_the_time_of_its_new_boot(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
        board.restart()
        await until(lambda: board.time is not None and board.time[0] == 2)
        assert gateway.health.counted(board.name, "restarts") == 1


async def test_two_boards_with_one_key_on_two_lines_are_noticed(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(2)
    copy = board.clone()
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board), line_of(copy, name="other")):
        await arrive(gateway, board)
        board.close_reports(1)
        await arrive(gateway, board)  # else the copy's may come first, and the board forgets its own unheard
        copy.close_reports(2, readings=5)
        await until(lambda: bool(gateway.health.snapshot()[board.name]["alarms"]))


async def test_a_copy_that_leaves_out_the_numbers_which_it_does_not_know_is_noticed(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(2)
    copy = board.clone()
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board), line_of(copy, name="other")):
        await arrive(gateway, board)
        board.close_reports(1)
        await copy.forgets(3)  # never its own
        copy.close_reports(1)
        await copy.forgets(max(copy.taken))
        assert "second board with its key" in str(gateway.health.snapshot()[board.name]["alarms"])


@pytest.mark.parametrize("at_once", [1, messages.MAX_REPORTS])
async def test_a_disk_that_fills_while_an_answer_is_under_way_costs_no_report(
    tmp_path: Path, line_of: MakeLine, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    """The answer was asked for on top of what could then not be stored: taken, it would pass for a gap."""
    caplog.set_level(logging.INFO, "laterne")
    board = FakeBoard()
    board.at_once = at_once
    board.close_reports(150)
    line = line_of(board)
    line.late_s = lambda: 0.002  # so that an answer is always under way when a store fails
    async with parts(tmp_path, board) as gateway:
        await limit_pages(gateway.buffer, 3)
        async with gateway.asking(line):
            await until(lambda: gateway.health.counted(board.name, "reports not stored") >= 4)
            stored = (await gateway.stored())[board.name]
            assert stored == list(range(1, len(stored) + 1))
            assert board.acknowledged <= len(stored)
            if at_once == 1:  # so many answers that one of them is certain to meet a failure
                assert gateway.health.counted(board.name, "answers dropped: not stored before") > 0
            assert sum("disk is full" in one.getMessage() for one in caplog.records) == 1
            assert len(caplog.records) < 12
            await limit_pages(gateway.buffer, None)
            await arrive(gateway, board)


async def test_a_swapped_board_with_the_same_boot_number_does_not_get_the_former_ones_clock(
    tmp_path: Path, line_of: MakeLine
) -> None:
    former, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    former.close_reports(1)
    other.close_reports(2)
    other.ticks_ms = lambda: FakeBoard.ticks_ms(other) + 7_200_000  # type: ignore[method-assign]  # this board's clock only
    line = line_of(former)
    async with parts(tmp_path, former, other) as gateway, gateway.asking(line):
        await arrive(gateway, former)
        await until(lambda: former.time is not None)
        told: list[tuple[int, int, int]] = []
        answer = other.answer

        def listen(question: "messages.Message") -> bytes | None:
            if isinstance(question, messages.Poll) and question.time is not None:
                told.append(question.time)
            return answer(question)

        other.answer = listen  # type: ignore[method-assign]  # of this board only
        line.unplug()
        other.meet(gateway.authority)
        line.boards[:] = [other]
        line.plug_in()
        await arrive(gateway, other)
        await until(lambda: bool(told))
        assert former.time is not None
        assert former.time[1] - told[0][1] > 7_100_000


async def test_a_thing_that_says_another_boot_each_time_is_logged_once_a_minute(
    tmp_path: Path, line_of: MakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "laterne")
    board = FakeBoard()
    board.close_reports(20)

    def restart(body: bytes | None) -> bytes | None:
        board.boot += 1
        return body

    board.answer_with, board.at_once = restart, 1
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await arrive(gateway, board)
        assert gateway.health.counted(board.name, "restarts") >= 19
        assert sum("restarted" in one.getMessage() for one in caplog.records) == 1


async def test_an_adapter_and_a_board_that_come_and_go_are_logged_once_a_minute(
    tmp_path: Path, line_of: MakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "laterne")
    board = FakeBoard()
    board.sessions.replace_after_s, board.sessions.bucket = 0.0, Bucket(size=100.0)
    line = line_of(board)
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        for times in range(4):
            board.close_reports(1)
            await arrive(gateway, board)
            board.restart()
            line.unplug()
            await until(partial(lambda before: gateway.health.counted("line line", "lost") > before, times))
            line.plug_in()
    said = [record.getMessage() for record in caplog.records]
    for words in (": open at ", "session ended", "answers, boot", "check the plug"):
        assert sum(words in one for one in said) <= 1, said
    assert sum("session opened" in one for one in said) <= SESSIONS_SAID
