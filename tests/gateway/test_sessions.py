"""Sessions on real PTYs, between the real gateway parts and boards with the real Responder: whatever is on the line."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.gateway.board_sessions import Bucket
from tests.gateway.counting import LINE, MakeLine, counted, opened
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import QUICK, parts, until
from tests.gateway.test_bus import arrive

from laterne_gateway.handshakes import AWAITS_2, AWAITS_4, AWAITS_INTRODUCED, IDLE, NEXT, Pace
from laterne_protocol import edhoc, frame, session
from laterne_protocol.frame import Frame

# Making one ---------------------------------------------------------------------------------------------------------


def test_a_handshake_goes_from_each_state_to_one_other_and_back_to_rest() -> None:
    state, steps = AWAITS_INTRODUCED, []
    while state != IDLE:
        ((step, following),) = [(step, after) for (before, step), after in NEXT.items() if before == state]
        steps.append(step)
        state = following
    assert steps == [edhoc.INTRODUCED, edhoc.MESSAGE_2, edhoc.MESSAGE_4]
    assert len(NEXT) == 3
    assert {AWAITS_2, AWAITS_4} < set(NEXT.values())


@pytest.mark.parametrize("seed", range(4))
async def test_a_session_is_opened_on_a_line_that_loses_much(tmp_path: Path, line_of: MakeLine, seed: int) -> None:
    """A fifth of all answers is noise; steps are repeated and nothing is computed twice."""
    board = FakeBoard()
    board.close_reports(10)
    line = line_of(board)
    line.damage, line.random = 0.2, random.Random(seed)
    async with parts(tmp_path, board, pace=replace(QUICK, give_up_s=10.0)) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert board.sessions.counts["handshakes begun"] <= counted(gateway, board, "sessions opened")
        assert gateway.health.counted(LINE, "handshakes failed") == 0


async def test_a_board_that_computes_for_long_is_asked_again_and_the_others_are_served_meanwhile(
    tmp_path: Path, line_of: MakeLine
) -> None:
    slow, other = FakeBoard("LE-1", 1), FakeBoard("LE-2", 2)
    line = line_of(slow, other)
    slow.sessions.thinks_s = 1.6  # for each of three steps
    slow.close_reports(2)
    pace = Pace(repeat_s=0.5, give_up_s=30.0, again_s=0.1)
    async with parts(tmp_path, slow, other, pace=pace) as gateway, gateway.asking(line):
        await opened(gateway, other, 1)
        served = 0
        while counted(gateway, slow, "sessions opened") == 0:
            other.close_reports(1)
            await other.forgets(max(other.taken))
            served += 1
        assert served >= 5
        await arrive(gateway, slow, other)
        assert slow.sessions.counts["handshakes begun"] == 1, "a repeated step costs no arithmetic"
        assert gateway.health.counted(LINE, "handshake steps repeated") >= 3


async def test_a_handshake_is_given_up_and_the_pause_grows(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    line = line_of(board)
    line.to_gateway = lambda one: [] if one.kind == frame.HANDSHAKE else [one]
    pace = Pace(repeat_s=0.05, give_up_s=0.3, again_s=0.0, rest_s=0.1, rest_cap_s=0.2)
    async with parts(tmp_path, board, pace=pace) as gateway, gateway.asking(line):
        await until(lambda: gateway.health.counted(LINE, "handshakes failed: not introduced") >= 2)
        assert "does not take our credential" in str(gateway.health.snapshot()[LINE]["alarms"])
        line.to_gateway = lambda one: [one]
        await opened(gateway, board, 1)
        assert gateway.health.snapshot()[LINE]["alarms"] == []


async def test_a_board_that_is_not_enrolled_gets_no_handshake(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.enrolled = False
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        await until(lambda: gateway.health.counted(LINE, "not enrolled") > 0)
        assert gateway.health.counted(LINE, "handshakes begun") == 0


async def test_a_gateway_of_another_authority_gets_no_session(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    board.meet(FakeAuthority())
    pace = Pace(repeat_s=0.05, give_up_s=0.2, again_s=0.0, rest_s=0.1, rest_cap_s=0.2)
    async with parts(tmp_path, board, pace=pace) as gateway, gateway.asking(line_of(board)):
        await until(lambda: gateway.health.counted(LINE, "handshakes failed: not introduced") > 0)
        assert board.sessions.counts["introductions refused"] > 0
        assert board.sessions.counts["handshakes begun"] == 0
        assert board.acknowledged == 0


# Losing one -----------------------------------------------------------------------------------------------------------


async def test_a_board_that_restarts_says_so_and_no_report_is_lost_or_doubled(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        for times in (1, 2, 3):
            board.close_reports(5)
            await opened(gateway, board, times)
            await board.forgets(max(board.taken) - 2)
            board.restart()
        await arrive(gateway, board)
        assert board.sessions.counts["hints"] >= 2
        assert counted(gateway, board, "hints of a lost session") >= 2
        assert board.sessions.counts["verified"] == 1, "who is known needs no arithmetic to be introduced"


async def test_a_board_that_loses_power_in_the_middle_of_a_handshake_is_asked_anew(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(1)
    line = line_of(board)
    cut = 0

    def power_fails_after_message_2(one: Frame) -> list[Frame]:
        nonlocal cut
        if one.kind == frame.HANDSHAKE and one.payload[0] == edhoc.MESSAGE_2 and not cut:
            cut = 1
            board.restart()
        return [one]

    line.to_gateway = power_fails_after_message_2
    pace = Pace(repeat_s=0.05, give_up_s=0.5, again_s=0.1, rest_s=0.1, rest_cap_s=0.2)
    async with parts(tmp_path, board, pace=pace) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert gateway.health.counted(LINE, "handshakes failed: no answer") == 1
        assert board.sessions.counts["handshakes begun"] == 2


async def test_a_gateway_that_restarts_loses_and_doubles_nothing(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    line = line_of(board)
    board.sessions.bucket = Bucket(refill_s=0.01)
    async with parts(tmp_path, board) as gateway:
        for times in (1, 2, 3):
            async with gateway.asking(line):
                await opened(gateway, board, times)
                board.close_reports(7)
                await board.forgets(max(board.taken) - 3)
        async with gateway.asking(line):
            await arrive(gateway, board)
        assert counted(gateway, board, "reports repeated") == 0


async def test_hands_are_shaken_again_before_a_session_ends_and_the_old_one_goes_on(
    tmp_path: Path, line_of: MakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_DUE_RECORDS", 20)
    board = FakeBoard()
    board.sessions.bucket = Bucket(refill_s=0.01)
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        while counted(gateway, board, "sessions opened") < 4:
            board.close_reports(1)
            await board.forgets(max(board.taken))
        await arrive(gateway, board)
        assert counted(gateway, board, "sessions ended") == 0, "each was replaced, none was lost"
        assert counted(gateway, board, "reports repeated") == 0


async def test_a_record_of_an_old_session_is_dropped_after_a_new_one(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    line = line_of(board)
    old: list[Frame] = []

    def keep(one: Frame) -> list[Frame]:
        old.append(one)
        return [one]

    line.to_gateway = keep
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        line.to_gateway = lambda one: [one]
        records = [one for one in old if one.kind == frame.RECORD]
        board.restart()
        await opened(gateway, board, 2)
        # They come ahead of each answer, when somebody waits for one.
        line.to_gateway = lambda one: [*records, one]
        board.close_reports(1)
        await arrive(gateway, board)
        assert counted(gateway, board, "records refused: another session") >= len(records)
        assert counted(gateway, board, "sessions opened") == 2
