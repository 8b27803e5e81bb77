"""Orders come from a broker and receipts go there, whoever is killed or gone in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GATEWAY, TENANT, running, until
from tests.gateway.subscriber import said_with
from tests.servers import Mosquitto

from laterne_protocol import order, receipt

MakeLine = Callable[..., FakeLine]


@contextlib.asynccontextmanager
async def operator(broker: Mosquitto) -> AsyncIterator[tuple[aiomqtt.Client, "asyncio.Queue[aiomqtt.Message]"]]:
    """Who sends orders, and the receipts that come."""
    found: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"laterne/v1/{TENANT}/{GATEWAY}/+/receipt", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                await found.put(message)

        task = asyncio.create_task(listen())
        yield client, found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def noted(message: aiomqtt.Message) -> bool:
    return said_with(message).get("noted") == "true"


def topic(board: FakeBoard) -> str:
    return f"laterne/v1/{TENANT}/{GATEWAY}/order/{board.name}"


async def test_a_gateway_that_is_killed_before_the_board_knows_goes_on_where_it_was(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.deaf_to_arrival = True
    async with operator(mosquitto) as (client, receipts), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.DECOMMISSION, True)
        await client.publish(topic(board), body, qos=1, retain=True)
        first = await receipts.get()
        assert not noted(first)
        await run.kill()
        assert board.orders.arrived == []
        board.orders.deaf_to_arrival = False
        await run.start()
        second = await receipts.get()
        assert (second.payload, noted(second)) == (first.payload, False)
        last = await receipts.get()
        assert (last.payload, noted(last)) == (first.payload, True)
        assert board.orders.executed == [order.DECOMMISSION], "it was done once"
        assert isinstance(first.payload, bytes)
        assert board.orders.arrived == [receipt.digest(first.payload)]
    # The operator's command was away: the broker has it all the same.
    async with operator(mosquitto) as (client, receipts):
        kept = await receipts.get()
        assert (kept.payload, kept.retain, noted(kept)) == (first.payload, True, True)


async def test_while_the_broker_confirms_nothing_the_board_hears_of_no_arrival(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 10**6
    async with operator(mosquitto) as (client, receipts), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.ROTATE)
        await client.publish(topic(board), body, qos=1, retain=True)
        await until(lambda: bool(board.orders.heard))
        mosquitto.pause()
        board.orders.works = 0
        await until(lambda: bool(board.orders.executed))
        asked = board.questions
        await until(lambda: board.questions > asked + 3)
        assert board.orders.arrived == []
        mosquitto.resume()
        while not noted(await receipts.get()):
            pass
        assert len(board.orders.arrived) == 1


async def test_an_order_that_the_operator_took_away_while_the_gateway_was_gone_is_not_carried_out(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 10**6
    async with operator(mosquitto) as (client, _), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.ROTATE)
        await client.publish(topic(board), body, qos=1, retain=True)
        await until(lambda: bool(board.orders.heard))
        await run.kill()
        await client.publish(topic(board), b"", qos=1, retain=True)
        heard = len(board.orders.heard)
        board.orders.works = 0
        await run.start()
        board.close_reports(1)
        await board.forgets(1)
        asked = board.questions
        await until(lambda: board.questions > asked + 3)
        assert len(board.orders.heard) == heard
        assert board.orders.executed == []
