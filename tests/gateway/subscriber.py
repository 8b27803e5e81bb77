"""What a platform would have at a broker: every message of our gateways, and the reports of each board once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiomqtt
from tests.gateway.fake_board import FakeBoard
from tests.servers import Mosquitto


def said_with(message: aiomqtt.Message) -> dict[str, str]:
    """The user properties of a message."""
    return dict(getattr(message.properties, "UserProperty", []))


class Subscriber:
    """Keeps what a platform would: the first of each (board, sequence), and how often others came again."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self._news = asyncio.Event()
        self.ready = asyncio.Event()
        self.bodies: dict[str, list[bytes]] = {}
        self.repeated = 0
        self.messages: list[aiomqtt.Message] = []
        self.statuses: list[str] = []
        self.gaps: list[str] = []

    async def run(self) -> None:
        """Subscribes for ever; the broker may go and come back."""
        name, password = self._broker.login or (None, None)
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    "127.0.0.1",
                    self._broker.port,
                    username=name,
                    password=password,
                    protocol=aiomqtt.ProtocolVersion.V5,
                    identifier="subscriber",
                ) as client:
                    await client.subscribe("laterne/#", qos=1)
                    self.ready.set()
                    async for message in client.messages:
                        self._take(message)
            self.ready.clear()
            await asyncio.sleep(0.02)

    def _take(self, message: aiomqtt.Message) -> None:
        self.messages.append(message)
        assert isinstance(message.payload, bytes)
        *_, subject, kind = message.topic.value.split("/")
        if kind == "status":
            self.statuses.append(message.payload.decode())
        elif kind == "gap":
            self.gaps.append(message.payload.decode())
        elif kind == "report":
            bodies = self.bodies.setdefault(subject, [])
            if message.payload in bodies[-2000:]:
                self.repeated += 1
            else:
                bodies.append(message.payload)
        self._news.set()

    async def has_all(self, *boards: FakeBoard) -> None:
        """Waits until every report that these boards ever closed is there."""
        while any(len(self.bodies.get(board.name, ())) < len(board.taken) for board in boards):
            await self.news()

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()


@contextlib.asynccontextmanager
async def subscribed(broker: Mosquitto) -> AsyncIterator[Subscriber]:
    """A subscriber of a broker that runs, and is there when this returns; it ends with the block."""
    made = Subscriber(broker)
    listening = asyncio.create_task(made.run())
    try:
        await made.ready.wait()
        yield made
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
