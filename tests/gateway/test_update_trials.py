"""A release on trial is confirmed by three reports of this start over this session, and by nothing else."""

from collections.abc import Callable
from pathlib import Path

from tests.gateway.fake_board import FakeLine
from tests.gateway.parts import until
from tests.gateway.updating import updating

from laterne_protocol.update_messages import TRIAL

LineOf = Callable[..., FakeLine]


async def test_a_trial_is_confirmed_after_three_reports_of_this_start_over_this_session(
    tmp_path: Path, line_of: LineOf
) -> None:
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        board.close_reports(5)  # of the start before: they count for nothing
        async with case.parts.asking(case.line):
            await case.on_trial()
            board.close_reports(2)
            await board.forgets(7)
            await case.asked_again()
            assert set(updates.told) == {None}
            board.close_reports(1)
            await board.forgets(8)
            await case.asked_again()
            assert not updates.trial
            assert case.new.digest in updates.told
            assert updates.floor == 3


async def test_reports_from_before_a_restart_in_the_trial_do_not_confirm_it(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        async with case.parts.asking(case.line):
            await case.staged()
            updates.arm()
            board.restart()
            await until(lambda: updates.trial and updates.asked > 0)
            board.close_reports(2)
            await board.forgets(2)
            board.restart()  # the watchdog, say
            board.close_reports(2)
            await board.forgets(4)
            await case.is_not_confirmed()


async def test_reports_of_a_former_start_that_come_late_do_not_confirm_a_trial(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        board = case.board
        board.answer_with = lambda body: None
        board.close_reports(4)
        async with case.parts.asking(case.line):
            await case.on_trial()
            board.answer_with = lambda body: body
            await board.forgets(4)
            await case.is_not_confirmed()


async def test_reports_of_another_session_do_not_confirm_a_trial(tmp_path: Path, line_of: LineOf) -> None:
    """Two came in the session before and one in this: the link has not been shown to carry three."""
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        async with case.parts.asking(case.line):
            await case.on_trial()
            board.close_reports(2)
            await board.forgets(2)
            board.sessions.restart()
            await until(lambda: board.sessions.counts["sessions opened"] >= 3)
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            board.close_reports(1)
            await board.forgets(3)
            await case.is_not_confirmed()


async def test_a_trial_that_no_report_comes_from_is_never_confirmed(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case, case.parts.asking(case.line):
        await case.staged()
        case.board.updates.arm()
        case.board.restart()
        await until(lambda: case.parts.updates._standing("LE-0007").progress is not None)
        await case.asked_again()
        await case.asked_again()
        progress = case.parts.updates._standing("LE-0007").progress
        assert progress is not None
        assert progress.phase == TRIAL
        assert set(case.board.updates.told) == {None}
