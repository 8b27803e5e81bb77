"""A damaged database: what can be read is kept, the damaged file is set aside, and what is missing is stated.

The damage is done to a copy of a real database with a log (WAL), page by page.
"""

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.test_buffer import accepted, delivered, open_buffer

from laterne_gateway import buffered, database_pages, ledger, salvage
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import PAST, REPEATED, STORED, Gap
from laterne_gateway.database import FILE_NAME, PAGE_BYTES, WAL_NAME
from laterne_gateway.writer import Writer

BOARDS = ("LE-1", "LE-2", "LE-3")
SEQUENCES = 60
DELIVERED = 45  # of the 180


@pytest.fixture(autouse=True)
def routes_that_do_not_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken from memory: the disk is what is tested here."""
    monkeypatch.setattr("laterne_gateway.buffer.FRESH", 0)


async def filled(directory: Path) -> dict[str, FakeBoard]:
    """A database with 180 reports of three boards, some delivered; its log is there, as after a kill."""
    boards = {name: FakeBoard(name) for name in BOARDS}
    buffer = open_buffer(directory / "made")
    for sequence in range(1, SEQUENCES + 1):
        await asyncio.gather(*(buffer.put(accepted(board, sequence)) for board in boards.values()))
        if sequence == SEQUENCES // 2:
            delivered(buffer, DELIVERED)
            await buffer._writer.read(lambda db, _: db.execute("pragma wal_checkpoint").fetchall())
    await buffer.keep_file("trust 3", 7, b"t" * 9000)  # written to the disk with this commit: the lane, too
    while (await buffer._writer.read(lambda db, _: db.execute("select delivered from lane").fetchone())) != (
        DELIVERED,
    ):
        await buffer.keep_file("trust 3", 7, b"t" * 9000)
    for name in (FILE_NAME, WAL_NAME):
        shutil.copy(directory / "made" / name, directory / name)
    await buffer.close()
    return boards


def pages(directory: Path) -> int:
    return (directory / FILE_NAME).stat().st_size // PAGE_BYTES


def overwrite(directory: Path, page: int, data: bytes) -> None:
    """On this page, from its beginning."""
    with (directory / FILE_NAME).open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(data)


def into_file(directory: Path) -> None:
    """The log is written into the file and gone, as after a clean end: damage to the file is damage then."""
    db = sqlite3.connect(directory / FILE_NAME)
    db.execute("pragma journal_mode = delete")
    db.execute("pragma journal_mode = wal")
    db.close()


async def waiting(buffer: Buffer) -> set[tuple[str, int]]:
    lane = buffer.lanes["mqtt"][0]
    return {(row.board, row.sequence) for row in await buffer.oldest(lane.delivered, 10_000)}


async def gaps(buffer: Buffer) -> list[Gap]:
    rows = await buffer._writer.read(
        lambda db, _: [Gap(*row) for row in db.execute("select board, first, last, reason, noticed_ms, id from gap")]
    )
    assert isinstance(rows, list)
    return rows


def stated(found: Iterable[Gap]) -> set[tuple[str, int]]:
    return {(gap.board, sequence) for gap in found for sequence in range(gap.first or 1, gap.last + 1)}


WAITED = {
    (board, sequence)
    for sequence in range(1, SEQUENCES + 1)
    for index, board in enumerate(BOARDS)
    if (sequence - 1) * len(BOARDS) + index >= DELIVERED
}


@pytest.mark.parametrize("kind", ["zeros", "noise", "torn"])
async def test_any_page_may_be_damaged_and_every_report_is_kept_or_stated(tmp_path: Path, kind: str) -> None:
    """Each page in turn: kept and stated together are all that waited; what was acknowledged stays acknowledged."""
    chance = random.Random(20261122)
    boards = await filled(tmp_path)
    into_file(tmp_path)
    whole = (tmp_path / FILE_NAME).read_bytes()
    damage = {"zeros": bytes(PAGE_BYTES), "noise": chance.randbytes(PAGE_BYTES), "torn": chance.randbytes(1500)}[kind]
    for page in range(1, len(whole) // PAGE_BYTES + 1):
        place = tmp_path / f"page {page}"
        place.mkdir()
        (place / FILE_NAME).write_bytes(whole)
        overwrite(place, page, damage)
        damaged = (place / FILE_NAME).read_bytes()
        salvage.repair(place, "a test", salvage.Known())
        assert [one.read_bytes() for one in salvage.set_aside_files(place)] == [damaged], "it is there, unchanged"
        buffer = open_buffer(place)
        kept, told = await waiting(buffer), stated(await gaps(buffer))
        assert kept | told >= WAITED, f"page {page}: {sorted(WAITED - kept - told)} are neither kept nor stated"
        assert buffer.last_id >= SEQUENCES * len(BOARDS) or not kept, "a number would come again"
        for board in boards.values():
            chain = buffer.chains.get(board.name)
            assert chain is None or chain.sequence == SEQUENCES, f"page {page}: {board.name} went back"
            # What a board still has goes on: its next report is stored, and it is said if it does not follow.
            follows = chain.sequence if chain else None
            assert await buffer.put(accepted(board, SEQUENCES + 1, follows=follows)) == STORED
            if chain is None:
                assert any(gap.board == board.name for gap in await gaps(buffer)) or SEQUENCES in {
                    sequence for name, sequence in kept if name == board.name
                }
        await buffer.close()
        shutil.rmtree(place)


async def test_a_repair_that_takes_long_is_seen_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the watchdog takes the disk's thread for hung and ends the process in the midst of it."""
    monkeypatch.setattr(salvage, "OPERATIONS_A_TURN", 100)
    await filled(tmp_path)
    into_file(tmp_path)
    overwrite(tmp_path, 1, bytes(PAGE_BYTES))
    turned: list[Writer] = []
    monkeypatch.setattr(Writer, "_turned", lambda writer: turned.append(writer))
    buffer = open_buffer(tmp_path)
    await buffer.opened()
    await buffer.close()
    assert len(turned) > 50


