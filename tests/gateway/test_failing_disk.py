"""A disk that is full, fails or turns read-only: what is not on it is not acknowledged, and it is over by itself."""

import asyncio
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.disk import Disk
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.subscriber import Subscriber
from tests.gateway.test_buffer import accepted, delivered, open_buffer
from tests.servers import Mosquitto

from laterne_gateway import writer
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import STORED
from laterne_gateway.database import FILE_NAME, WAL_NAME
from laterne_gateway.writer import StoreError

SEED = 20261122
FAULTS = {"an I/O error": Disk.fail, "read-only": Disk.turn_read_only}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.unmount()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed database is opened anew ten times a second."""
    monkeypatch.setattr(writer, "AGAIN_S", 0.1)


def alarms(buffer: Buffer) -> str:
    return str(buffer._health.snapshot().get("buffer", {}).get("alarms"))


async def sequences(buffer: Buffer) -> list[int]:
    return [row.sequence for row in await buffer.oldest(0, 100_000)]


async def put_on(buffer: Buffer, board: FakeBoard, count: int) -> list[object]:
    """Puts so many at once, on top of the board's chain; what came of each."""
    chain = buffer.chains.get(board.name)
    first = 1 + (chain.sequence if chain else 0)
    return await asyncio.gather(
        *(buffer.put(accepted(board, first + number)) for number in range(count)), return_exceptions=True
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_acknowledged_outlives_a_failing_disk_and_the_rest_is_refused(disk: Disk, fault: str) -> None:
    """Five times, amid puts: each that returned is there afterwards, each that is not there was refused."""
    chance = random.Random(SEED)
    board, buffer = FakeBoard(), open_buffer(disk.place / "state")
    for time in range(5):
        putting = asyncio.create_task(put_on(buffer, board, 120))
        wanted = buffer.commits + chance.randrange(1, 5)
        await until(partial(lambda wanted, putting: buffer.commits >= wanted or putting.done(), wanted, putting))
        FAULTS[fault](disk)
        results = await putting + await put_on(buffer, board, 3)
        assert all(one == STORED or isinstance(one, StoreError) for one in results), results
        assert isinstance(results[-1], StoreError)
        told = results.count(STORED)
        await until(lambda: "boards keep their reports" in alarms(buffer))
        waiting = asyncio.create_task(buffer.oldest(0, 10))
        disk.repair()
        assert [row.sequence for row in await waiting] == list(range(1, 11))[: len(await waiting)]
        await until(lambda: "boards keep" not in alarms(buffer))
        found = await sequences(buffer)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= told, f"time {time}: a report that was told to be on disk is not"
        assert buffer.chains[board.name].sequence == len(found)
    assert await put_on(buffer, board, 5) == [STORED] * 5
    await buffer.close()


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_is_gone_is_waited_for_and_nothing_begins_at_its_mount_point(disk: Disk) -> None:
    """Else a new database would be filled there, and hidden when the disk is back."""
    board, state = FakeBoard(), disk.place / "state"
    buffer = open_buffer(state)
    await put_on(buffer, board, 20)
    disk.fail()
    assert isinstance((await put_on(buffer, board, 1))[0], StoreError)
    disk.unmount()
    await until(lambda: "is its disk mounted?" in alarms(buffer))
    assert list(disk.place.iterdir()) == []
    disk.mount()
    await until(lambda: buffer.away == "")
    assert await sequences(buffer) == list(range(1, 21))
    assert await put_on(buffer, board, 1) == [STORED]
    await buffer.close()


@pytest.mark.usefixtures("quick")
async def test_lanes_that_moved_while_the_disk_was_away_are_written_when_it_is_back(disk: Disk) -> None:
    board, buffer = FakeBoard(), open_buffer(disk.place / "state")
    await put_on(buffer, board, 20)
    disk.fail()
    delivered(buffer, 15)
    assert isinstance((await put_on(buffer, board, 1))[0], StoreError)
    await until(lambda: buffer.away != "")
    disk.repair()
    await until(lambda: buffer.away == "")
    assert buffer.lanes["mqtt"][0].delivered == 15
    assert await put_on(buffer, board, 1) == [STORED]
    await buffer.close()
    buffer = open_buffer(disk.place / "state")
    assert (buffer.lanes["mqtt"][0].delivered, buffer.last_id) == (15, 21)
    assert await sequences(buffer) == list(range(16, 22))
    await buffer.close()


@pytest.mark.usefixtures("quick")
async def test_a_full_disk_is_survived_and_what_we_keep_free_lets_lanes_move(disk: Disk) -> None:
    board, buffer = FakeBoard(), open_buffer(disk.place / "state")
    await put_on(buffer, board, 400)
    ballast = disk.fill()
    [refused] = await put_on(buffer, board, 1)
    assert "the disk is full but for" in str(refused)
    with pytest.raises(StoreError, match="the disk is full"):  # SQLite's own word for it
        await asyncio.gather(*(buffer.keep_file("roster", number, os.urandom(60_000)) for number in range(100)))
    assert buffer.chains[board.name].sequence == 400
    assert await sequences(buffer) == list(range(1, 401))
    with ballast.open("r+b") as file:  # a little room: for lanes, not for reports
        file.truncate(ballast.stat().st_size - writer.RESERVE_BYTES // 2)
    delivered(buffer, 200)
    assert isinstance((await put_on(buffer, board, 1))[0], StoreError)
    ballast.unlink()
    assert await put_on(buffer, board, 1) == [STORED]
    await buffer.close()
    buffer = open_buffer(disk.place / "state")
    assert await sequences(buffer) == list(range(201, 402))
    await buffer.close()


@pytest.mark.usefixtures("quick")
async def test_a_start_waits_for_a_disk_that_is_read_only(disk: Disk) -> None:
    board, buffer = FakeBoard(), open_buffer(disk.place / "state")
    await put_on(buffer, board, 3)
    await buffer.close()
    disk.turn_read_only()
    buffer = open_buffer(disk.place / "state")
    opening = asyncio.create_task(buffer.opened())
    assert isinstance((await put_on(buffer, board, 1))[0], StoreError)
    assert not opening.done()
    disk.repair()
    await opening
    assert buffer.chains[board.name].sequence == 3
    assert await put_on(buffer, board, 1) == [STORED]
    await buffer.close()


@pytest.mark.usefixtures("quick")
async def test_a_start_waits_for_a_disk_that_is_full_and_says_so(disk: Disk) -> None:
    board, buffer = FakeBoard(), open_buffer(disk.place / "state")
    await put_on(buffer, board, 3)
    await buffer.close()
    ballast = disk.fill()
    buffer = open_buffer(disk.place / "state")
    opening = asyncio.create_task(buffer.opened())
    await until(lambda: buffer.away != "" or opening.done())
    assert not opening.done()
    assert "the disk is full" in buffer.away
    ballast.unlink()
    await opening
    assert await put_on(buffer, board, 1) == [STORED]
    await buffer.close()


async def test_a_gateway_outlives_a_full_disk(
    tmp_path: Path, disk: Disk, mosquitto: Mosquitto, subscriber: Subscriber, line_of: Callable[..., FakeLine]
) -> None:
    """The process stays, acknowledges nothing meanwhile, and delivers everything in the end."""
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    shutil.move(tmp_path / "state", disk.place / "state")
    (tmp_path / "state").symlink_to(disk.place / "state")
    try:
        await gateway.start()
        board.close_reports(50)
        await board.forgets(50)
        ballast = disk.fill()
        board.close_reports(50)
        await gateway.says("the disk is full")
        assert board.acknowledged == 50
        questions = board.questions
        await until(lambda: board.questions > questions + 2)  # it is heard meanwhile
        assert board.acknowledged == 50
        ballast.unlink()
        await subscriber.has_all(board)
        await board.forgets(100)
        assert subscriber.bodies[board.name] == list(board.taken.values())
        await gateway.says("stores again")
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
    assert "Traceback" not in gateway.said()


async def test_a_gateway_outlives_a_log_that_cannot_grow(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    """Without a disk of its own: the kernel refuses to let the file grow (RLIMIT_FSIZE), an I/O error for SQLite."""
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    try:
        await gateway.start()
        board.close_reports(10)
        await board.forgets(10)
        assert gateway.process is not None
        log = tmp_path / "state" / WAL_NAME
        _, most = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, most))
        board.close_reports(100)
        await gateway.says("the disk fails")
        questions = board.questions
        await until(lambda: board.questions > questions + 2)
        assert board.acknowledged < 110
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (most, most))
        await board.forgets(110)
        await gateway.says("the database can be used again")
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
    assert "Traceback" not in gateway.said()


