"""Sessions on a line on which somebody listens, reflects, floods and forges."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.board_sessions import Bucket
from tests.gateway.counting import LINE, MakeLine, counted, opened
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import parts, until
from tests.gateway.test_bus import arrive

from laterne_gateway.handshakes import Pace
from laterne_protocol import edhoc, frame, messages, session
from laterne_protocol.frame import Frame, FrameDecoder


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
        line.to_boards = lambda one: down.append(one) or [one]  # type: ignore[func-returns-value]  # None, so the frame goes on
        line.to_gateway = lambda one: up.append(one) or [one]  # type: ignore[func-returns-value]  # None, so the frame goes on
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
        board.close_reports(150)
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


def steps_of_a_stranger() -> Iterator[bytes]:
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


async def test_who_shows_another_key_each_time_is_logged_once_a_minute(
    tmp_path: Path, line_of: MakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    line = line_of(FakeBoard("LE-1"))
    async with parts(tmp_path) as gateway, gateway.asking(line):
        for times in range(3):
            await until(lambda: gateway.health.counted("line line", "refused: unknown board") > times)  # noqa: B023 - awaited here
            stranger = FakeBoard("LE-1")
            stranger.meet(gateway.authority)
            line.boards[:] = [stranger]
    assert sum("is not in the roster" in record.getMessage() for record in caplog.records) == 1