async def test_what_is_in_the_log_only_is_kept(tmp_path: Path) -> None:
    await filled(tmp_path)
    overwrite(tmp_path, 1, bytes(PAGE_BYTES))
    overwrite(tmp_path, 2, bytes(PAGE_BYTES))
    outcome = salvage.repair(tmp_path, "a test", salvage.Known())
    buffer = open_buffer(tmp_path)
    assert await waiting(buffer) == WAITED, "the log holds newer pages than the two that are gone"
    assert (outcome.lost, outcome.unnamed) == (0, 0)
    assert await buffer.kept_files("trust") == {"trust 3": b"t" * 9000}
    assert Path(f"{outcome.file}-wal").exists(), "the log goes with its file"
    await buffer.close()


async def test_a_board_whose_chain_is_lost_is_not_acknowledged_beyond_what_is_here(tmp_path: Path) -> None:
    boards = await filled(tmp_path)
    into_file(tmp_path)
    db = sqlite3.connect(tmp_path / FILE_NAME)
    page = db.execute("select rootpage from sqlite_schema where name = 'chain'").fetchone()[0]
    db.close()
    overwrite(tmp_path, page, bytes(PAGE_BYTES))
    salvage.repair(tmp_path, "a test", salvage.Known())
    buffer = open_buffer(tmp_path)
    assert buffer.chains == {}
    board = boards["LE-1"]
    # It may have forgotten none: then it offers the last one again, which is here, and goes on from there.
    assert await buffer.put(accepted(board, SEQUENCES, follows=None)) == REPEATED
    assert buffer.chains["LE-1"].sequence == SEQUENCES
    assert await buffer.put(accepted(board, SEQUENCES + 1)) == STORED
    assert await buffer.put(accepted(board, SEQUENCES - 1)) in (REPEATED, PAST)
    # Or it has forgotten more than is here: that is stated.
    assert await buffer.put(accepted(boards["LE-2"], SEQUENCES + 5, follows=None)) == STORED
    assert Gap("LE-2", SEQUENCES + 1, SEQUENCES + 4, buffered.LOST_TRACK, None) in [
        Gap(gap.board, gap.first, gap.last, gap.reason, None) for gap in await gaps(buffer)
    ]
    await buffer.close()


