"""After an outage: what it left behind goes out at its own pace, what is new does not wait for it, nothing is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.gateway.subscriber import Subscriber, said_with, subscribed
from tests.gateway.test_buffer import accepted, open_buffer
from tests.servers import Mosquitto

from laterne_gateway import ledger
from laterne_gateway.buffer import LEFT_BEHIND, MAX_LANES, Buffer
from laterne_gateway.buffered import Lane
from laterne_gateway.database import open_database
from laterne_gateway.routes import pace

OUTAGE = LEFT_BEHIND + 300


@contextlib.asynccontextmanager
async def outage(
    tmp_path: Path, line_of: Callable[..., FakeLine], a_second: int
) -> AsyncIterator[tuple[GatewayProcess, Subscriber, list[FakeBoard]]]:
    """A gateway has taken OUTAGE reports of a board while there was no broker; now there is one, and a subscriber."""
    boards = [FakeBoard("LE-1", 1), FakeBoard("LE-2", 2)]
    boards[0].close_reports(OUTAGE)
    broker = Mosquitto(tmp_path / "later")
    gateway = GatewayProcess(tmp_path, boards, [line_of(*boards)], broker)
    config = gateway.config.read_text()
    gateway.config.write_text(config.replace("[mqtt]\n", f"[mqtt]\nbacklog_a_second = {a_second}\n"))
    try:
        await gateway.start()
        await boards[0].forgets(OUTAGE)
        assert await gateway.stop() == 0  # its pause before the next attempt may have grown long
        await broker.start_async()
        async with subscribed(broker) as subscriber:
            await gateway.start()
            await gateway.says(f"{OUTAGE} reports waiting")
            await gateway.says("connected to")
            yield gateway, subscriber, boards
    finally:
        await gateway.end()
        broker.stop()
    assert "Traceback" not in gateway.said(), gateway.said()


def streams(subscriber: Subscriber, board: FakeBoard) -> tuple[list[int], list[int]]:
    """The board's sequences as they first came: those marked historical, and the others."""
    sequence_of = {body: sequence for sequence, body in board.taken.items()}
    found: dict[str, list[int]] = {"true": [], "false": []}
    for message in subscriber.messages:
        if message.topic.value.endswith(f"/{board.name}/report") and isinstance(message.payload, bytes):
            sequence = sequence_of[message.payload]
            if sequence not in found["true"] + found["false"]:
                found[said_with(message)["historical"]].append(sequence)
    return found["true"], found["false"]


async def test_what_is_new_does_not_wait_for_what_an_outage_left_behind(
    tmp_path: Path, line_of: Callable[..., FakeLine]
) -> None:
    async with outage(tmp_path, line_of, 1) as (gateway, subscriber, boards):
        for number in (1, 2, 3):
            for board in boards:
                board.close_reports(1)
            while any(len(streams(subscriber, board)[1]) < number for board in boards):
                await subscriber.news()
        historical, live = streams(subscriber, boards[0])
        assert live == [OUTAGE + 1, OUTAGE + 2, OUTAGE + 3], "in order, and not marked historical"
        assert 0 < len(historical) < OUTAGE / 2, "one a second: what is new did not wait, and the link is left to it"
        assert historical == list(range(1, len(historical) + 1)), "the backlog in order, marked historical"
        # Killed amid it: the next process goes on where the broker's acknowledgements ended, new reports first again.
        await gateway.kill()
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("backlog_a_second = 1\n", "backlog_a_second = 100000\n"))
        for board in boards:
            board.close_reports(2)
        await gateway.start()
        await subscriber.has_all(*boards)
        await gateway.says("what an outage had left behind is delivered")
        historical, live = streams(subscriber, boards[0])
        assert sorted(historical + live) == list(range(1, OUTAGE + 6))
        assert historical == sorted(historical)
        assert live == sorted(live)
        assert await gateway.stop() == 0


async def put_many(buffer: Buffer, board: FakeBoard, count: int) -> None:
    chain = buffer.chains.get(board.name)
    first = 1 + (chain.sequence if chain else 0)
    await asyncio.gather(*(buffer.put(accepted(board, first + n)) for n in range(count)))


async def left(buffer: Buffer) -> list[int]:
    rows = await buffer._writer.read(lambda db, _: [row[0] for row in db.execute("select id from report order by id")])
    assert isinstance(rows, list)
    return rows


