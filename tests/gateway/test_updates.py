"""Updates over the line: a board gets what it wants, whatever is lost in between, and reports go on."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeLine
from tests.gateway.parts import until
from tests.gateway.updating import updating

from laterne_gateway.update_status import Told
from laterne_protocol import frame, order
from laterne_protocol.update_messages import DEFLATED, IDLE, PATCH, RAW, STAGED, Progress

LineOf = Callable[..., FakeLine]


async def test_a_board_gets_what_has_changed_and_stages_it(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case, case.parts.asking(case.line):
        await case.staged()
        changed = case.board.updates.items
        paths = [path for path, _, _ in case.new.entries]
        assert {paths[item - 2] for item in changed if item > 1} == {
            "laterne_firmware/m03.mpy",
            "laterne_protocol/long.mpy",
            "new.mpy",
        }
        assert case.board.updates.bytes_dropped == 0
        assert [encoding & PATCH for item, _, _, encoding, _ in case.board.updates.blocks if item == 1] == [PATCH]
        code = sum(size for item, *_, size in case.board.updates.blocks if item == 1)
        assert code < case.new.manifest.index_size / 4, "an index of which most is old"


async def test_a_board_whose_release_is_not_here_gets_no_patch(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        case.parts.releases.remove(case.old.digest)
        async with case.parts.asking(case.line):
            await case.staged()
        assert not any(encoding & PATCH for *_, encoding, _ in case.board.updates.blocks)


async def test_a_blank_board_gets_all_of_it(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.running = None
        async with case.parts.asking(case.line):
            await case.staged()
        assert len(case.board.updates.items) == 2 + len(case.new.entries) - 1, "one is empty"


async def test_a_board_with_a_window_gets_blocks_that_go_on_with_each_other(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.running, case.board.updates.window_bits = None, 12
        async with case.parts.asking(case.line):
            await case.staged()
        behind = [encoding for item, _, _, encoding, _ in case.board.updates.blocks if item > 1]
        assert set(behind) == {RAW, DEFLATED}, "some of it is noise"
        assert behind.count(DEFLATED) > 2


@pytest.mark.parametrize("window_bits", [10, 12])
async def test_it_goes_on_where_frames_were_lost(tmp_path: Path, line_of: LineOf, window_bits: int) -> None:
    """Each fifth data frame is lost, and each ninth answer."""
    async with updating(tmp_path, line_of) as case:
        count = [0, 0]
        case.board.updates.window_bits = window_bits
        case.board.updates.running = None

        def to_boards(one: frame.Frame) -> list[frame.Frame]:
            count[0] += len(one.payload) > 300
            return [] if len(one.payload) > 300 and count[0] % 5 == 0 else [one]

        def to_gateway(one: frame.Frame) -> list[frame.Frame]:
            count[1] += one.kind == frame.RECORD
            return [] if one.kind == frame.RECORD and count[1] % 9 == 0 else [one]

        case.line.to_boards, case.line.to_gateway = to_boards, to_gateway
        async with case.parts.asking(case.line):
            await case.staged()
        assert count[0] > 7
        sent = case.parts.health.counted("LE-0007", "updates: bytes sent")
        assert sent <= 2 * case.board.updates.bytes_taken, "what arrived before a loss is not sent again"
        name, said = await case.parts.updates.news()
        asked, missed = json.loads(said)["link"]
        assert name == "LE-0007"
        assert asked / 20 < missed < asked / 3, "each ninth answer was lost"


def test_how_a_line_does_is_told_ever_more_rarely_and_anything_else_at_once() -> None:
    told, told_s, now_s = Told(), list[float](), 0.0
    while now_s < 86_400:
        link = int(now_s), 0  # a question a second
        if told.due_in_s(progress(IDLE), None, link, now_s) in (0.0, -0.0):
            told_s.append(now_s)
            told.document(progress(IDLE), None, link, None, now_s)
        now_s += 60
    assert told_s == [0, 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800]
    assert told.due_in_s(progress(STAGED), None, link, now_s) == 0.0
    told.document(progress(STAGED), None, link, None, now_s)
    assert told.due_in_s(progress(STAGED), None, link, now_s + 299) is None, "nothing has changed"
    assert told.due_in_s(progress(STAGED), None, (86_500, 0), now_s + 299) == 1.0


def progress(phase: int) -> Progress:
    return Progress(1, phase, None, 0, None, 1, 1, bytes(8), None, None)


@pytest.mark.parametrize("lost", ["session", "power of the board", "gateway"])
async def test_it_goes_on_at_the_next_part_whatever_ends_in_between(tmp_path: Path, line_of: LineOf, lost: str) -> None:
    """After some blocks something is lost, again and again; files that were whole do not come again."""
    every = 4 if lost == "power of the board" else 3  # two of them are then envelope and index
    async with updating(tmp_path, line_of) as case:
        board = case.board
        board.updates.running = None
        seen = [0]
        gone = asyncio.Event()

        def to_boards(one: frame.Frame) -> list[frame.Frame]:
            if len(board.updates.blocks) >= seen[0] + every:
                seen[0] = len(board.updates.blocks)
                gone.set()
                if lost == "session":
                    board.sessions.restart()
                elif lost == "power of the board":
                    board.restart()
            return [one] if lost != "gateway" or not gone.is_set() else []

        case.line.to_boards = to_boards
        if lost == "gateway":
            while board.updates.staged is None:
                gone.clear()
                async with case.parts.asking(case.line):
                    await until(lambda: gone.is_set() or board.updates.staged is not None)
                await case.parts.reopen()
        else:
            async with case.parts.asking(case.line):
                await case.staged()
        assert seen[0] >= 6
        came = sum(size for item, _, size, *_ in board.updates.blocks if item > 1)
        again = came - sum(len(content) for content in case.new.contents.values())
        longest = max(len(content) for content in case.new.contents.values())
        allowed = longest * seen[0] // every if lost == "power of the board" else 0
        assert 0 <= again <= allowed, "what was not whole begins anew, and nothing else"


async def test_a_board_that_falls_silent_over_long_parts_gets_shorter_ones(tmp_path: Path, line_of: LineOf) -> None:
    """It has no memory for a frame of more than 400 bytes: it starts again each time one comes."""
    async with updating(tmp_path, line_of) as case:
        case.board.updates.running = None
        bursts: set[int] = set()

        def to_boards(one: frame.Frame) -> list[frame.Frame]:
            if one.kind != frame.RECORD or len(one.payload) <= 400:
                return [one]
            bursts.add(case.board.updates.asked)
            case.board.restart()
            return []

        case.line.to_boards = to_boards
        async with case.parts.asking(case.line):
            await case.staged()
        assert 1 <= len(bursts) <= 4


async def test_a_board_that_drops_what_it_has_over_long_parts_gets_shorter_ones(
    tmp_path: Path, line_of: LineOf
) -> None:
    """It lives and answers, and wants the same again."""
    async with updating(tmp_path, line_of) as case:
        case.board.updates.running, case.board.updates.longest_part = None, 300
        async with case.parts.asking(case.line):
            await case.staged()
        assert case.parts.health.counted("LE-0007", "updates: parts in vain") == 0


async def test_a_board_that_forgets_what_it_wants_is_asked_before_it_is_sent_parts_again(
    tmp_path: Path, line_of: LineOf
) -> None:
    """Short of memory, it forgets with each report that it signs. After a pause parts would find nobody, for ever."""
    async with updating(tmp_path, line_of) as case:
        board = case.board.updates
        board.forgets_after_s, board.longest_part = 0.4, 0
        async with case.parts.asking(case.line):
            await until(lambda: case.parts.health.counted("LE-0007", "updates: parts in vain") > 0)
            board.longest_part = 200
            await case.staged()


async def test_a_board_without_memory_to_inflate_gets_blocks_as_they_are(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.has_no_memory = True
        async with case.parts.asking(case.line):
            await case.staged()
        assert all(encoding & 1 == 0 for *_, encoding, _ in case.board.updates.blocks)


async def test_while_a_board_works_at_an_order_nobody_asks_for_its_update(tmp_path: Path, line_of: LineOf) -> None:
    """It has memory for one of the two."""
    async with updating(tmp_path, line_of) as case:
        board = case.board
        board.updates.ordered, board.orders.works = None, 2
        async with case.parts.asking(case.line):
            await until(lambda: board.updates.asked == 1)
            nonce = board.updates.nonce
            argument: list[bytes | int] = [case.new.digest, 3, nonce]
            body = case.parts.authority.order(board.name, board.key.kid, order.STAGE, argument)
            case.parts.orders.take(board.name, body)
            case.parts.buses[0].wake()
            for contact in case.parts.buses[0]._contacts:
                contact.due_s = 0.0
            await until(lambda: board.orders.works == 0)
            assert board.updates.asked == 1, "not since it works at the order"
            await case.staged()


@pytest.mark.parametrize("spoilt", [1, 9], ids=["the index", "a file"])
async def test_a_block_that_the_boards_flash_has_spoilt_comes_again_and_not_as_a_patch(
    tmp_path: Path, line_of: LineOf, spoilt: int
) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.spoils = {spoilt}
        async with case.parts.asking(case.line):
            await case.staged()
        came = [(start, encoding) for item, start, _, encoding, _ in case.board.updates.blocks if item == spoilt]
        _, again = [at for at, (start, _) in enumerate(came) if start == 0]
        assert all(encoding & PATCH for _, encoding in came[:again])
        assert not any(encoding & PATCH for _, encoding in came[again:])


async def test_a_board_that_works_is_asked_again_at_once(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        case.board.updates.working = 50
        async with case.parts.asking(case.line):
            await case.staged()
        assert case.board.updates.asked >= 50