async def test_a_running_buffer_goes_on_with_what_it_knows(tmp_path: Path) -> None:
    """Chains and lanes are in memory: nothing acknowledged is forgotten although their pages are gone."""
    board = FakeBoard("LE-1")
    buffer = open_buffer(tmp_path)
    for sequence in range(1, 31):
        await buffer.put(accepted(board, sequence))
    delivered(buffer, 10)
    await buffer._writer.read(lambda db, _: db.execute("pragma wal_checkpoint(truncate)").fetchall())
    for page in range(1, pages(tmp_path) + 1):
        overwrite(tmp_path, page, bytes(PAGE_BYTES))
    await buffer._writer.read(lambda db, _: db.execute("pragma shrink_memory"))
    assert await buffer.oldest(10, 100) == []  # it finds the damage, is repaired, and answers then
    assert buffer.chains["LE-1"].sequence == 30
    assert await buffer.put(accepted(board, 30)) == PAST, "not taken again, and not acknowledged anew as a first one"
    assert await buffer.put(accepted(board, 31)) == STORED
    assert [(row.id, row.sequence) for row in await buffer.oldest(10, 100)] == [(31, 31)]
    assert stated(await gaps(buffer)) >= {("LE-1", sequence) for sequence in range(11, 31)}
    alarms = str(buffer._health.snapshot()["buffer"]["alarms"])
    assert "damaged" in alarms
    assert f"{FILE_NAME}.damaged-1" in alarms
    await buffer.close()


async def test_a_file_that_is_no_database_is_set_aside_and_not_deleted(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    buffer = open_buffer(tmp_path)
    await buffer.opened()
    assert [one.read_bytes() for one in salvage.set_aside_files(tmp_path)] == [b"no database" * 1000]
    assert await buffer.put(accepted(FakeBoard(), 1)) == STORED
    await buffer.close()


async def test_a_report_that_the_card_has_changed_is_set_aside_and_stated(tmp_path: Path) -> None:
    """SQLite does not notice: no page has a checksum."""
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    for sequence in (1, 2, 3):
        await buffer.put(accepted(board, sequence))
    await buffer._writer.write(
        lambda db, _: db.execute("update report set body = zeroblob(length(body)) where id in (1, 2)")
    )
    assert [row.sequence for row in await buffer.oldest(0, 2)] == [3]
    assert stated(await gaps(buffer)) == {(board.name, 1), (board.name, 2)}
    tallies = await buffer.tallies()
    assert (tallies["set aside"], tallies[ledger.DAMAGED]) == (2, 2)
    assert await buffer.put(accepted(board, 2)) == PAST, "it was acknowledged: it is not asked for again"
    await buffer.close()


CHANGES = 5  # an old copy is removed, the copy gets its name, the log goes, the file goes, the copy takes its place
DECIDED = 1


@pytest.mark.parametrize("step", range(CHANGES + 1))
async def test_a_repair_that_is_cut_short_is_finished_at_the_next_start(tmp_path: Path, step: int) -> None:
    """Killed before its step-th change of the directory."""
    await filled(tmp_path)
    overwrite(tmp_path, 2, bytes(PAGE_BYTES))
    overwrite(tmp_path, 1, bytes(PAGE_BYTES))
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom laterne_gateway import salvage\n"
        f"left = [{step}]\n"
        "def counted(event, arguments):\n"
        "    if event in ('os.rename', 'os.remove') and not os.path.basename(str(arguments[0])).startswith('.'):\n"
        "        left[0] -= 1\n"
        "        if left[0] < 0:\n"
        "            os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(counted)\n"
        f"salvage.repair(Path({str(tmp_path)!r}), 'a test', salvage.Known())\n"
    )
    done = await asyncio.to_thread(run, program)
    assert done.returncode == (-signal.SIGKILL if step < CHANGES else 0), done.stderr
    buffer = open_buffer(tmp_path)
    await buffer.opened()
    assert await waiting(buffer) == WAITED
    # Before the copy has its name nothing is decided; here the log still hides the damage.
    assert len(salvage.set_aside_files(tmp_path)) == (0 if step <= DECIDED else 1)
    await buffer.close()
    assert not list(tmp_path.glob("*half-made*"))


