"""Sessions on real PTYs, between the real gateway parts and boards with the real Responder: whatever is on the line."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.board_sessions import Bucket
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import QUICK, Parts, parts, until
from tests.gateway.test_bus import arrive

from laterne_gateway.handshakes import AWAITS_2, AWAITS_4, AWAITS_INTRODUCED, IDLE, NEXT, Pace
from laterne_protocol import edhoc, frame, messages, session
from laterne_protocol.frame import Frame, FrameDecoder

MakeLine = Callable[..., FakeLine]
LINE = "line line"


def counted(gateway: Parts, board: FakeBoard, what: str) -> int:
    return gateway.health.counted(board.name, what)


async def opened(gateway: Parts, board: FakeBoard, times: int) -> None:
    await until(lambda: counted(gateway, board, "sessions opened") >= times)


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


async def test_a_session_is_opened_on_a_line_that_loses_much(tmp_path: Path, line_of: MakeLine) -> None:
    """A fifth of all answers is noise; steps are repeated and nothing is computed twice."""
    board = FakeBoard()
    board.close_reports(10)
    line = line_of(board)
    line.damage = 0.2
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
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


# Who listens and who forges -----------------------------------------------------------------------------------------


def in_the_clear(tapped: bytes, word: bytes) -> bool:
    """Whether a word stands in a line's bytes, or in its frames without their COBS."""
    return word in tapped or any(word in one.payload for one in FrameDecoder().feed(tapped))


