"""Updates over the line: a board gets what it wants, whatever is lost in between, and reports go on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.fake_releases import contents, release
from tests.gateway.parts import Parts, parts, until
from tests.gateway.street import quick

from laterne_gateway.update_status import Told
from laterne_protocol import frame, order
from laterne_protocol.release_file import Release
from laterne_protocol.update_messages import IDLE, PATCH, STAGED, TRIAL, Progress

LineOf = Callable[..., FakeLine]


class Case:
    def __init__(self, made: Parts, board: FakeBoard, line: FakeLine, old: Release, new: Release) -> None:
        self.parts, self.board, self.line, self.old, self.new = made, board, line, old, new

    async def staged(self) -> None:
        await until(lambda: self.board.updates.staged is not None)
        assert self.board.updates.staged is not None
        assert self.board.updates.staged.contents == self.new.contents


@asynccontextmanager
async def updating(tmp_path: Path, line_of: LineOf, board: FakeBoard | None = None) -> AsyncIterator[Case]:
    """A board that runs an older release and is ordered the newer one; both are in the store. Nothing is asked yet."""
    board = quick(board or FakeBoard())
    async with parts(tmp_path, board) as made:
        files = contents()
        old = release(made.authority, files, 2, "2.0.0")
        files["laterne_firmware/m03.mpy"] = files["laterne_firmware/m03.mpy"][:1000] + b"changed" * 9 + bytes(900)
        files["laterne_protocol/long.mpy"] = files["laterne_protocol/long.mpy"][:9000] + b" and longer"
        new = release(made.authority, files | {"new.mpy": b"new " * 1700}, 3, "3.0.0")
        for one in (old, new):
            await made.releases.add(one.to_bytes(), ())
        board.updates.running, board.updates.sequence = old, 2
        board.updates.stage(new)
        yield Case(made, board, line_of(board), old, new)


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


async def test_it_goes_on_where_frames_were_lost(tmp_path: Path, line_of: LineOf) -> None:
    """Each fifth data frame is lost, and each ninth answer."""
    async with updating(tmp_path, line_of) as case:
        count = [0, 0]
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
        assert count[0] > 10
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


async def test_a_trial_is_confirmed_after_three_reports_of_this_start_over_this_session(
    tmp_path: Path, line_of: LineOf
) -> None:
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        board.close_reports(5)  # of the start before: they count for nothing
        async with case.parts.asking(case.line):
            await case.staged()
            updates.arm()
            board.restart()
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            board.close_reports(2)
            await board.forgets(7)
            await asked_again(case)
            assert set(updates.told) == {None}
            board.close_reports(1)
            await board.forgets(8)
            await asked_again(case)
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
            await asked_again(case)
            assert updates.trial
            assert set(updates.told) == {None}


async def test_reports_of_a_former_start_that_come_late_do_not_confirm_a_trial(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        board.answer_with = lambda body: None
        board.close_reports(4)
        async with case.parts.asking(case.line):
            await case.staged()
            updates.arm()
            board.restart()
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            board.answer_with = lambda body: body
            await board.forgets(4)
            await asked_again(case)
            assert updates.trial
            assert set(updates.told) == {None}


async def test_reports_of_another_session_do_not_confirm_a_trial(tmp_path: Path, line_of: LineOf) -> None:
    """Two came in the session before and one in this: the link has not been shown to carry three."""
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        async with case.parts.asking(case.line):
            await case.staged()
            updates.arm()
            board.restart()
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            board.close_reports(2)
            await board.forgets(2)
            board.sessions.restart()
            await until(lambda: board.sessions.counts["sessions opened"] >= 3)
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            board.close_reports(1)
            await board.forgets(3)
            await asked_again(case)
            assert updates.trial
            assert set(updates.told) == {None}


async def asked_again(case: Case) -> None:
    """Waits for two more answers to questions about the update, without waiting out the pauses."""
    before = case.board.updates.asked
    while case.board.updates.asked < before + 2:
        for bus in case.parts.buses:
            for contact in bus._contacts:
                contact.update_due_s = 0.0
            bus._line.stir()
        await asyncio.sleep(0.01)


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
        case.board.updates.claims["wanted"] = (case.new.digest, *wanted)
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
        case.board.updates.claims["wanted"] = (case.new.digest, 4, 0, 3000, 0)
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
                claims["wanted"] = (case.new.digest, items[0], 0, 3000, 0)
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


async def test_a_trial_that_no_report_comes_from_is_never_confirmed(tmp_path: Path, line_of: LineOf) -> None:
    async with updating(tmp_path, line_of) as case, case.parts.asking(case.line):
        await case.staged()
        case.board.updates.arm()
        case.board.restart()
        await until(lambda: case.parts.updates._standing("LE-0007").progress is not None)
        await asked_again(case)
        await asked_again(case)
        progress = case.parts.updates._standing("LE-0007").progress
        assert progress is not None
        assert progress.phase == TRIAL
        assert set(case.board.updates.told) == {None}
