"""The route to CIVITAS/CORE at a real broker: every observation in its envelope, and none too long.

What may happen on the way is swept in hil_tests/test_civitas_faults_lose_no_observation.py.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import until
from tests.gateway.platform import ROUTE, city, civitas
from tests.servers import Mosquitto

from laterne_emulator.proxy import Proxy
from laterne_gateway.routes import civitas as civitas_module


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(civitas_module, "CAP_S", 0.2)


@contextlib.asynccontextmanager
async def heard(broker: Mosquitto) -> AsyncIterator[list[bytes]]:
    """The envelopes that come to the platform meanwhile."""
    seen: list[bytes] = []
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("sensors/sta", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                seen.append(message.payload)

        listening = asyncio.create_task(listen())
        try:
            yield seen
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def observations_in(seen: list[bytes]) -> list[dict[str, Any]]:
    return [one for payload in seen for one in json.loads(payload)["observations"]]


async def test_every_observation_reaches_the_broker_in_short_envelopes(tmp_path: Path, mosquitto: Mosquitto) -> None:
    board = FakeBoard("LE-0007", 1)
    async with city(tmp_path, "", board) as here, heard(mosquitto) as seen:
        await here.put(board, 10, 60)
        async with civitas(here, mosquitto.port):
            await here.delivered()
            await until(lambda: len(observations_in(seen)) >= len(here.values))
        assert max(map(len, seen)) <= 8000
        found = observations_in(seen)
        keys = [
            (one["parameters"]["board"], one["parameters"]["sequence"], one["parameters"]["position"]) for one in found
        ]
        assert len(keys) == len(set(keys))
        assert {key: one["result"] for key, one in zip(keys, found, strict=True)} == here.values
        assert {one["parameters"]["reference"] for one in found} == {"testingen/LE-0007/air-temperature"}
        assert json.loads(seen[0])["things"][0]["properties"]["reference"] == "testingen/LE-0007"


async def test_a_board_that_has_left_the_roster_is_not_moved_to_nowhere(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The platform's flow patches the Thing with what an envelope says of it."""
    board = FakeBoard("LE-0007", 1)
    async with city(tmp_path, "", board) as here, heard(mosquitto) as seen, civitas(here, mosquitto.port):
        for version, entries in enumerate(([board.entry()], []), 2):
            here.parts.roster_file.write_bytes(here.parts.authority.roster_file(entries, version))
            await here.parts.reload()
            await here.put(board, 1)
            await until(lambda: len(seen) == version - 1)  # noqa: B023 - awaited here
    assert ["Locations" in json.loads(envelope)["things"][0] for envelope in seen] == [True, False]


@pytest.mark.parametrize("what", ["a name that no host can have", "a password that is no text"])
async def test_a_setting_that_cannot_be_used_is_an_alarm_and_not_the_gateway_s_end(tmp_path: Path, what: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff\xfehorse")
    async with city(tmp_path, "") as here:
        wrong = {"password_file": secret} if "password" in what else {"host": "a" * 70 + ".example"}
        async with civitas(here, 1, **wrong):
            await until(lambda: bool(here.alarms()))
            await until(lambda: here.counted("connections ended") >= 1)
        (alarm,) = here.alarms()
        assert "horse" not in alarm
        assert "secret holds no UTF-8 text" in alarm or "password" not in what


async def test_while_nobody_listens_an_alarm_says_that_the_broker_keeps_nothing(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """Its PUBACK means no more: brokers throw away what nobody has subscribed to."""
    board = FakeBoard("LE-0007", 1)
    async with city(tmp_path, "", board) as here, civitas(here, mosquitto.port):
        await here.put(board, 2)
        await here.delivered()
        assert [alarm for alarm in here.alarms() if "nobody listens to sensors/sta" in alarm] == here.alarms() != []
        assert here.counted("observations that nobody heard") == 8
        async with heard(mosquitto) as seen:
            await here.put(board, 1)
            await until(lambda: len(observations_in(seen)) == 4)
            await here.delivered()
        assert not here.alarms()


async def test_a_broker_that_goes_is_noticed_although_nothing_is_on_its_way(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    board = FakeBoard("LE-0007", 1)
    async with city(tmp_path, "", board) as here, civitas(here, mosquitto.port):
        await here.put(board, 1)
        await here.delivered()
        mosquitto.kill()
        await here.delivered_counts("connections ended", 1)
        assert any("no broker at" in alarm for alarm in here.alarms())
        await mosquitto.start_async()
        await here.put(board, 1)
        await here.delivered()
        assert not any("no broker at" in alarm for alarm in here.alarms())


# Without a limit of its queue mosquitto 2.0.11 hangs up at the second message that is too long, without a PUBACK.
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("max_queued_messages 1000\nmessage_size_limit 100\n", "it refuses a message of"),
        ("max_packet_size 300\n", "it takes packets of 300 bytes at most"),
    ],
    ids=["by its PUBACK", "in its CONNACK"],
)
async def test_a_broker_that_takes_no_observation_is_an_alarm_and_everything_waits(
    tmp_path: Path, how: str, said: str
) -> None:
    """It is the broker's setting: no observation is a dead letter, and all arrive when it is corrected."""
    short, board = Mosquitto(tmp_path / "short", how), FakeBoard("LE-0007", 1)
    corrected = Mosquitto(tmp_path / "corrected")
    corrected.start()
    try:
        async with city(tmp_path, "", board) as here, Proxy(short.port) as way, heard(corrected) as seen:
            await here.put(board, 3, 4)
            async with civitas(here, way.port):
                await here.delivered_counts("connections ended", 1)  # it is away
                await asyncio.to_thread(short.start)
                await until(lambda: any(said in alarm for alarm in here.alarms()))
                assert here.parts.buffer.waiting(ROUTE) == 3
                assert not await here.dead()
                way.lead_to(corrected.port)
                await here.delivered()
                await until(lambda: len(observations_in(seen)) >= len(here.values))
            assert here.alarms() == []
            assert not await here.dead()
    finally:
        short.stop()
        corrected.stop()
