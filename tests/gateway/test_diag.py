"""`laterne-gateway diag`: everything that helps, and no secret."""

import asyncio
import json
import tarfile
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.wired import WiredLine
from tests.servers import Mosquitto

from laterne_gateway.__main__ import run_command
from laterne_gateway.config import load
from laterne_gateway.diag import diag


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        found = {entry.name.partition("/")[2]: archive.extractfile(entry) for entry in archive.getmembers()}
        return {name: content.read() for name, content in found.items() if content is not None}


async def test_it_holds_status_and_files_of_a_running_gateway_and_no_secret(
    tmp_path: Path, mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    board = FakeBoard()
    line = WiredLine(tmp_path / "quay", [board], seed=1)
    gateway = GatewayProcess(tmp_path, [board], [line], mosquitto)
    (tmp_path / "broker.password").write_text("correct horse battery staple")
    text = gateway.config.read_text()
    text += '# the old one was "Laternenpfahl 9"\n'
    gateway.config.write_text(text.replace("[mqtt]\n", '[mqtt]\nusername = "gw"\npassword_file = "broker.password"\n'))
    board.close_reports(2)
    try:
        await gateway.start()
        await until(lambda: gateway.status() is not None)
        output = tmp_path / "diag.tar.gz"
        asked = ["diag", "--config", str(gateway.config), "-o", str(output)]
        assert await asyncio.to_thread(run_command, asked) == 0
        assert "no key, password or reading" in capsys.readouterr().out
        found = members(output)
    finally:
        await gateway.end()
        await line.close()
    assert b'"running": true' in found["status.json"]
    assert json.loads(found["gateway.json"])["mqtt"]["password_file"] == "broker.password"
    assert b"good: trust" in found["check.txt"]
    assert b"cryptography" in found["machine.txt"]
    assert found["roster.cbor"] == (tmp_path / "roster.cbor").read_bytes()
    key = (tmp_path / "state" / "agree.key").read_bytes()
    for content in found.values():
        assert b"correct horse" not in content
        assert b"Laternenpfahl" not in content
        assert key[40:80] not in content
        assert all(report not in content for report in board.taken.values())


def test_a_key_that_is_named_for_something_else_and_a_password_in_a_bad_file_stay(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    gateway = GatewayProcess(tmp_path, [FakeBoard()], [], mosquitto)
    good = load_text(gateway)
    gateway.config.write_text(good.replace('"gateway.cbor"', '"state/agree.key"'))
    output = tmp_path / "diag.tar.gz"
    config = load(gateway.config)
    gateway.config.write_text(good.replace("[mqtt]\n", '[mqtt]\npassword = "correct horse"\n'))
    assert diag(config, output) == 0, "as a service's that goes on with its last good configuration"
    found = members(output)
    assert b"left out" in found["gateway.cbor"]
    assert b"[mqtt] password: is not a setting" in found["gateway.json"]
    assert found["trust.cbor"] == (tmp_path / "trust.cbor").read_bytes()
    key = (tmp_path / "state" / "agree.key").read_bytes()
    for content in found.values():
        assert b"correct horse" not in content
        assert key[40:80] not in content


def load_text(gateway: GatewayProcess) -> str:
    return gateway.config.read_text() + '[[line]]\nname = "quay"\npath = "nowhere"\n'


def test_what_cannot_be_had_stands_in_its_place_and_nothing_is_written_over(
    tmp_path: Path, mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = GatewayProcess(tmp_path, [FakeBoard()], [], mosquitto)
    gateway.config.write_text(gateway.config.read_text() + '[[line]]\nname = "quay"\npath = "nowhere"\n')
    (tmp_path / "roster.cbor").unlink()
    output = tmp_path / "diag.tar.gz"
    assert run_command(["diag", "--config", str(gateway.config), "-o", str(output)]) == 0
    found = members(output)
    assert found["status.json"] == b"null"
    assert b"could not be had" in found["roster.cbor"]
    assert b"WRONG" in found["check.txt"]
    assert run_command(["diag", "--config", str(gateway.config), "-o", str(output)]) == 1
    assert "is there already" in capsys.readouterr().err
