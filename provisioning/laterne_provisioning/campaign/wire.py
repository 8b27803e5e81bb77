"""A campaign at the broker: the release in parts, orders to boards, and what comes back of them.

The session at the broker is the campaign's own and outlives a command that was stopped: reports that come meanwhile
wait there, and what came is acknowledged when it is on our disk: that a board runs a release it says once. It can be in
one place only: who runs the same campaign elsewhere is asked before (holder.py).
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiomqtt

from laterne_protocol import fields, release_parts
from laterne_provisioning.campaign.rows import Told
from laterne_provisioning.downlink import PREFIX, REFUSED_FROM, STATUS_WITHIN_S, Client
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.subscriber import CONNECT_WITHIN_S, Broker, properties, unreachable

SESSION_S = 7 * 86400  # a campaign that nobody goes on with for longer starts hearing anew
TAKEN_OVER = 0x8E  # MQTT 5, 2.4: session taken over
MAX_TOLD_BYTES = 1024
MAX_COUNT = 1 << 40
REPORT, UPDATE, RECEIPT = "report", "update", "receipt"
_LEVELS = 6  # laterne/v1/<tenant>/<gateway>/<board>/<what>
_STATUS_LEVELS = 5  # laterne/v1/<tenant>/<gateway>/status


@dataclass(frozen=True)
class Came:
    """A message of a board's topic. what: REPORT, UPDATE or RECEIPT."""

    tenant: str
    gateway: str
    board: str
    what: str
    body: bytes


@asynccontextmanager
async def connected(broker: Broker, campaign: str, session_s: int = SESSION_S) -> AsyncIterator[Client]:
    """The campaign's session at the broker, kept for so long. Raises aiomqtt.MqttError."""
    client = Client(
        broker.host,
        broker.port,
        identifier=f"laterne-campaign-{hashlib.sha256(campaign.encode()).hexdigest()[:12]}",
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        properties=properties(session_s),
        tls_context=broker.tls,
        username=broker.user,
        password=broker.password,
        timeout=CONNECT_WITHIN_S,
    )
    client.keep_until_acknowledged()
    async with client:
        yield client


async def listen_to(client: Client, broker: Broker, tenants: Iterable[str]) -> None:
    """Subscribe to what boards and gateways of these tenants say. Raises OperatorError: we may not."""
    await subscribe(
        client, broker, [f"{PREFIX}/{tenant}/+/+/{what}" for tenant in tenants for what in (REPORT, UPDATE, RECEIPT)]
    )


async def subscribe(client: Client, broker: Broker, topics: list[str]) -> None:
    """Raises OperatorError: we may not."""
    answer = await client.subscribe([(topic, 1) for topic in topics])
    if any(getattr(code, "value", code) >= REFUSED_FROM for code in answer):
        raise OperatorError(f"{broker} does not let us read {', '.join(topics)}: ask for the right.")


async def publish(client: Client, broker: Broker, topic: str, body: bytes, retain: bool = True) -> None:
    """A message, retained mostly, taken by the broker when this returns. Raises OperatorError: it is not."""
    client.refused = None
    await client.publish(topic, body, qos=1, retain=retain)
    if client.refused is not None:
        raise OperatorError(f"{broker} does not take {topic}: {client.refused}. Ask for the right.")


async def publish_release(client: Client, broker: Broker, tenants: Iterable[str], digest: str, whole: bytes) -> None:
    """The release file in parts, for the gateways of these tenants; the head last: who sees it finds the others."""
    for tenant in tenants:
        head, *parts = release_parts.parts_of(whole)
        for number, part in enumerate(parts, 1):
            await publish(client, broker, release_parts.topic(tenant, bytes.fromhex(digest), number), part)
        await publish(client, broker, release_parts.topic(tenant, bytes.fromhex(digest), 0), head)


async def tenants_of(broker: Broker, gateways: Iterable[str]) -> dict[str, str]:
    """The tenant under which each of these gateways has told its status. Raises OperatorError: not all have, or two."""
    wanted, found = set(gateways), dict[str, str]()
    try:
        async with connected(broker, f"{secrets.token_hex(6)}", 0) as client:
            await client.subscribe(f"{PREFIX}/+/+/status", qos=1)
            async with asyncio.timeout(STATUS_WITHIN_S):
                async for message in client.messages:
                    levels = message.topic.value.split("/")
                    if len(levels) != _STATUS_LEVELS or levels[3] not in wanted:
                        continue
                    tenant, gateway = levels[2:4]
                    if found.setdefault(gateway, tenant) != tenant:
                        raise OperatorError(f"{gateway} is at {broker} under several tenants: give --tenant.")
                    if len(found) == len(wanted):
                        break
    except TimeoutError:
        missing = ", ".join(sorted(wanted - found.keys()))
        raise OperatorError(f"{missing} has never been at {broker}: is it this broker? Else give --tenant.") from None
    except aiomqtt.MqttError as why:
        raise unreachable(broker, why) from why
    return found


def came(message: aiomqtt.Message) -> Came | None:
    """What a message is, as far as its topic says; None: nothing for us."""
    levels = message.topic.value.split("/")
    if len(levels) != _LEVELS or levels[5] not in (REPORT, UPDATE, RECEIPT) or not isinstance(message.payload, bytes):
        return None
    return Came(levels[2], levels[3], levels[4], levels[5], message.payload)


def told_of(body: bytes) -> Told | None:
    """What a gateway tells of a board's update; None: not that, whoever wrote it."""
    try:
        parts = json.loads(body[:MAX_TOLD_BYTES])
        result = parts.get("result")
        if result is not None:
            code, digest = result
            result = (fields.integer(code, "code", 1, 255), _hex(digest, 16))
        link = parts.get("link")
        if link is not None:
            asked, missed = link
            link = fields.integer(asked, "asked", 0, MAX_COUNT), fields.integer(missed, "missed", 0, MAX_COUNT)
        share = parts.get("share")
        return Told(
            fields.text(parts["phase"], "phase", 16),
            _hex(parts.get("running"), 16),
            bytes.fromhex(_hex(parts.get("nonce"), 8)),
            _hex(parts.get("staged"), 16),
            result,
            None if share is None else min(1.0, max(0.0, float(share))),
            link,
        )
    # ArithmeticError: JSON has numbers that no float holds.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError):
        return None


def _hex(value: object, count: int) -> str:
    """Digits of so many bytes, or "" for null."""
    if value is None:
        return ""
    return fields.byte_string(bytes.fromhex(str(value)), "digest", count).hex()
