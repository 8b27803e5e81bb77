"""The buffer: what put() returned for is on disk, once, in order, whatever happens to the process."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import limit_pages

from laterne_gateway import drops, ledger
from laterne_gateway.buffer import FRESH, Buffer
from laterne_gateway.buffered import OTHER, PAST, REPEATED, STORED, TOO_OLD, Accepted, Refused
from laterne_gateway.config import BufferSettings
from laterne_gateway.database import FILE_NAME, DatabaseError, DirectoryLock, open_database
from laterne_gateway.health import Health
from laterne_gateway.ledger import MAX_SET_ASIDE, SET_ASIDE_DROPPED
from laterne_gateway.writer import ENOUGH, StoreError

KILLS = 12


def accepted(board: FakeBoard, sequence: int, *, body: bytes | None = None, follows: int | None = -1) -> Accepted:
    """A report as the inbox would hand it over."""
    made, digest = board.make(sequence, b"p" * 16)
    before = sequence - 1 or None if follows == -1 else follows
    return Accepted(board.name, sequence, digest, board.credential_digest, before, None, None, body or made)


def open_buffer(directory: Path, *routes: str, settings: BufferSettings | None = None) -> Buffer:
    return Buffer(directory, routes or ("mqtt",), settings or BufferSettings(), Health())


def delivered(buffer: Buffer, up_to_id: int, route: str = "mqtt") -> None:
    """As a route would say it of its lane without an end."""
    buffer.delivered(buffer.lanes[route][-1], up_to_id)


def test_what_put_returned_for_is_there_after_kill_9(tmp_path: Path) -> None:
    """Killed at random moments; each next process goes on where the disk says."""
    chance = random.Random(20261122)
    told: dict[str, int] = {}
    for _ in range(KILLS):
        command = [sys.executable, str(Path(__file__).parent / "writer.py"), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            try:
                lines = [writer.stdout.readline() for _ in range(chance.randrange(1, 2000))]
            finally:
                writer.kill()
            lines += writer.stdout.readlines()
        for line in lines:
            if line.endswith(b"\n"):  # the last may have been cut
                name, number = line.decode().split()
                told[name] = max(told.get(name, 0), int(number))
        database = sqlite3.connect(tmp_path / FILE_NAME)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        chains = dict(database.execute("select board, sequence from chain"))
        for board, sequence in told.items():
            assert chains[board] >= sequence, f"{board}: {sequence} was told to be on disk, {chains[board]} is there"
        cursor = database.execute("select delivered from lane").fetchone()[0]
        ids = [row[0] for row in database.execute("select id from report order by id")]
        assert ids == list(range(cursor + 1, cursor + 1 + len(ids))), "a row went before it was delivered"
        for board, last in chains.items():
            kept = [row[0] for row in database.execute("select sequence from report where board = ?", (board,))]
            assert sorted(kept) == list(range(last - len(kept) + 1, last + 1))
        database.close()
    assert told


async def test_put_returns_only_after_the_commit(tmp_path: Path) -> None:
    """Another connection sees what has been committed and nothing else."""
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    other = sqlite3.connect(tmp_path / FILE_NAME)
    for sequence in range(1, 101):
        await buffer.put(accepted(board, sequence))
        assert other.execute("select max(sequence) from report").fetchone() == (sequence,)
        assert buffer.chains[board.name].sequence == sequence
    other.close()
    await buffer.close()


async def test_a_repeated_report_is_stored_once(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    report = accepted(board, 1)
    assert await buffer.put(report) == STORED
    assert await buffer.put(report) == REPEATED
    assert [row.sequence for row in await buffer.oldest(0, 10)] == [1]
    await buffer.close()


async def test_another_report_with_a_stored_number_is_told_apart(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await buffer.put(accepted(board, 1))
    body, digest = board.make(1, b"q" * 16)
    assert await buffer.put(Accepted(board.name, 1, digest, board.credential_digest, None, None, None, body)) == OTHER
    await buffer.close()


async def test_a_report_whose_predecessor_was_not_stored_is_not_stored(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await buffer.put(accepted(board, 1))
    with pytest.raises(StoreError):
        await buffer.put(accepted(board, 3))
    assert buffer.chains[board.name].sequence == 1
    assert len(await buffer.oldest(0, 10)) == 1
    await buffer.close()


async def test_a_row_goes_when_the_slowest_route_has_it(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path, "fast", "slow")
    for sequence in (1, 2, 3):
        await buffer.put(accepted(board, sequence))
    delivered(buffer, 3, "fast")
    delivered(buffer, 1, "slow")
    await buffer.close()
    buffer = open_buffer(tmp_path, "fast", "slow")
    assert [row.sequence for row in await buffer.oldest(0, 10)] == [2, 3]
    assert (buffer.waiting("fast"), buffer.waiting("slow")) == (0, 2)
    await buffer.close()


async def test_a_route_that_left_the_configuration_holds_nothing_back(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path, "mqtt", "former")
    await buffer.put(accepted(board, 1))
    await buffer.close()
    buffer = open_buffer(tmp_path, "mqtt")
    delivered(buffer, 1)
    await buffer.close()
    buffer = open_buffer(tmp_path, "mqtt")
    assert await buffer.oldest(0, 10) == []
    await buffer.close()


async def test_a_route_that_comes_back_goes_on_where_it_was_with_what_is_still_there(tmp_path: Path) -> None:
    """Else its platform would get again what it has: one that looks for nothing would store it twice."""
    board, buffer = FakeBoard(), open_buffer(tmp_path, "slow", "city")
    for sequence in range(1, 5):
        await buffer.put(accepted(board, sequence))
    backlog, live = buffer.part("city", left_behind=2)
    buffer.delivered(backlog, 1)
    await buffer.put(accepted(board, 5))
    await buffer.put(accepted(board, 6))
    buffer.delivered(live, 5)
    await buffer.close()
    for last in (7, 8):  # away for two starts; "slow" keeps all rows meanwhile
        buffer = open_buffer(tmp_path, "slow")
        await buffer.put(accepted(board, last))
        assert "city" not in str(await buffer.tallies())
        await buffer.close()
    buffer = open_buffer(tmp_path, "slow", "city")
    assert buffer.waiting("city") == 3 + 3
    backlog, live = buffer.part("city", left_behind=2)[:2]
    assert [row.sequence for row in await buffer.oldest(backlog.delivered, 10, backlog.upto)] == [2, 3, 4]
    assert [row.sequence for row in await buffer.oldest(live.delivered, 10)] == [6, 7, 8]
    await buffer.close()
    buffer = open_buffer(tmp_path, "city")
    assert buffer.waiting("city") == 6, "it is waited for as before"
    await buffer.close()


async def test_the_chain_and_the_row_numbers_outlive_the_rows(tmp_path: Path) -> None:
    """A row number that came again would lie below the cursor and never be delivered."""
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await buffer.put(accepted(board, 1))
    delivered(buffer, 1)
    await buffer.close()
    buffer = open_buffer(tmp_path)
    assert buffer.chains[board.name].sequence == 1
    assert await buffer.put(accepted(board, 1)) == PAST
    await buffer.put(accepted(board, 2))
    assert [(row.id, row.sequence) for row in await buffer.oldest(1, 10)] == [(2, 2)]
    await buffer.close()


async def test_a_full_disk_stores_nothing_and_is_survived(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await limit_pages(buffer, 14)
    sequence = 0
    full = ""
    while not full:
        try:
            await buffer.put(accepted(board, sequence + 1, body=bytes(900)))
            sequence += 1
        except StoreError as why:
            full = str(why)
    assert "full" in full
    assert sequence > 3
    with pytest.raises(StoreError):  # the one after it could be stored, but must not be
        await buffer.put(accepted(board, sequence + 2))
    delivered(buffer, buffer.last_id)
    while True:
        try:
            assert await buffer.put(accepted(board, sequence + 1)) == STORED
        except StoreError:
            continue  # the cursor goes with one of the next commits and makes room
        break
    await buffer.close()


async def test_what_is_refused_is_kept_with_its_reason_and_its_loss_is_counted(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    over = 7
    await asyncio.gather(
        *(
            buffer.set_aside(Refused("LE-1", number, "signature", b"c" * 16, None, None, None, b"x"))
            for number in range(MAX_SET_ASIDE + over)
        )
    )
    tallies = await buffer.tallies()
    assert (tallies["set aside"], tallies[SET_ASIDE_DROPPED]) == (MAX_SET_ASIDE, over)
    await buffer.close()


async def test_a_board_that_lies_without_an_end_displaces_nothing_of_another(tmp_path: Path) -> None:
    """What is set aside is passed over, and its board forgets it: nobody else has it."""
    buffer = open_buffer(tmp_path)
    await buffer.set_aside(Refused("LE-0", 1, "signature", b"c" * 16, None, None, None, b"the only one"))
    await asyncio.gather(
        *(
            buffer.set_aside(Refused("LE-1", number, "signature", b"c" * 16, None, None, None, b"x"))
            for number in range(MAX_SET_ASIDE)
        )
    )
    await buffer.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        kept = db.execute("select board, min(sequence), count(*) from set_aside group by board").fetchall()
    assert kept == [("LE-0", 1, 1), ("LE-1", 1, MAX_SET_ASIDE - 1)]


async def test_a_report_passed_over_moves_the_chain_with_it(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await buffer.put(accepted(board, 1))
    await buffer.set_aside(Refused(board.name, 2, "signature", board.credential_digest, 1, None, 2, b"x"))
    await buffer.close()
    buffer = open_buffer(tmp_path)
    assert (buffer.chains[board.name].sequence, buffer.chains[board.name].digest) == (2, None)
    await buffer.close()


async def test_many_reports_share_a_commit(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    reports = [accepted(board, number) for number in range(1, 201)]
    assert await asyncio.gather(*(buffer.put(one) for one in reports)) == [STORED] * 200
    assert buffer.commits < 20
    await buffer.close()


async def test_where_told_so_a_commit_waits_for_company_but_not_when_it_has_enough(tmp_path: Path) -> None:
    """A minute: what is not enough waits for the end, what is enough goes at once."""
    board, buffer = FakeBoard(), open_buffer(tmp_path, settings=BufferSettings(gather_s=60))
    reports = [accepted(board, number) for number in range(1, ENOUGH + 1)]
    few = [asyncio.ensure_future(buffer.put(one)) for one in reports[:-1]]
    assert await buffer.oldest(0, 10) == []  # the thread has looked, and gone back to waiting
    assert not any(one.done() for one in few)
    assert await buffer.put(reports[-1]) == STORED
    assert await asyncio.gather(*few) == [STORED] * len(few)
    assert buffer.commits == 1
    last = asyncio.ensure_future(buffer.put(accepted(board, ENOUGH + 1)))
    await asyncio.sleep(0)
    await buffer.close()
    assert await last == STORED, "the end does not wait"


async def test_arrived_wakes_a_route_when_there_is_more(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    waiting = asyncio.create_task(buffer.arrived(0))
    await buffer.put(accepted(board, 1))
    await waiting
    await buffer.close()


def test_a_second_gateway_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.take()
    with pytest.raises(DatabaseError, match="another laterne-gateway runs"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("create table somebody_elses (x)")
    other.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(DatabaseError, match="another program"):
        open_database(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_database_of_a_later_format_is_refused(tmp_path: Path) -> None:
    connection = open_database(tmp_path)
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match="format 99"):
        open_database(tmp_path)


async def test_a_route_that_keeps_up_has_from_memory_what_is_on_the_disk_and_no_more(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    for sequence in range(1, 2 * FRESH + 1):
        await buffer.put(accepted(board, sequence))
    on_disk = await buffer._writer.read(lambda db, _: db.execute("select * from report order by id").fetchall())
    assert isinstance(on_disk, list)
    for after in (0, FRESH - 1, FRESH, FRESH + 1, 2 * FRESH - 1):
        found = await buffer.oldest(after, 20)
        assert [(*row[:5], row.body) for row in found] == [(*row[:5], row[6]) for row in on_disk[after : after + 20]]
    assert [row.id for row in await buffer.oldest(FRESH + 3, 20, FRESH + 5)] == [FRESH + 4, FRESH + 5]
    assert await buffer.oldest(2 * FRESH, 20) == []
    await buffer.close()


async def test_what_was_dropped_is_not_delivered_from_memory_either(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    for sequence in (1, 2, 3, 4):
        await buffer.put(accepted(board, sequence))
    await buffer._writer.write(lambda db, numbers: drops.drop_oldest(db, numbers, 2, TOO_OLD, None))
    assert [row.sequence for row in await buffer.oldest(0, 20)] == [3, 4]
    await buffer.close()


async def test_a_report_that_could_not_be_committed_is_in_nobody_s_memory(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await buffer.put(accepted(board, 1))

    def fail(db: sqlite3.Connection, _: ledger.Ledger) -> None:
        raise StoreFullError

    class StoreFullError(sqlite3.OperationalError):
        sqlite_errorcode = sqlite3.SQLITE_FULL

    one, two = await asyncio.gather(buffer.put(accepted(board, 2)), buffer._writer.write(fail), return_exceptions=True)
    assert isinstance(one, StoreError)
    assert isinstance(two, StoreError)
    assert [row.sequence for row in await buffer.oldest(0, 20)] == [1]
    assert await buffer.put(accepted(board, 2)) == STORED
    assert [(row.id, row.sequence) for row in await buffer.oldest(0, 20)] == [(1, 1), (2, 2)]
    await buffer.close()


@pytest.mark.parametrize("restart", [False, True])
async def test_reports_of_the_credential_before_are_not_mixed_up_with_those_of_the_next(
    tmp_path: Path, restart: bool
) -> None:
    """They wait for a broker while the board begins at 1 again: one number, two reports."""
    before, after = FakeBoard("LE-1"), FakeBoard("LE-1")
    assert before.credential_digest != after.credential_digest
    buffer = open_buffer(tmp_path)
    for sequence in (3, 4, 5):
        assert await buffer.put(accepted(before, sequence, follows=None if sequence == 3 else -1)) == STORED
    assert await buffer.put(accepted(after, 1)) == STORED
    if restart:
        await buffer.close()
        buffer = open_buffer(tmp_path)
    other = accepted(after, 3)._replace(digest=b"another report's")
    both = [buffer.put(accepted(after, 2)), buffer.put(other)]
    assert await asyncio.gather(*both) == [STORED, OTHER]
    delivered(buffer, 5)
    await buffer.keep_file("roster", 1, b"")  # the lane goes with it
    assert await buffer.put(other) == STORED
    assert buffer.chains["LE-1"].sequence == 3
    await buffer.close()
