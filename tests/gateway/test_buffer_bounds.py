"""The buffer's bounds: when it is full it refuses or drops as it was told to, and whatever goes is stated as a gap."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GATEWAY, TENANT, GatewayProcess, limit_pages, until
from tests.gateway.test_buffer import accepted, delivered, open_buffer
from tests.gateway.test_damaged_database import gaps, stated
from tests.servers import Mosquitto

from laterne_gateway import buffered, drops, ledger
from laterne_gateway.buffer import Buffer
from laterne_gateway.buffered import PAST, STORED, Gap, Lane, Refused
from laterne_gateway.config import DROP_OLDEST, BufferSettings
from laterne_gateway.database import FILE_NAME
from laterne_gateway.writer import MIB, RESERVE_BYTES, StoreError

SMALL = RESERVE_BYTES // MIB + 1  # a MiB for reports
BODY = bytes(900)


async def fill(buffer: Buffer, board: FakeBoard, count: int, first: int = 1) -> int:
    """Puts so many, or until one is refused. The last that was stored."""
    for sequence in range(first, first + count):
        try:
            await buffer.put(accepted(board, sequence, body=BODY))
        except StoreError as why:
            if "the buffer is full" not in str(why):
                raise
            return sequence - 1
    return first + count - 1


async def test_a_full_buffer_refuses_and_takes_again_when_something_was_delivered(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path, settings=BufferSettings(SMALL))
    last = await fill(buffer, board, 10_000)
    assert 500 < last < 2000
    assert (await buffer.tallies())["bytes"] < SMALL * MIB - RESERVE_BYTES + 64 * 1024
    assert buffer.chains[board.name].sequence == last, "nothing beyond is acknowledged"
    # What is not a report still has room: a lane moves, a refused report is set aside, a roster is kept.
    await buffer.set_aside(Refused(board.name, 7, "signature", b"c" * 16, None, None, None, BODY))
    await buffer.keep_file("roster", 1, bytes(60_000))
    delivered(buffer, last // 2)
    while await fill(buffer, board, 1, last + 1) == last:
        pass  # the lane goes with one of the next commits
    assert buffer.chains[board.name].sequence == last + 1
    assert await gaps(buffer) == []
    await buffer.close()


async def test_where_told_so_the_oldest_goes_and_every_one_of_them_is_stated(tmp_path: Path) -> None:
    boards = [FakeBoard("LE-1"), FakeBoard("LE-2")]
    buffer = open_buffer(tmp_path, settings=BufferSettings(SMALL, when_full=DROP_OLDEST))
    count = 1500
    for sequence in range(1, count + 1):
        await asyncio.gather(*(buffer.put(accepted(board, sequence, body=BODY)) for board in boards))
    [lane] = buffer.lanes["mqtt"]
    kept = {(row.board, row.sequence) for row in await buffer.oldest(lane.delivered, 10_000)}
    found = await gaps(buffer)
    assert {gap.reason for gap in found} == {buffered.TOO_MANY}
    assert kept | stated(found) == {(board.name, number) for board in boards for number in range(1, count + 1)}
    assert not kept & stated(found)
    assert len(found) == len(boards), "neighbours are joined"
    assert (await buffer.tallies())[drops.DROPPED] == len(stated(found))
    assert buffer.waiting("mqtt") == len(kept)
    assert (tmp_path / FILE_NAME).stat().st_size < (SMALL + 1) * MIB
    # A route that had some of them under way says so late: that moves nothing back.
    buffer._writer.move(Lane("mqtt", 0, 5, None), 5)
    await buffer.close()
    buffer = open_buffer(tmp_path, settings=BufferSettings(SMALL))
    assert buffer.lanes["mqtt"] == [lane]
    assert await buffer.put(accepted(boards[0], 3)) == PAST, "it was acknowledged and is gone: not taken again"
    await buffer.close()


async def test_what_waits_too_long_goes_and_is_stated_however_the_clock_jumps(tmp_path: Path) -> None:
    """Hours are counted, not read: no clock is asked."""
    board, buffer = FakeBoard(), open_buffer(tmp_path, settings=BufferSettings(max_days=1))
    await fill(buffer, board, 300)
    for _ in range(12):
        await buffer.pass_hour()
    await fill(buffer, board, 100, 301)
    await buffer.close()
    buffer = open_buffer(tmp_path, settings=BufferSettings(max_days=1))
    for _ in range(12):
        await buffer.pass_hour()
        assert await gaps(buffer) == []
    await buffer.pass_hour()
    [gap] = await gaps(buffer)
    assert (gap.first, gap.last, gap.reason) == (1, 300, buffered.TOO_OLD)
    assert [row.sequence for row in await buffer.oldest(0, 1000)] == list(range(301, 401))
    assert buffer.waiting("mqtt") == 100
    await buffer.close()


async def test_gaps_that_are_no_neighbours_stay_apart_and_their_number_is_bounded(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    over = 5
    made = [Gap("LE-1", 3 * n + 1, 3 * n + 2, "a test", None) for n in range(ledger.MAX_GAPS + over)]
    await asyncio.gather(
        *(buffer._writer.write(lambda db, numbers, gap=gap: ledger.add_gap(db, numbers, gap)) for gap in made)  # type: ignore[misc]  # mypy infers no lambda with a default
    )
    assert [gap.first for gap in await gaps(buffer)] == [gap.first for gap in made[over:]]
    assert (await buffer.tallies())[ledger.GAPS_DROPPED] == over
    await buffer.close()


async def test_a_gap_goes_when_every_route_has_told_it(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path, "fast", "slow")
    await buffer._writer.write(lambda db, numbers: ledger.add_gap(db, numbers, Gap("LE-1", 1, 2, "a test", None)))
    [told] = await buffer.gaps("fast", 9)
    await buffer.told("fast", told.id)
    assert len(await gaps(buffer)) == 1
    await buffer.close()
    buffer = open_buffer(tmp_path, "fast", "slow")
    assert await buffer.gaps("slow", 9) == [told]
    await buffer.told("slow", told.id)
    assert await gaps(buffer) == []
    await buffer.close()
    buffer = open_buffer(tmp_path, "fast", "slow")
    # The next has another number although the table is empty: "fast" would pass over it otherwise.
    await buffer._writer.write(lambda db, numbers: ledger.add_gap(db, numbers, Gap("LE-1", 5, 6, "a test", None)))
    assert [gap.first for gap in await buffer.gaps("fast", 9)] == [5]
    await buffer.close()


async def test_a_group_that_fails_takes_no_numbers(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    await limit_pages(buffer, 0)
    with pytest.raises(StoreError, match="disk is full"):
        await asyncio.gather(buffer.put(accepted(board, 1)), buffer.keep_file("roster", 1, bytes(60_000)))
    await limit_pages(buffer, None)
    assert await buffer.put(accepted(board, 1)) == STORED
    assert [row.id for row in await buffer.oldest(0, 9)] == [1]
    await buffer.close()


async def test_a_gap_reaches_the_broker_also_when_the_gateway_is_killed(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    """A report that is damaged on its board is passed over; the broker is paused while the gap is noticed."""
    board = FakeBoard()
    line = line_of(board)
    gateway = GatewayProcess(tmp_path, [board], [line], mosquitto)
    topic = f"laterne/v1/{TENANT}/{GATEWAY}/{board.name}/gap"
    await gateway.start()
    try:
        await gateway.says("connected to")
        mosquitto.pause()
        board.close_reports(3)
        board.backlog[2] = board.backlog[2][:-1] + bytes([board.backlog[2][-1] ^ 1])
        await board.forgets(3)
        assert gateway.said().count("passed over") == 1
        await gateway.kill()
        mosquitto.kill()
        await mosquitto.start_async()
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as platform:
            await platform.subscribe(topic, qos=1)
            await gateway.start()
            message = await anext(platform.messages)
            assert isinstance(message.payload, bytes)
            said = json.loads(message.payload)
            assert (said["from"], said["to"], said["reason"]) == (2, 2, "refused: signature")
            assert said["noticed"].startswith("20")
        await until(lambda: '"gaps to tell": 0' in json.dumps(gateway.status()))
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