async def test_a_gateway_whose_database_is_damaged_runs_on_and_says_so(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: Callable[..., FakeLine]
) -> None:
    """Every page, while it was off: nobody knows any more what was acknowledged, and that is told as a gap."""
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    try:
        await gateway.start()
        board.close_reports(60)
        await subscriber.has_all(board)
        await board.forgets(60)
        assert await gateway.stop() == 0  # its log is in its file now
        with (tmp_path / "state" / FILE_NAME).open("r+b") as file:
            file.write(os.urandom((tmp_path / "state" / FILE_NAME).stat().st_size))
        board.close_reports(30)
        await gateway.start()
        await gateway.says("the database was damaged")
        await subscriber.has_all(board)
        await board.forgets(90)
        assert subscriber.bodies[board.name] == list(board.taken.values())
        await until(lambda: bool(subscriber.gaps))
        assert [json.loads(one)["from"] for one in subscriber.gaps] == [None]
        assert [json.loads(one)["to"] for one in subscriber.gaps] == [60]
        assert (tmp_path / "state" / f"{FILE_NAME}.damaged-1").exists()
        await until(lambda: "look at the card" in str(gateway.status()))
        assert gateway.process is not None
        assert gateway.process.returncode is None
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
    assert "Traceback" not in gateway.said()
