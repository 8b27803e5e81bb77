"""P1 and P2, end to end: what boards sign reaches a real broker once, and anybody with public data can check it there.

The demo is run as a user runs it, against mosquitto; its messages are recorded by a subscriber of our own, and judged
with nothing of laterne: plain cryptography and cbor2, and python-cwt as a third opinion.
"""

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from tests.protocol.cddl import check
from tests.protocol.cwt_opinion import judged
from tests.servers import Mosquitto

BOARDS = 4
SECONDS = 12
LATERNE = Path(sys.executable).with_name("laterne")


@dataclass
class Run:
    """What one demo left behind: its directory, its last line, and every report as the broker handed it on."""

    directory: Path
    figures: dict[str, Any]
    published: list[tuple[str, bytes]]

    def boards(self) -> dict[str, dict[str, Any]]:
        out = subprocess.run(
            [LATERNE, "board", "list", "--json", "--authority", self.directory / "authority"],
            check=True,
            capture_output=True,
        ).stdout
        return {board["id"]: board for board in json.loads(out)}

    def verify(self, path: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LATERNE, "verify", path, "--authority", self.directory / "authority", "--json"],
            capture_output=True,
            text=True,
            check=False,
        )


async def _record(broker: Mosquitto, directory: Path) -> Run:
    published: list[tuple[str, bytes]] = []
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("laterne/v1/+/+/+/report", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                published.append((str(message.topic), message.payload))

        listening = asyncio.create_task(listen())
        demo = await asyncio.create_subprocess_exec(
            str(LATERNE), "demo", "--boards", str(BOARDS), "--seconds", str(SECONDS), "--json",
            "--broker", broker.url, "--directory", str(directory),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        out, _ = await demo.communicate()
        listening.cancel()
    assert demo.returncode == 0, (directory / "gateway.log").read_text()[-2000:]
    return Run(directory, json.loads(out.splitlines()[-1]), published)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        return asyncio.run(_record(broker, tmp_path_factory.mktemp("demo") / "place"))


def _key(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    x, y = (base64.urlsafe_b64decode(jwk[part] + "==") for part in ("x", "y"))
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)


def _verifies(key: ec.EllipticCurvePublicKey, report: bytes) -> bool:
    """RFC 9052, 4.4, written here once more with nothing of laterne."""
    protected, _, payload, signature = cbor2.loads(report).value
    signed = cbor2.dumps(["Signature1", protected, b"laterne/report/1", payload])
    half = len(signature) // 2
    der = encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
    try:
        key.verify(der, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _payload(report: bytes) -> dict[int, Any]:
    payload: dict[int, Any] = cbor2.loads(cbor2.loads(report).value[2])
    return payload


def test_every_published_report_verifies_with_plain_cryptography_and_cbor2(run: Run) -> None:
    boards = run.boards()
    assert len(run.published) >= BOARDS * (SECONDS // 5)
    for topic, report in run.published:
        board = topic.split("/")[4]
        assert _verifies(_key(boards[board]["sign_key"]), report), f"{topic} does not verify"
        assert _payload(report)[1] == board


def test_no_board_verifies_with_the_key_of_another(run: Run) -> None:
    boards = run.boards()
    topic, report = run.published[0]
    for board in set(boards) - {topic.split("/")[4]}:
        assert not _verifies(_key(boards[board]["sign_key"]), report)


def test_sequences_have_no_gap_and_each_report_names_the_one_before(run: Run) -> None:
    for board, listed in run.boards().items():
        reports = {_payload(report)[2]: report for topic, report in run.published if topic.split("/")[4] == board}
        assert sorted(reports) == list(range(1, len(reports) + 1)), f"{board}: {sorted(reports)}"
        credential = base64.urlsafe_b64decode(listed["credential"] + "==")
        before = hashlib.sha256(credential).digest()[:16]
        for sequence in sorted(reports):
            payload = cbor2.loads(reports[sequence]).value[2]
            assert cbor2.loads(payload)[3] == before, f"{board} {sequence} does not follow on {sequence - 1}"
            before = hashlib.sha256(payload).digest()[:16]


def test_the_demo_counts_no_reading_lost_and_no_report_refused(run: Run) -> None:
    figures = run.figures
    assert figures["readings_lost"] == 0
    assert figures["reports_refused"] == 0
    assert figures["readings_delivered"] == figures["readings_taken"] > BOARDS * SECONDS
    assert figures["reports_verified"] == len({report for _, report in run.published})
    assert set(figures) >= {
        "boards", "seconds", "readings_taken", "readings_delivered", "readings_lost", "reports_verified",
        "reports_refused", "reports_repeated", "latency_ms", "bytes_per_reading",
    }  # fmt: skip


def test_what_the_system_sends_is_what_the_cddl_describes(run: Run) -> None:
    for _, report in run.published:
        check("signed-report", report)
        check("report", cbor2.loads(report).value[2])


def test_python_cwt_verifies_the_boards_signatures(run: Run) -> None:
    keys = {}
    for board, listed in run.boards().items():
        keys[board] = b"".join(base64.urlsafe_b64decode(listed["sign_key"][part] + "==") for part in ("x", "y"))
    said = judged([(report, keys[topic.split("/")[4]], "laterne/report/1") for topic, report in run.published])
    assert [answer.get("error") for answer in said] == [None] * len(run.published)


def test_one_flipped_byte_in_a_stored_report_is_refused_with_board_sequence_and_reason(
    run: Run, tmp_path: Path
) -> None:
    _, report = run.published[-1]
    stored = tmp_path / "report.cbor"
    stored.write_bytes(report)
    assert run.verify(stored).returncode == 0
    for position in (0, 1, 5, 20, len(report) // 2, len(report) - 70, len(report) - 1):
        stored.write_bytes(report[:position] + bytes([report[position] ^ 0x10]) + report[position + 1 :])
        done = run.verify(stored)
        assert done.returncode == 1, f"byte {position} flipped, and accepted"
        assert json.loads(done.stdout)["refused"], done.stdout


def test_the_demo_leaves_no_process_behind(run: Run) -> None:
    left = subprocess.run(["pgrep", "-f", str(run.directory)], capture_output=True, text=True, check=False).stdout
    assert left == "", subprocess.run(["ps", "-fp", *left.split()], capture_output=True, text=True, check=False).stdout
