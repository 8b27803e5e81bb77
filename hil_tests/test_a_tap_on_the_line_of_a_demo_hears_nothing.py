"""What a clip on the cables of a running demo hears: no id, no kid, no key, no report and no value of any board.

The demo is run as a user runs it; the tap is put on when all boards are enrolled, before the gateway comes.
"""

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest

from laterne_emulator.control import Control
from laterne_protocol import frame

BOARDS = 2
SECONDS = 12
LATERNE = Path(sys.executable).with_name("laterne")


async def _tapped(place: Path) -> dict[str, Any]:
    demo = await asyncio.create_subprocess_exec(
        str(LATERNE), "demo", "--boards", str(BOARDS), "--seconds", str(SECONDS), "--json", "--directory", str(place),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            while not (place / "gateway.toml").exists():  # noqa: ASYNC110 - another process writes it, after enrolment
                await asyncio.sleep(0.02)
        async with await Control.connect(place / "boards" / "control") as control:
            await control.ask({"do": "tap", "on": True})
        out, _ = await demo.communicate()
    finally:
        if demo.returncode is None:
            demo.terminate()
            await demo.wait()
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "place"


@pytest.fixture(scope="module")
def figures(place: Path) -> dict[str, Any]:
    return asyncio.run(_tapped(place))


def _frames(heard: bytes) -> list[frame.Frame]:
    return frame.FrameDecoder().feed(heard)


def test_the_demo_delivers_all_readings_while_somebody_listens(figures: dict[str, Any]) -> None:
    assert figures["readings_lost"] == 0
    assert figures["reports_refused"] == 0
    assert figures["readings_delivered"] > BOARDS * SECONDS


def test_the_tap_hears_records_and_nothing_in_the_clear_but_what_reveals_nothing(
    place: Path, figures: dict[str, Any]
) -> None:
    for tap in sorted(place.glob("boards/*/line.bin")):
        found = _frames(tap.read_bytes())
        kinds = [one.kind for one in found]
        assert kinds.count(frame.RECORD) > 20
        assert {frame.MESSAGE, frame.HANDSHAKE, frame.RECORD} >= set(kinds)
        for one in found:
            if one.kind == frame.MESSAGE:  # hello, and the refusal that says: in a session only
                assert cbor2.loads(one.payload)[0] in (1, 5), one.payload.hex()
                assert len(one.payload) <= 6


def test_the_tap_hears_no_id_no_kid_no_key_and_no_credential(place: Path, figures: dict[str, Any]) -> None:
    listed = subprocess.run(
        [LATERNE, "board", "list", "--json", "--authority", place / "authority"], check=True, capture_output=True
    ).stdout
    boards = json.loads(listed)
    assert len(boards) == BOARDS
    taps = sorted(place.glob("boards/*/line.bin"))
    assert len(taps) == BOARDS
    for tap in taps:
        heard = tap.read_bytes()
        plain = b"".join(one.payload for one in _frames(heard))  # COBS may hide a string from a search
        for board in boards:
            secrets = [board["id"].encode(), base64.urlsafe_b64decode(board["credential"] + "==")[-64:]]
            for name in ("sign_key", "agree_key"):
                if name in board:
                    secrets += [base64.urlsafe_b64decode(board[name][part] + "==") for part in ("x", "y")]
            if "kid" in board:
                secrets.append(bytes.fromhex(board["kid"]))
            assert len(secrets) >= 4
            for secret in secrets:
                assert secret not in heard
                assert secret not in plain
        # The gateway's own credential is shown to every board in the clear (protocol/README.md, 9.4). Reports and
        # credentials of boards are recognised by how they begin, whatever is in them.
        introduced = (place / "gateway.cbor").read_bytes()
        assert introduced in plain
        plain = plain.replace(introduced, b"")
        for beginning in (bytes.fromhex("d2844da2012804"), b"laterne/", b"Signature1"):
            assert beginning not in plain
