"""The route to CIVITAS/CORE at a real broker: every observation in its envelope, and none too long."""

import asyncio
import json
from pathlib import Path

import aiomqtt
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import until
from tests.gateway.platform import ROUTE, city
from tests.servers import Mosquitto

from laterne_gateway.config import MqttSettings
from laterne_gateway.route_settings import CivitasSettings
from laterne_gateway.routes.civitas import CivitasRoute


async def test_every_observation_reaches_the_broker_in_short_envelopes(tmp_path: Path, mosquitto: Mosquitto) -> None:
    board = FakeBoard("LE-0007", 1)
    seen: list[bytes] = []

    async def listen(ready: asyncio.Event) -> None:
        async with aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe("sensors/sta", qos=1)
            ready.set()
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                seen.append(message.payload)

    async with city(tmp_path, "", board) as here:
        await here.put(board, 10, 60)
        ready = asyncio.Event()
        mqtt = MqttSettings("127.0.0.1", mosquitto.port, False, None, None, None, None, None, 20)
        parts = here.parts
        route = CivitasRoute(
            parts.settings,
            CivitasSettings(ROUTE, mqtt),
            parts.buffer,
            parts.roster,
            parts.clock,
            parts.health,
            parts.dates,
        )
        listening = asyncio.create_task(listen(ready))
        await ready.wait()
        running = asyncio.create_task(route.run())
        try:
            await here.delivered()
            await until(lambda: sum(len(json.loads(one)["observations"]) for one in seen) >= len(here.values))
        finally:
            for task in (running, listening):
                task.cancel()
            await asyncio.gather(running, listening, return_exceptions=True)
        assert max(map(len, seen)) <= 8000
        found = [one for payload in seen for one in json.loads(payload)["observations"]]
        keys = [
            (one["parameters"]["board"], one["parameters"]["sequence"], one["parameters"]["position"]) for one in found
        ]
        assert len(keys) == len(set(keys))
        assert {key: one["result"] for key, one in zip(keys, found, strict=True)} == here.values
        assert {one["parameters"]["reference"] for one in found} == {"testingen/LE-0007/air-temperature"}
        assert json.loads(seen[0])["things"][0]["properties"]["reference"] == "testingen/LE-0007"
