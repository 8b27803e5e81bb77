"""P1 and P3: an authority gets a new root and a new roster key while its boards are served, and nothing is lost."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.demo_run import LATERNE, DemoRun

BOARDS = {"LE-0001", "LE-0002"}
WITHIN_S = 60.0  # a bound for what would hang


async def _run(*arguments: object, may_say: tuple[int, ...] = (0,)) -> str:
    process = await asyncio.create_subprocess_exec(*map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = await process.communicate()
    assert process.returncode in may_say, errors.decode()
    return out.decode()


async def _status(place: Path) -> dict[str, Any]:
    config = place / "gateway.toml"
    text = await _run(LATERNE.with_name("laterne-gateway"), "status", "--json", "--config", config, may_say=(0, 1))
    found: dict[str, Any] = json.loads(text)
    return found


async def _held(place: Path, boards: dict[str, int]) -> dict[str, Any]:
    """The status, as soon as so many boards hold these versions of the trust."""
    async with asyncio.timeout(WITHIN_S):
        while (found := await _status(place)).get("trust", {}).get("boards") != boards:  # noqa: ASYNC110 - another process says it, when asked
            await asyncio.sleep(0.3)
    return found


async def _publish(place: Path) -> None:
    """What an operator brings to a gateway after a rotation of the roster key; the trust is where it was."""
    at = ("--authority", place / "authority")
    await _run(LATERNE, "roster", "export", "--gateway", "GW-0001", *at, "-o", place / "roster.cbor")
    key = ("--id", "GW-0001", "--key", place / "gateway.jwk")
    await _run(LATERNE, "gateway", "enrol", *key, *at, "-o", place / "gateway.cbor")


async def test_a_demo_goes_on_while_root_and_roster_keys_change_and_its_gateway_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    async with DemoRun(place, "--boards", str(len(BOARDS)), "--seconds", "30") as demo:
        for board in BOARDS:
            await demo.served(board)
        await _held(place, {"1": 2})
        rotate = (LATERNE, "trust", "rotate", "--authority", place / "authority", "--no-passphrase")
        await _run(*rotate, "--role", "roster", "--root", 2)
        # The trust is there, roster and credential are not, and the power fails: nobody is told, everybody is served.
        gateway = await demo.gateway()
        os.kill(gateway, signal.SIGHUP)
        os.kill(gateway, signal.SIGKILL)
        gateway = await demo.gateway(other_than=gateway)
        found = await _held(place, {"1": 2})
        assert found["trust"]["version"] == 2
        assert "laterne gateway enrol" in str(found["subjects"]["gateway"]["alarms"])
        assert "export this gateway's roster anew" in str(found["subjects"]["roster"]["alarms"])
        await _publish(place)
        os.kill(gateway, signal.SIGHUP)
        found = await _held(place, {"2": 2})
        assert [found["subjects"][board]["counts"]["trusts followed"] for board in sorted(BOARDS)] == [1, 1]
        assert found["subjects"]["gateway"]["alarms"] == []
        figures = await demo.figures()
    assert (figures["readings_lost"], figures["reports_refused"]) == (0, 0)
    assert figures["readings_delivered"] > 0
    log = (place / "gateway.log").read_text()
    for board in BOARDS:
        assert log.count(f"{board}: holds trust version 2 now") == 1
        # After the trust comes a session with the new credential.
        assert f"{board}: session opened" in log.split(f"{board}: holds trust version 2 now")[1]