async def test_lanes_are_on_disk_and_a_row_goes_with_its_own(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    size = LEFT_BEHIND + 1
    for number in range(1, 3):
        await put_many(buffer, board, size)
        assert len(buffer.part("mqtt")) == 1 + number
    assert len(buffer.part("mqtt")) == 3, "nothing new is waiting: no lane more"
    await put_many(buffer, board, 3)
    first, second, live = buffer.lanes["mqtt"]
    assert [(lane.begins, lane.upto) for lane in (first, second, live)] == [
        (0, size),
        (size, 2 * size),
        (2 * size, None),
    ]
    buffer.delivered(live, 2 * size + 2)
    buffer.delivered(first, 100)
    buffer.delivered(second, size + 50)
    assert buffer.waiting("mqtt") == (size - 100) + (size - 50) + 1
    await buffer.close()
    buffer = open_buffer(tmp_path)
    first, second, live = buffer.lanes["mqtt"]
    wanted = [*range(101, size + 1), *range(size + 51, 2 * size + 1), 2 * size + 3]
    assert await left(buffer) == wanted
    assert [row.id for row in await buffer.oldest(second.delivered, 10_000, second.upto)] == wanted[size - 100 : -1]
    buffer.delivered(first, size)
    assert buffer.lanes["mqtt"] == [second, live], "it is done"
    await buffer.close()
    buffer = open_buffer(tmp_path)
    assert buffer.lanes["mqtt"] == [second, live]
    assert await left(buffer) == wanted[size - 100 :]
    await buffer.close()


async def test_the_number_of_lanes_is_bounded(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path)
    for _ in range(MAX_LANES + 2):
        await put_many(buffer, board, LEFT_BEHIND + 1)
        lanes = buffer.part("mqtt")
    assert len(lanes) == MAX_LANES
    assert buffer.waiting("mqtt") == (MAX_LANES + 2) * (LEFT_BEHIND + 1)
    await buffer.close()


async def test_a_slow_route_keeps_a_row_that_another_route_has_delivered(tmp_path: Path) -> None:
    board, buffer = FakeBoard(), open_buffer(tmp_path, "fast", "slow")
    await put_many(buffer, board, LEFT_BEHIND + 1)
    backlog, live = buffer.part("slow")
    await put_many(buffer, board, 2)
    buffer.delivered(buffer.lanes["fast"][0], LEFT_BEHIND + 3)
    buffer.delivered(live, LEFT_BEHIND + 3)
    await buffer.close()
    buffer = open_buffer(tmp_path, "fast", "slow")
    assert await left(buffer) == list(range(1, LEFT_BEHIND + 2))
    first, second = buffer.lanes["slow"]
    assert first == backlog, "it has an end since the route began, although it has not moved"
    assert (second.delivered, second.upto) == (LEFT_BEHIND + 3, None)
    await buffer.close()


class StoppedClock:
    """Stands still but for those who sleep."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc_ms(self) -> int | None:
        return None

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


async def test_a_pace_lets_a_second_s_worth_go_at_once_and_then_so_many_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    bucket = pace.Pace(50, clock)
    for _ in range(50):
        await bucket.next()
    assert clock.now_s == 100.0
    for _ in range(500):
        await bucket.next()
    assert clock.now_s == pytest.approx(110.0)
    clock.now_s += 3600.0
    for _ in range(51):
        await bucket.next()
    assert clock.now_s == pytest.approx(3710.02), "an hour's rest is worth a second"


async def test_a_start_reads_as_much_with_many_reports_waiting_as_with_few(tmp_path: Path) -> None:
    """Counted in the steps of SQLite's machine; the million stands in tests/benchmarks."""
    steps: list[int] = []
    for count in (100, 40_000):
        directory = tmp_path / str(count)
        db = open_database(directory)
        rows = ((n, "LE-1", n, 0, bytes(300)) for n in range(1, count + 1))
        db.execute("begin")
        db.executemany("insert into report values (?, ?, ?, null, null, ?, ?)", rows)
        db.execute("insert into chain values ('LE-1', x'00', ?, null)", (count,))
        db.execute("commit")
        taken = 0

        def another() -> int:
            nonlocal taken
            taken += 1
            return 0

        db.set_progress_handler(another, 10)
        db.execute("begin")
        found = ledger.load(db, ("mqtt",))
        ledger.chains(db)
        db.execute("commit")
        db.set_progress_handler(None, 0)
        db.close()
        assert (found.last_id, list(found.lanes.values())) == (count, [Lane("mqtt", 0, 0, None)])
        steps.append(taken)
    assert steps[1] <= steps[0] + 10
