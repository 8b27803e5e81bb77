"""Orders to a board by way of its gateway's broker, and the receipts back (design 6).

An order lies retained at the broker until it is taken away: the gateway may be away, and this command may be stopped
and given again. A receipt is retained, too. The broker has taken an order when its PUBACK says so.
"""

import asyncio
import json
import math
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from laterne_protocol import fields
from laterne_protocol.errors import ObjectError
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.subscriber import (
    CONNECT_WITHIN_S,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Broker,
    properties,
    unreachable,
)

PREFIX = "laterne/v1"
_TENANT_LEVEL = 2
REFUSED_FROM = 0x80  # MQTT 5, 2.4
STATUS_WITHIN_S = 5.0  # a retained message follows the SUBACK at once
MORE_WITHIN_S = 0.5  # and others the first
MAX_STATUS_BYTES = 1024
MAX_TENANT_BYTES = 64


@dataclass(frozen=True)
class Way:
    """The topics of one board."""

    tenant: str
    gateway: str
    board: str

    @property
    def order(self) -> str:
        return f"{PREFIX}/{self.tenant}/{self.gateway}/order/{self.board}"

    @property
    def receipt(self) -> str:
        return f"{PREFIX}/{self.tenant}/{self.gateway}/{self.board}/receipt"

    @property
    def status(self) -> str:
        return f"{PREFIX}/{self.tenant}/{self.gateway}/status"


class Unanswered(OperatorError):
    """No receipt in time. The order stays at the broker."""


