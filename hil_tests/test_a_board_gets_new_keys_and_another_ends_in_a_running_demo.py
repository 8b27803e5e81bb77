"""P2 and P3, end to end: keys of a board in service are changed over broker and gateway, and a board is decommissioned.

The demo is run as a user runs it, against mosquitto; the operator's commands are given beside it, and what the broker
handed on is judged afterwards with public data.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
from tests.demo_run import LATERNE, DemoRun
from tests.servers import Mosquitto
from tests.typed import laterne

from laterne_gateway import primitives
from laterne_protocol import cose, credential, receipt, report_reading

# Of each step, on a loaded machine. Measured: a rotation takes 5 s; then the board shows its former agreement key once
# more, and its limit for handshakes (four, then one every 30 s) holds it back for up to 50 s.
WITHIN_S = 240.0


@dataclass
class Published:
    """Every report as the broker handed it on."""

    bodies: list[bytes] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def sequences(self, board: str) -> dict[int, bytes]:
        """The kid that signed each report of a board."""
        found = {}
        for body in self.bodies:
            signed = cose.parse(body, 1024)
            content = report_reading.report_of(signed.payload)
            if content.board == board:
                found[content.sequence] = signed.kid
        return found

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not happened():
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def published(broker: Mosquitto) -> AsyncIterator[Published]:
    found = Published()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("laterne/v1/+/+/+/report", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                found.bodies.append(message.payload)
                found.news.set()

        listening = asyncio.create_task(listen())
        yield found
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def counts(place: Path, board: str) -> dict[str, int]:
    """What the gateway has counted of a board."""
    told = subprocess.run(
        [LATERNE.with_name("laterne-gateway"), "status", "--config", place / "gateway.toml", "--json"],
        capture_output=True,
        check=False,
    )
    counted: dict[str, int] = json.loads(told.stdout)["subjects"][board]["counts"]
    return counted


async def test_keys_change_and_a_board_ends_while_reports_go_on(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        await _run(tmp_path / "demo", broker, tmp_path / "reports")


async def _run(place: Path, broker: Mosquitto, kept: Path) -> None:
    way = ("--authority", place / "authority", "--broker", broker.url, "--roster", place / "roster.cbor", "--json")
    async with published(broker) as found, DemoRun(place, "--boards", "2", "--broker", broker.url) as run:
        await run.served("LE-0002")
        await found.until(lambda: bool(found.sequences("LE-0001") and found.sequences("LE-0002")))
        listed = {
            row["id"]: row for row in await laterne("board", "list", "--authority", place / "authority", "--json")
        }

        log = place / "gateway.log"
        killing = asyncio.create_task(_kill_when(run, log, "LE-0001: order ", "take the new credential"))
        rotated = await laterne("board", "rotate", "LE-0001", *way)
        killed = await killing
        former, last = rotated["former_keys"][0]["kid"], rotated["former_keys"][0]["last_report"]
        assert former == listed["LE-0001"]["kid"] != rotated["kid"]
        os.kill(await run.gateway(other_than=killed), signal.SIGHUP)
        await found.until(lambda: len(found.sequences("LE-0001")) >= last + 2)
        kids = found.sequences("LE-0001")
        assert sorted(kids) == list(range(1, len(kids) + 1)), "no report is missing"
        assert {kids[number].hex() for number in kids if number <= last} == {former}
        assert {kids[number].hex() for number in kids if number > last} == {rotated["kid"]}
        counted = counts(place, "LE-0001")
        assert not [what for what in counted if what.startswith("refused") or what == "reports missing"], counted

        ended = await laterne("board", "decommission", "LE-0002", "--reason", "taken down", *way)
        assert ended["state"] == "decommissioned"
        last = ended["last_report"]
        await found.until(lambda: len(found.sequences("LE-0002")) >= last)
        os.kill(await run.gateway(), signal.SIGHUP)
        async with asyncio.timeout(WITHIN_S):  # it is blank: its last key is erased, too
            while "line board-02: a board that is not enrolled answers" not in log.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)
        assert "Traceback" not in log.read_text()
        seen = len(found.sequences("LE-0001"))
        await found.until(lambda: len(found.sequences("LE-0001")) > seen)
    kept.write_bytes(b"".join(found.bodies))
    judged = await laterne("verify", kept, "--authority", place / "authority", "--json")
    assert (judged["ok"], judged["reports_refused"]) == (True, 0)
    assert [(row["board"], row["missing"], row["lost"]) for row in judged["boards"]] == [
        ("LE-0001", [], []),
        ("LE-0002", [], []),
    ]
    assert judged["boards"][1]["last"] == last, "a decommissioned board has delivered all, and signs no more"
    _check_receipt(ended)


async def _kill_when(run: DemoRun, log: Path, *words: str) -> int:
    """Kills the gateway when a line of its log has these words. Its process number."""
    async with asyncio.timeout(WITHIN_S):
        while not any(all(word in line for word in words) for line in log.read_text().splitlines()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    gateway = await run.gateway()
    os.kill(gateway, signal.SIGKILL)
    return gateway


def _check_receipt(ended: Any) -> None:
    x, y = (base64.urlsafe_b64decode(ended["sign_key"][part] + "==") for part in ("x", "y"))
    body = base64.urlsafe_b64decode(ended["receipts"][-1]["receipt"] + "==")
    signed = cose.parse(body, receipt.MAX_RECEIPT_BYTES)
    assert signed.kid == credential.kid(x + y)
    said = receipt.receipt_of(cose.verify(signed, cose.RECEIPT, lambda m, s: primitives.valid(x + y, m, s)))
    assert (said.board, said.outcome, said.sequence) == ("LE-0002", receipt.DONE, ended["last_report"])
