"""The topics of updates: releases come by them, and how boards stand goes out (protocol/README.md, 11.5).

What goes out is a hint for the operator's campaign, retained on `.../<board>/update`; evidence are signed receipts and
reports. The newest is told, not each: a subscriber that was slow has missed nothing.
"""

import asyncio

import aiomqtt

from laterne_gateway.health import Health
from laterne_gateway.releases import ReleaseError
from laterne_gateway.routes.connection import ACCEPTED_BELOW, Connection
from laterne_gateway.routes.delivery import PUBACK_WITHIN_S
from laterne_gateway.updates import Updates
from laterne_protocol import release_parts


class ReleaseTopics:
    """prefix: of all topics of parts. gateway_prefix: of the topics of our boards."""

    def __init__(self, tenant: str, gateway_prefix: str, updates: Updates, health: Health) -> None:
        self.prefix = f"laterne/v1/{tenant}/release/"
        self._tenant = tenant
        self._gateway_prefix = gateway_prefix
        self._updates = updates
        self._health = health

    def connected(self) -> None:
        self._updates.connected()

    def take(self, topic: str, payload: bytes) -> None:
        """A message whose topic begins with the prefix."""
        self._updates.fetch.take(topic.removeprefix(self.prefix), payload)

    async def fetch(self, client: Connection) -> None:
        """Brings releases that boards want, for ever. Raises MqttError."""

        async def subscribe(digest: bytes) -> None:
            codes = await client.subscribe(release_parts.topic(self._tenant, digest, "+"), 1)
            if any((one if isinstance(one, int) else one.value) >= ACCEPTED_BELOW for one in codes):
                raise ReleaseError(f"the broker does not let us hear {self.prefix}+/+: correct its rules")

        async def unsubscribe(digest: bytes) -> None:
            await client.unsubscribe(release_parts.topic(self._tenant, digest, "+"))

        await self._updates.fetch.run(subscribe, unsubscribe)

    async def tell(self, client: Connection) -> None:
        """Tells how boards stand, for ever. Raises MqttError; what was not confirmed is told on the next connection."""
        while True:
            board, document = await self._updates.news()
            topic = f"{self._gateway_prefix}/{board}/update"
            try:
                async with asyncio.timeout(PUBACK_WITHIN_S):
                    await client.deliver(topic, document, retain=True)
            except TimeoutError as why:
                raise aiomqtt.MqttError("no answer from the broker in time") from why
            self._health.count("releases", "standings told")