async def test_what_a_killed_writer_left_in_memory_is_written_again_before_it_is_believed(tmp_path: Path) -> None:
    """Power may fail after a kill: what the next process reads must be on the disk before it is acknowledged."""
    await filled(tmp_path)
    log = tmp_path / WAL_NAME
    before = log.read_bytes()
    program = f"""
import os, sys
from pathlib import Path
from laterne_gateway.database import open_database
log, written, steps = os.stat({str(log)!r}).st_ino, [0], []
pwrite, fsync = os.pwrite, os.fsync
def counted(descriptor, data, at):
    assert os.fstat(descriptor).st_ino == log and at == written[0]
    written[0] += len(data)
    return pwrite(descriptor, data, at)
def told(descriptor):
    fsync(descriptor)
    steps.append((os.fstat(descriptor).st_ino == log, written[0]))
os.pwrite, os.fsync = counted, told
sys.addaudithook(lambda event, _: event == "sqlite3.connect" and (print(steps), sys.stdout.flush()))
open_database(Path({str(tmp_path)!r}))
os._exit(0)
"""
    done = await asyncio.to_thread(run, program)
    assert done.stdout.splitlines()[0].startswith(f"[(True, {len(before)})"), done.stdout + done.stderr
    assert log.read_bytes()[: len(before)] == before


def run(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)


async def test_no_number_comes_again_below_a_lane(tmp_path: Path) -> None:
    """All reports delivered, their rows gone: the next one has a number that no lane has passed."""
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    for sequence in (1, 2, 3):
        await buffer.put(accepted(board, sequence))
    delivered(buffer, 3)
    await buffer.close()
    salvage.repair(tmp_path, "a test", salvage.Known())
    buffer = open_buffer(tmp_path)
    await buffer.put(accepted(board, 4))
    assert [(row.id, row.sequence) for row in await buffer.oldest(buffer.lanes["mqtt"][0].delivered, 9)] == [(4, 4)]
    await buffer.close()


async def test_the_log_is_read_as_far_as_sqlite_reads_it(tmp_path: Path) -> None:
    """Cut anywhere, also amid a commit: what was not committed whole is not there."""
    await filled(tmp_path)
    chance, size = random.Random(20261122), (tmp_path / WAL_NAME).stat().st_size
    for number, cut in enumerate(sorted(chance.randrange(size) for _ in range(12))):
        place, other = tmp_path / f"ours {number}", tmp_path / f"SQLite's {number}"
        for one in (place, other):
            one.mkdir()
            shutil.copy(tmp_path / FILE_NAME, one)
            (one / WAL_NAME).write_bytes((tmp_path / WAL_NAME).read_bytes()[:cut])
        salvage.repair(place, "a test", salvage.Known())
        query = "select id, board, sequence, body from report where id > (select delivered from lane) order by id"
        found = []
        for one in (place, other):
            db = sqlite3.connect(one / FILE_NAME)
            found.append(db.execute(query).fetchall())
            db.close()
        assert found[0] == found[1]


async def test_a_changed_report_is_not_taken_over_by_a_repair(tmp_path: Path) -> None:
    boards = await filled(tmp_path)
    into_file(tmp_path)
    whole = bytearray((tmp_path / FILE_NAME).read_bytes())
    body, _ = boards["LE-1"].make(SEQUENCES, b"p" * 16)
    payload = whole.rindex(body[20:60])  # the signature differs each time, the payload does not
    whole[payload] ^= 1
    (tmp_path / FILE_NAME).write_bytes(whole)
    outcome = salvage.repair(tmp_path, "a test", salvage.Known())
    buffer = open_buffer(tmp_path)
    assert WAITED - await waiting(buffer) == {("LE-1", SEQUENCES)} == stated(await gaps(buffer))
    assert (outcome.lost, (await buffer.tallies())["set aside"]) == (1, 1)
    await buffer.close()


def test_a_page_of_any_bytes_is_read_or_left(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(3000):
        page = bytearray(chance.randbytes(PAGE_BYTES))
        page[0] = chance.choice((0x0D, 0x0A, 0x02))
        page[3] = 0
        try:
            for _, values in database_pages.records({2: bytes(page)}.__getitem__, 2):
                assert len(values) <= database_pages.MAX_PAYLOAD_BYTES
        except (database_pages.NotReadableError, KeyError):  # it points at another page
            continue
