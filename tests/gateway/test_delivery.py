"""From boards to a real broker: the gateway runs as a process, and both it and the broker are killed."""

import json
import random
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import aiomqtt
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GATEWAY, TENANT, running, until
from tests.gateway.subscriber import Subscriber, said_with, subscribed
from tests.servers import Mosquitto

MakeLine = Callable[..., FakeLine]
SEED = 20261122


def compare(subscriber: Subscriber, *boards: FakeBoard) -> None:
    """After removing what came again: everything, once, in order, byte for byte."""
    for board in boards:
        assert subscriber.bodies[board.name] == list(board.taken.values())


async def test_reports_arrive_unchanged_with_the_time_of_reception(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(25)
    async with running(tmp_path, mosquitto, [board], line_of(board)) as gateway:
        await subscriber.has_all(board)
        compare(subscriber, board)
        assert subscriber.repeated == 0
        reports = [one for one in subscriber.messages if one.topic.value.endswith("/report")]
        assert {one.topic.value for one in reports} == {f"laterne/v1/{TENANT}/{GATEWAY}/{board.name}/report"}
        for one in reports:
            said = said_with(one)
            assert said["historical"] == "false"
            assert said["received"].startswith("20")
            assert said["received"].endswith("Z")
        # The board did not know the time: what the gateway says of it stands beside the board's bytes.
        dated = [said for said in map(said_with, reports) if "dated" in said]
        assert dated
        for said in dated:
            waited = datetime.fromisoformat(said["received"]) - datetime.fromisoformat(said["dated"])
            assert abs(waited.total_seconds()) < 60 + int(said["dated_within_ms"]) / 1000
        assert await gateway.stop() == 0


async def test_a_clean_stop_says_so_at_the_broker_and_a_kill_is_said_by_the_will(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: MakeLine
) -> None:
    board = FakeBoard()
    async with running(tmp_path, mosquitto, [board], line_of(board)) as gateway:
        while len(subscriber.statuses) < 1:
            await subscriber.news()
        assert await gateway.stop() == 0
        while len(subscriber.statuses) < 2:
            await subscriber.news()
        await gateway.start()
        while len(subscriber.statuses) < 3:
            await subscriber.news()
        await gateway.kill()
        while len(subscriber.statuses) < 4:
            await subscriber.news()
    told = [json.loads(one) for one in subscriber.statuses]
    assert [(one["state"], one.get("reason")) for one in told] == [
        ("online", None),
        ("offline", "stopped"),
        ("online", None),
        ("offline", "connection lost"),
    ]
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as late:
        await late.subscribe(f"laterne/v1/{TENANT}/{GATEWAY}/status")
        message = await anext(late.messages)
        assert message.retain


async def test_a_killed_gateway_loses_nothing(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: MakeLine
) -> None:
    """SIGKILL at random moments while two lines with three boards deliver."""
    chance = random.Random(SEED)
    boards = [FakeBoard(f"LE-{address}", address) for address in (1, 2, 3)]
    lines = [line_of(*boards[:2], name="bus"), line_of(boards[2], name="single")]
    for board in boards:  # eight gateways in a few seconds, some killed in a handshake: without a board's bounds
        board.sessions.bucket.refill_s, board.sessions.replace_after_s = 0.01, 0.0
    async with running(tmp_path, mosquitto, boards, *lines) as gateway:
        for _ in range(8):
            for board in boards:
                board.close_reports(60)
            wanted = len(subscriber.messages) + chance.randrange(1, 150)
            while len(subscriber.messages) < wanted:
                await subscriber.news()
            await gateway.kill()
            await gateway.start()
        for board in boards:
            board.close_reports(5)
        await subscriber.has_all(*boards)
        for board in boards:
            # What a killed gateway leaves behind may come after what is live (routes/mqtt.py, "What order means").
            assert sorted(subscriber.bodies[board.name]) == sorted(board.taken.values())
            sequences = {body: sequence for sequence, body in board.taken.items()}
            for late in ("true", "false"):  # each stream is in order, whatever came again
                seen: list[int] = []
                for one in subscriber.messages:
                    if not one.topic.value.endswith(f"/{board.name}/report") or said_with(one)["historical"] != late:
                        continue
                    assert isinstance(one.payload, bytes)
                    if sequences[one.payload] not in seen:
                        seen.append(sequences[one.payload])
                assert seen == sorted(seen), f"{board.name}, historical {late}"
        for board in boards:
            await board.forgets(max(board.taken))
        assert await gateway.stop() == 0


async def test_a_killed_broker_loses_nothing(
    tmp_path: Path, mosquitto: Mosquitto, subscriber: Subscriber, line_of: MakeLine
) -> None:
    """The broker dies with messages under way; what it had not acknowledged is sent again.

    A broker without persistence forgets what it acknowledged and its subscriber has not: so the subscriber must have
    been idle when it dies, or its own loss would be counted as ours. Hence the paused broker: it has taken nothing.
    """
    board = FakeBoard()
    line = line_of(board)
    async with running(tmp_path, mosquitto, [board], line) as gateway:
        for _ in range(2):  # each end of a connection doubles the gateway's backoff
            board.close_reports(30)
            await subscriber.has_all(board)
            mosquitto.pause()
            board.close_reports(30)
            await board.forgets(max(board.taken))  # the gateway goes on taking reports meanwhile
            mosquitto.kill()
            board.close_reports(30)
            await board.forgets(max(board.taken))
            subscriber.ready.clear()
            gateway.signal(signal.SIGSTOP)  # what comes before the subscriber is there would be lost at the broker
            await mosquitto.start_async()
            await subscriber.ready.wait()
            gateway.signal(signal.SIGCONT)
        await subscriber.has_all(board)
        compare(subscriber, board)


async def test_what_the_broker_refuses_is_not_taken_for_delivered(tmp_path: Path, line_of: MakeLine) -> None:
    """A PUBACK may say no (MQTT 5, 3.4.2.1): here the broker's rules forbid the topic, then allow it."""
    rules = tmp_path / "rules"
    rules.write_text(f"topic readwrite laterne/v1/{TENANT}/{GATEWAY}/status\ntopic read laterne/#\n")
    board = FakeBoard()
    board.close_reports(5)
    with Mosquitto(tmp_path / "strict", f"acl_file {rules}\n") as broker:
        async with (
            subscribed(broker) as subscriber,
            running(tmp_path, broker, [board], line_of(board)) as gateway,
        ):
            await board.forgets(5)
            await gateway.says("Not authorized")
            rules.write_text("topic readwrite laterne/#\n")
            broker.stop()
            await broker.start_async()
            await subscriber.has_all(board)
            compare(subscriber, board)


async def test_a_twin_with_the_same_name_is_noticed(tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine) -> None:
    """Two gateways with one id: each throws the other out, and both say why."""
    board, other = FakeBoard(), FakeBoard()
    (tmp_path / "twin").mkdir()
    line, twin_line = line_of(board), line_of(other, name="twin/line")
    async with running(tmp_path, mosquitto, [board], line) as gateway:
        await gateway.says("connected to")
        async with running(tmp_path / "twin", mosquitto, [other], twin_line) as twin:
            await gateway.says("give each gateway an id of its own")
            await twin.says("give each gateway an id of its own")


async def test_a_strangers_status_does_not_end_the_gateway(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    """Whoever may write our status topic may write anything: nested beyond what a parser can follow, or no JSON."""
    board = FakeBoard()
    async with (
        running(tmp_path, mosquitto, [board], line_of(board)) as gateway,
        aiomqtt.Client("127.0.0.1", mosquitto.port) as stranger,
    ):
        await gateway.says("connected to")
        for payload in (b"[" * 100_000, b'{"a":' * 40_000, b"[" * 256, b"\xff", b"9" * 255, b"null", b""):
            await stranger.publish(f"laterne/v1/{TENANT}/{GATEWAY}/status", payload, qos=1, retain=True)
        await stranger.publish(f"laterne/v1/{TENANT}/{GATEWAY}/status", b'{"instance": "another"}', qos=1)
        await until(lambda: "ended by a failure" in gateway.said() or "an id of its own" in gateway.said())
        assert await gateway.stop() == 0, "it has read them all and goes on"


async def test_without_a_broker_reports_are_kept_on_disk(tmp_path: Path, line_of: MakeLine) -> None:
    broker = Mosquitto(tmp_path / "later")
    board = FakeBoard()
    board.close_reports(50)
    async with running(tmp_path, broker, [board], line_of(board)) as gateway:
        await board.forgets(50)
        found = gateway.status()
        assert found is not None
        assert isinstance(found["buffer"], dict)
        assert found["buffer"]["waiting"] == {"mqtt": 50}
        assert await gateway.stop() == 0