class Client(aiomqtt.Client):
    """refused: the broker's reason for a message that it did not take (aiomqtt takes every PUBACK for success)."""

    refused: ReasonCode | None = None

    def keep_until_acknowledged(self) -> None:
        """From now on what comes is the broker's until acknowledge(): it comes again to who did not live so long."""
        self._client.manual_ack_set(True)

    def acknowledge(self, message: aiomqtt.Message) -> None:
        """We have done with this message what is to be done."""
        if message.qos:
            self._client.ack(message.mid, message.qos)

    def _on_publish(
        self, client: PahoClient, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        if reason_code.value >= REFUSED_FROM:
            self.refused = reason_code
        super()._on_publish(client, userdata, mid, reason_code, properties)


async def tenant_of(broker: Broker, gateway: str) -> str:
    """The tenant under which a gateway has told its status at this broker. Raises OperatorError: none, or several."""
    found: set[str] = set()
    async with _reached(broker) as client:
        await _subscribe(broker, client, f"{PREFIX}/+/{gateway}/status")
        within_s = STATUS_WITHIN_S
        try:
            while True:
                async with asyncio.timeout(within_s):
                    message = await anext(client.messages)
                found.update(message.topic.value.split("/")[_TENANT_LEVEL : _TENANT_LEVEL + 1])
                within_s = MORE_WITHIN_S
        except TimeoutError:
            pass
    try:
        (tenant,) = found
        return fields.text(tenant, "tenant", MAX_TENANT_BYTES)
    except (ValueError, ObjectError) as why:
        said = f"is at {broker} under several tenants" if len(found) > 1 else f"has never been at {broker}"
        raise OperatorError(f"The gateway {gateway} {said}: check --gateway and --broker, or give --tenant.") from why


async def carry(
    broker: Broker,
    way: Way,
    ordered: bytes,
    is_receipt: Callable[[bytes], bool],
    within_s: float,
    say: Callable[[str], None],
    until_noted: bool = False,
) -> bytes:
    """Put an order to the broker and wait for its receipt.

    is_receipt: whether these bytes, of whoever may write there, are it. until_noted: wait until the gateway says that
    the board knows that its receipt has arrived. Outages of the broker are waited out.
    Raises Unanswered; OperatorError: the broker cannot be reached at the start, or refuses us.
    """
    taken = False
    pause_s = FIRST_PAUSE_S
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    async with _connected(broker) as client:
                        await _subscribe(broker, client, way.receipt, way.status)
                        if not until_noted:
                            await _publish(broker, client, way.order, ordered)
                        if not taken and not until_noted:
                            say(f"The order is at {broker}, for {way.board} by way of {way.gateway}")
                        taken, pause_s = True, FIRST_PAUSE_S
                        async for message in client.messages:
                            payload = message.payload if isinstance(message.payload, bytes) else b""
                            if message.topic.value == way.status:
                                _tell_status(way, payload, say)
                            elif is_receipt(payload) and (not until_noted or _is_noted(message)):
                                return payload
                except aiomqtt.MqttError as why:
                    if not taken:
                        raise unreachable(broker, why) from why
                    say(f"{broker} is away ({why}): trying again")
                await asyncio.sleep(random.uniform(0, pause_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    except TimeoutError as why:
        raise Unanswered(
            f"{way.board} has not answered within {within_s:.0f} s. Its order stays at {broker}, and its gateway "
            "goes on asking. Give the same command again to go on; `laterne-gateway status` says how the board is."
        ) from why


async def clear(broker: Broker, way: Way) -> None:
    """Take order and receipt away from the broker. Raises OperatorError."""
    async with _reached(broker) as client:
        await _publish(broker, client, way.order, b"")
        await _publish(broker, client, way.receipt, b"")


@asynccontextmanager
async def _reached(broker: Broker) -> AsyncIterator[Client]:
    """As _connected(), for what is over in a moment: an outage is an OperatorError."""
    try:
        async with _connected(broker) as client:
            yield client
    except aiomqtt.MqttError as why:
        raise unreachable(broker, why) from why


@asynccontextmanager
async def _connected(broker: Broker) -> AsyncIterator[Client]:
    client = Client(
        broker.host,
        broker.port,
        identifier=f"laterne-orders-{secrets.token_hex(6)}",
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=broker.tls,
        username=broker.user,
        password=broker.password,
        timeout=CONNECT_WITHIN_S,
        properties=properties(0),
    )
    async with client:
        yield client


async def _subscribe(broker: Broker, client: Client, *topics: str) -> None:
    answer = await client.subscribe([(topic, 1) for topic in topics])
    if any(getattr(code, "value", code) >= REFUSED_FROM for code in answer):
        raise OperatorError(f"{broker} does not let us read {', '.join(topics)}: ask for the right.")


async def _publish(broker: Broker, client: Client, topic: str, body: bytes) -> None:
    await client.publish(topic, body, qos=1, retain=True)
    if client.refused is not None:
        raise OperatorError(f"{broker} does not take {topic}: {client.refused}. Ask for the right.")


def _tell_status(way: Way, payload: bytes, say: Callable[[str], None]) -> None:
    # For people only: whoever may write there can say anything.
    try:
        state = json.loads(payload[:MAX_STATUS_BYTES])["state"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if state in ("online", "offline"):
        say(f"The gateway {way.gateway} is {state}")


def _is_noted(message: aiomqtt.Message) -> bool:
    said = getattr(message.properties, "UserProperty", None)
    return isinstance(said, list) and ("noted", "true") in said


def checked(tenant: str | None, gateway: str | None) -> None:
    """Raises UsageError: names that were typed and cannot stand in a topic."""
    try:
        if gateway is not None:
            fields.board_id(gateway, "gateway id")
        if tenant is not None:
            fields.text(tenant, "tenant", MAX_TENANT_BYTES)
            if any(sign in tenant for sign in "/+#"):
                raise ObjectError("tenant holds a sign of topics")
    except ObjectError as why:
        raise UsageError(f"No such gateway can be at a broker: {why}. Correct --gateway or --tenant.") from why


def seconds_of(timeout: float) -> float:
    """A time that was typed. Raises UsageError."""
    if not math.isfinite(timeout) or timeout <= 0:
        raise UsageError("--timeout is a number of seconds, such as 600.")
    return timeout
