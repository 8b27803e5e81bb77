"""Who the board of a session is: revoked ones lose it, none speaks for another, none keeps another gateway."""

import asyncio
from pathlib import Path

from tests.gateway.counting import LINE, MakeLine, counted
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import QUICK, Parts, parts, until
from tests.gateway.test_bus import arrive

from laterne_protocol import edhoc, frame, messages
from laterne_protocol.frame import Frame


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