async def test_nothing_that_a_board_says_can_be_read_on_the_line(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard("LE-4711")
    board.close_reports(5)
    line = line_of(board)
    line.tapped = bytearray()
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        board.restart()
        board.close_reports(5)
        await arrive(gateway, board)
        tapped = bytes(line.tapped)
    assert len(tapped) > 3000
    kinds = {one.kind for one in FrameDecoder().feed(tapped)}
    assert kinds == {frame.MESSAGE, frame.HANDSHAKE, frame.RECORD}
    names = [board.name.encode(), b"0.1.0", b"fake", board.key.kid, board.sessions.kid, board.credential_digest]
    bodies = [body[at : at + 16] for body in board.taken.values() for at in range(0, len(body) - 16, 16)]
    for word in names + bodies:
        assert not in_the_clear(tapped, word), word
    plain = [one.payload for one in FrameDecoder().feed(tapped) if one.kind == frame.MESSAGE]
    said = [messages.message_of(payload) for payload in plain]
    assert all(isinstance(one, (messages.Hello, messages.Refusal)) for one in said)


async def test_what_was_said_in_an_earlier_session_opens_nothing_later(tmp_path: Path, line_of: MakeLine) -> None:
    """A forger writes all bytes of an earlier run again, to the board and to the gateway."""
    board = FakeBoard()
    board.close_reports(5)
    line = line_of(board)
    down: list[Frame] = []
    up: list[Frame] = []
    async with parts(tmp_path, board) as gateway:
        line.to_boards = lambda one: down.append(one) or [one]  # type: ignore[func-returns-value]
        line.to_gateway = lambda one: up.append(one) or [one]  # type: ignore[func-returns-value]
        async with gateway.asking(line):
            await arrive(gateway, board)
        line.to_boards = line.to_gateway = lambda one: [one]
        board.restart()
        async with gateway.asking(line):
            await opened(gateway, board, 2)
            before = board.questions
            for one in up:
                line.reach_gateway(one)
            for one in down:
                line.reach_boards(one)
            board.close_reports(3)
            await arrive(gateway, board)
            assert board.sessions.counts["handshakes begun"] <= 4, "message_1 of the past costs, but within bounds"
            assert board.questions > before
        assert counted(gateway, board, "refused: signature") == 0
        assert gateway.health.counted(LINE, "frames unasked") > 0


async def test_frames_that_are_reflected_do_nothing(tmp_path: Path, line_of: MakeLine) -> None:
    """Who is between sends each frame back to its sender as well, addresses swapped."""
    board = FakeBoard()
    board.close_reports(5)
    line = line_of(board)

    def mirrored(one: Frame) -> Frame:
        return Frame(one.kind, one.source, one.destination, one.payload)

    def to_gateway(one: Frame) -> list[Frame]:
        line.boards[0].receive(mirrored(one))
        return [one]

    def to_boards(one: Frame) -> list[Frame]:
        line.reach_gateway(mirrored(one))
        line.reach_gateway(one)
        return [one]

    line.to_gateway, line.to_boards = to_gateway, to_boards
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        board.close_reports(20)
        await arrive(gateway, board)
        # One session, but for those that end because a loaded machine answered too late three times.
        opened = counted(gateway, board, "sessions opened")
        assert opened <= 1 + gateway.health.counted(LINE, "questions without answer") // 3
        assert gateway.health.counted(LINE, "frames unasked") > 10


async def test_records_at_random_end_a_session_after_sixteen_and_cost_no_report(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    line = line_of(board)
    forged = 0

    def forge(one: Frame) -> list[Frame]:
        nonlocal forged
        if one.kind != frame.RECORD or forged >= 20:
            return [one]
        forged += 1
        fake = one.payload[:1] + (1000 + forged).to_bytes(3, "big") + os.urandom(30)
        return [Frame(frame.RECORD, one.destination, one.source, fake), one]

    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        board.close_reports(30)
        line.to_gateway = forge
        await arrive(gateway, board)
        assert counted(gateway, board, "records refused: wrong tag") >= session.MAX_FAILED_TAGS
        assert counted(gateway, board, "sessions ended") == 1
        assert counted(gateway, board, "sessions opened") == 2


async def test_a_forged_hint_ends_no_session_and_handshakes_begin_rarely(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.sessions.bucket = Bucket(refill_s=0.01)
    line = line_of(board)
    hint = Frame(frame.MESSAGE, frame.GATEWAY, board.address, messages.HINT.to_bytes())
    line.to_gateway = lambda one: [hint, one]
    pace = Pace(repeat_s=0.1, give_up_s=3.0, again_s=1.0, rest_s=0.2, rest_cap_s=0.5)
    async with parts(tmp_path, board, pace=pace) as gateway, gateway.asking(line):
        began = asyncio.get_running_loop().time()
        while counted(gateway, board, "hints of a lost session") < 60:
            board.close_reports(5)
            await arrive(gateway, board)
        took = asyncio.get_running_loop().time() - began
        assert gateway.health.counted(LINE, "handshakes begun") <= 1 + took
        assert counted(gateway, board, "sessions ended") == 0


async def test_a_flood_of_message_1_costs_a_board_a_handful_of_handshakes(tmp_path: Path, line_of: MakeLine) -> None:
    board = FakeBoard()
    board.close_reports(1)
    line = line_of(board)
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        first = next(steps_of_a_stranger())
        board.sessions.replace_after_s = 0.0
        for _ in range(500):
            forged = first[:-33] + os.urandom(32) + first[-1:]
            line.reach_boards(Frame(frame.HANDSHAKE, board.address, frame.GATEWAY, forged))
        assert board.sessions.counts["over the limit"] >= 400
        assert board.sessions.counts["handshakes begun"] <= 4
        board.close_reports(5)
        await arrive(gateway, board)
        assert counted(gateway, board, "sessions opened") == 1, "the session goes on meanwhile"


def steps_of_a_stranger() -> "list[bytes].__iter__":  # type: ignore[valid-type]
    from tests.protocol.edhoc_pair import gateway as somebody
    from tests.protocol.edhoc_primitives import run

    return iter([bytes((edhoc.MESSAGE_1,)) + run(somebody().take(edhoc.START))])


async def test_forged_handshake_frames_between_cost_time_only(tmp_path: Path, line_of: MakeLine) -> None:
    """Introductions of others, message_2 and message_4 at random, errors: each ahead of the true answer, twice."""
    board = FakeBoard()
    board.sessions.bucket = Bucket(refill_s=0.01)
    board.sessions.replace_after_s = 0.0
    board.close_reports(3)
    line = line_of(board)
    left = 12

    def forge(one: Frame) -> list[Frame]:
        nonlocal left
        if one.kind != frame.HANDSHAKE or not left:
            return [one]
        left -= 1
        forged = [
            bytes((edhoc.INTRODUCED,)) + os.urandom(8),
            bytes((edhoc.ERROR,)) + bytes.fromhex("03f5"),
            bytes((edhoc.MESSAGE_2,)) + bytes.fromhex("5833") + os.urandom(51),
            bytes((edhoc.MESSAGE_4,)) + b"\x48" + os.urandom(8),
        ][left % 4]
        return [Frame(frame.HANDSHAKE, frame.GATEWAY, board.address, forged), one]

    line.to_gateway = forge
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert gateway.health.counted(LINE, "handshakes failed: message refused") > 0
        assert counted(gateway, board, "sessions opened") == 1


async def test_a_forged_error_does_not_end_the_handshake_of_a_board_that_is_still_computing(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.sessions.thinks_s = 0.15  # longer than a repetition takes to come
    board.close_reports(1)
    line = line_of(board)
    error = Frame(frame.HANDSHAKE, frame.GATEWAY, board.address, bytes((edhoc.ERROR,)) + bytes.fromhex("03f5"))

    def forge(one: Frame) -> list[Frame]:
        if one.kind == frame.HANDSHAKE and one.payload[0] in (edhoc.MESSAGE_1, edhoc.MESSAGE_3):
            line.reach_gateway(error)  # before the board has an answer
        return [one]

    line.to_boards = forge
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await arrive(gateway, board)
        assert gateway.health.counted(LINE, "handshake errors from the line") >= 2
        assert gateway.health.counted(LINE, "handshakes failed") == 0


async def test_an_enrolled_board_that_speaks_in_the_clear_is_not_believed(tmp_path: Path, line_of: MakeLine) -> None:
    """A forger answers the hello in a board's name: nothing of it is believed, and nothing asked in the clear."""
    board = FakeBoard()
    line = line_of(board)
    asked: list[Frame] = []

    def answer(one: Frame) -> list[Frame]:
        asked.append(one)
        said = messages.Identity(messages.message_of(one.payload).number, board.name, board.key.kid, 1, "1", "fake")
        line.reach_gateway(Frame(frame.MESSAGE, frame.GATEWAY, board.address, said.to_bytes()))
        return []

    line.to_boards = answer
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await until(lambda: gateway.health.counted(LINE, "refused: enrolled, but speaks in the clear") > 0)
        assert all(isinstance(messages.message_of(one.payload), messages.Hello) for one in asked)
        assert counted(gateway, board, "sessions opened") == 0


# Who the board is ---------------------------------------------------------------------------------------------------


async def test_a_revoked_board_loses_its_session_and_gets_no_other_as_soon_as_the_roster_comes(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board, other = FakeBoard(), FakeBoard("LE-8")
    line, other_line = line_of(board), line_of(other, name="other")
    async with parts(tmp_path, board, other) as gateway, gateway.asking(line, other_line):
        board.close_reports(1)
        await arrive(gateway, board)
        revoked = [(board.name, board.key.kid, "stolen")]
        gateway.roster_file.write_bytes(gateway.authority.roster_file([other.entry()], 2, revoked=revoked))
        assert await gateway.roster.reload() is None
        for bus in gateway.buses:
            bus.wake()
        board.close_reports(3)
        await until(lambda: gateway.health.counted(LINE, "handshakes failed") > 0)
        assert gateway.health.counted(LINE, "refused: revoked board") >= 2, "at the question, and in the handshake"
        assert counted(gateway, board, "sessions ended") == 1
        assert board.acknowledged == 1
        assert len(board.backlog) == 3, "its reports stay on it"
        other.close_reports(1)
        await arrive(gateway, other)


async def test_a_board_that_is_revoked_while_hands_are_shaken_gets_no_session(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(1)
    line = line_of(board)
    last_step, passes = asyncio.Event(), asyncio.Event()

    def hold_message_4(one: Frame) -> list[Frame]:
        if one.kind == frame.HANDSHAKE and one.payload[0] == edhoc.MESSAGE_4:
            last_step.set()
            return [one] if passes.is_set() else []
        return [one]

    line.to_gateway = hold_message_4
    async with parts(tmp_path, board) as gateway, gateway.asking(line):
        await last_step.wait()
        revoked = [(board.name, board.key.kid, "stolen")]
        gateway.roster_file.write_bytes(gateway.authority.roster_file([], 2, revoked=revoked))
        assert await gateway.roster.reload() is None
        passes.set()
        await until(lambda: gateway.health.counted(LINE, "refused: revoked board") > 0)
        assert counted(gateway, board, "sessions opened") == 0


async def test_a_report_of_another_board_in_a_session_is_refused_and_alarmed(tmp_path: Path, line_of: MakeLine) -> None:
    board, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    other.close_reports(1)
    board.close_reports(1)
    board.answer_with = lambda body: None if body is None else other.taken[1]
    async with parts(tmp_path, board, other) as gateway, gateway.asking(line_of(board)):
        await until(lambda: counted(gateway, board, "refused: speaks for another") > 0)
        assert "LE-2" in str(gateway.health.snapshot()[board.name]["alarms"])
        assert await gateway.stored() == {}


async def test_a_board_that_names_another_in_its_session_is_refused_and_alarmed(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    board.close_reports(1)
    async with parts(tmp_path, board, other) as gateway:
        board.name = "LE-2"  # what it says; its key is that of LE-1 in the roster
        async with gateway.asking(line_of(board)):
            await until(lambda: gateway.health.counted("LE-1", "refused: speaks for another") > 0)
            assert board.acknowledged == 0


async def test_a_board_with_another_gateway_s_credential_takes_ours_when_it_is_of_its_authority(
    tmp_path: Path, line_of: MakeLine
) -> None:
    """A spare gateway takes over a line: one verification, and the chain goes on."""
    board = FakeBoard()
    board.close_reports(2)
    line = line_of(board)
    spare_directory = tmp_path / "spare"
    spare_directory.mkdir()
    async with parts(tmp_path, board) as gateway:
        async with gateway.asking(line):
            await arrive(gateway, board)
        spare = Parts(spare_directory, [board], QUICK)
        for name, data in (
            ("trust.cbor", gateway.authority.trust_file()),
            ("roster.cbor", gateway.authority.roster_file([board.entry()])),
        ):
            (spare_directory / name).write_bytes(data)
        from tests.gateway.parts import write_identity

        write_identity(spare_directory, gateway.authority)
        await spare.open()
        try:
            board.close_reports(2)
            async with spare.asking(line):
                await board.forgets(4)
        finally:
            await spare.buffer.close()
        assert board.sessions.counts["verified"] == 2


async def test_an_answer_that_was_held_back_never_passes_for_one_to_a_later_question(
    tmp_path: Path, line_of: MakeLine
) -> None:
    """Numbers of questions come again after 256; a board's milliseconds in an old answer would set its clock back."""
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        async with gateway.asking(line_of(board)):
            board.close_reports(1)
            await arrive(gateway, board)
        link = gateway.buses[0]._contacts[0].link

        def answered(number: int) -> Frame:
            link.ask()
            asked = link.seal(messages.Poll(number, None, None, None).to_bytes())
            assert asked is not None
            answer = board.receive(asked)
            assert answer is not None
            return answer

        held, later = answered(7), answered(8)
        assert link.open(later) is not None
        assert link.open(held) is None, "overtaken"
        held = answered(9)
        for questions in range(256):  # each ended by a forged hint
            assert link.session is not None or questions > 100
            link.ask()
            link.hint(Frame(frame.MESSAGE, frame.GATEWAY, board.address, messages.HINT.to_bytes()))
        assert link.open(held) is None
        assert link.handshake.is_under_way, "a new session is wanted"
