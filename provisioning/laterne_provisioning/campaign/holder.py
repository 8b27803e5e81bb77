"""Who runs a campaign: one command, wherever its authority's directory has copies.

On one machine a lock sees to that (store.py). Two machines with copies of one authority meet only at the broker, under
`laterne/v1/<tenant>/campaign/<id>`, which holds, retained, who runs it. What happens in which order:

1. Whoever is to run it asks there, and hears what is retained before its own question comes back.
2. Nobody, or itself: it goes on. Somebody: that one may live or may have been killed, and has ANSWERS_WITHIN_S.
3. It answers: the newcomer ends before it has said anything to a board. It does not: its word is taken away.
4. The newcomer says that it runs it. Of two that began in the same moment the one with the higher name ends.
5. At its end, also by Ctrl-C, it takes its word away.

So between two that both reach the broker there is one. Who had no broker asks again, at each connection, before it says
anything. Whoever may write there can stop a campaign; he may write orders, too, which is worse and helps as little:
boards obey what the order key has signed.
"""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiomqtt

from laterne_provisioning.campaign import wire
from laterne_provisioning.downlink import PREFIX, Client
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.subscriber import Broker

ANSWERS_WITHIN_S = 2.0  # there and back by radio, twice
MAX_SAID_BYTES = 256
MAX_HOST_CHARACTERS = 64


@dataclass(frozen=True)
class Said:
    """One message there. holds: it runs the campaign; else it asks who does."""

    name: str
    host: str
    holds: bool


@dataclass(frozen=True)
class Holder:
    """This process as one that runs a campaign. tenant: of its first board."""

    tenant: str
    campaign: str
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    host: str = field(default_factory=lambda: socket.gethostname()[:MAX_HOST_CHARACTERS])

    @property
    def topic(self) -> str:
        return f"{PREFIX}/{self.tenant}/campaign/{self.campaign}"

    @asynccontextmanager
    async def held(self, broker: Broker) -> AsyncIterator[asyncio.Task[None]]:
        """Run it (1 to 5). The task raises OperatorError when another does, aiomqtt.MqttError; so does this.

        By a connection of its own, whose session ends with it: in the campaign's, words of former days would wait.
        """
        async with wire.connected(broker, self.name, 0) as client:
            await wire.subscribe(client, broker, [self.topic])
            await wire.publish(client, broker, self.topic, self._says(False), retain=False)
            await self._ask(client)
            await wire.publish(client, broker, self.topic, self._says(True))
            answering = asyncio.create_task(self._answer(client))
            try:
                yield answering
            finally:
                if not answering.done():
                    await self._leave(client)
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    async def _ask(self, client: Client) -> None:
        try:
            async with asyncio.timeout(None) as patience:
                async for message in client.messages:
                    client.acknowledge(message)
                    found = said_in(message)
                    if found is None:
                        continue
                    if found.name != self.name and found.holds:
                        if not message.retain:
                            raise self._elsewhere(found)
                        # It may have been killed.
                        patience.reschedule(asyncio.get_running_loop().time() + ANSWERS_WITHIN_S)
                    elif found.name == self.name and not found.holds and patience.when() is None:
                        break
        except TimeoutError:
            return

    async def _answer(self, client: Client) -> None:
        async for message in client.messages:
            client.acknowledge(message)
            found = said_in(message)
            if found is None or found.name == self.name:
                continue
            if found.holds and found.name < self.name:
                raise self._elsewhere(found)
            await client.publish(self.topic, self._says(True), qos=1)

    async def _leave(self, client: Client) -> None:
        # A broker that does not answer any more keeps the word; it is found to be stale (2).
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await client.publish(self.topic, b"", qos=1, retain=True)

    def _says(self, holds: bool) -> bytes:
        return json.dumps({"name": self.name, "host": self.host, "holds": holds}).encode()

    def _elsewhere(self, found: Said) -> OperatorError:
        return OperatorError(f"{self.campaign} is being run on {found.host}, too: one is enough.")


def said_in(message: aiomqtt.Message) -> Said | None:
    """What is said there; None: nothing that one of us has written."""
    body = message.payload
    if not isinstance(body, bytes) or not 0 < len(body) <= MAX_SAID_BYTES:
        return None
    try:
        found = json.loads(body)
        name, host, holds = found["name"], found["host"], found["holds"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(host, str) or not isinstance(holds, bool):
        return None
    return Said(name, "".join(one for one in host[:MAX_HOST_CHARACTERS] if one.isprintable()), holds)
