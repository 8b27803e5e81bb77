"""laterne-gateway as an operator meets it: exit codes, sentences, and nothing half-written."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess
from tests.servers import Mosquitto


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "laterne_gateway", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


async def in_thread(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(command, *arguments)


def test_bad_usage_ends_with_2() -> None:
    assert command().returncode == 2
    assert command("run").returncode == 2
    assert command("fly", "--config", "x").returncode == 2


def test_the_version_is_that_of_the_package() -> None:
    assert command("--version").stdout == f"laterne-gateway {version('laterne')}\n"


@pytest.mark.parametrize("name", ["run", "check", "status"])
def test_a_bad_configuration_ends_with_2_and_a_sentence(tmp_path: Path, name: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nid = "gw 1"\n')
    done = command(name, "--config", str(file))
    assert done.returncode == 2
    assert f"{file}:2: [gateway] id" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [file]


AS_NOBODY = """
import os, sys
from laterne_gateway import __main__, buffer_commands, check, dead_commands, port_requests, tell
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(__main__.run_command(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", ["status", "dead list", "buffer verify", "port release a"])
def test_who_may_not_look_into_the_service_s_directory_is_told_how(words: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder, config = Path(made), Path(made) / "gateway.toml"
        (folder / "state").mkdir()
        folder.chmod(0o755)
        config.write_text(
            '[gateway]\nid = "gw-1"\ntenant = "t"\ndirectory = "state"\ntrust = "t"\nroster = "r"\n'
            'credential = "c"\n[mqtt]\nurl = "mqtt://b"\n[[line]]\nname = "a"\npath = "a"\n'
        )
        (folder / "state").chmod(0o000)
        try:
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, *words.split(), "--config", str(config)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            (folder / "state").chmod(0o700)
    assert done.returncode == 1, done.stderr
    assert "sudo -u laterne" in done.stderr
    assert "Traceback" not in done.stderr


async def test_run_without_a_roster_ends_with_2_and_a_sentence(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    (tmp_path / "roster.cbor").unlink()
    done = await in_thread("run", "--config", str(gateway.config))
    assert done.returncode == 2
    assert "roster.cbor: cannot be read" in done.stderr
    assert "None" not in done.stderr
    assert [one.name for one in (tmp_path / "state").iterdir()] == ["agree.key"], "nothing is left behind"
    assert "Traceback" not in done.stderr


async def test_a_second_gateway_in_a_directory_ends_with_2(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    board.close_reports(1)
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    await gateway.start()
    try:
        await board.forgets(1)
        done = await in_thread("run", "--config", str(gateway.config))
        assert done.returncode == 2
        assert "another laterne-gateway runs in this directory" in done.stderr
    finally:
        await gateway.end()


async def test_status_tells_of_a_running_gateway_and_of_one_that_does_not_run(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    board.close_reports(3)
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    done = await in_thread("status", "--config", str(gateway.config))
    assert done.returncode == 1
    assert "does not run" in done.stdout
    await gateway.start()
    try:
        await board.forgets(3)
        done = await in_thread("status", "--json", "--config", str(gateway.config))
        assert done.returncode == 0, done.stdout
        found = json.loads(done.stdout)
        assert found["subjects"][board.name]["counts"]["reports stored"] == 3
        assert found["buffer"]["commits"] > 0
        assert found["buffer"]["bytes written"] >= 0
        assert found["buffer"]["away"] is None
        said = (await in_thread("status", "--config", str(gateway.config))).stdout
        assert f"{board.name}: line line" in said
        assert re.search(r"session opened 20..-..-..T..:..:..Z", said)
        assert re.search(r"heard 20..-..-..T..:..:..Z", said)
        assert "line line: open, opened 1" in said
        assert "trust version 1: 1 board at version 1" in said or "1 board not heard yet" in said
        assert re.search(r"utc_ms|True|False|None|\b1 boards|\b1 reports", said) is None
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
    done = await in_thread("status", "--json", "--config", str(gateway.config))
    assert (done.returncode, json.loads(done.stdout)["running"]) == (1, False)


async def test_check_says_what_is_good_and_what_is_wrong(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    line = line_of(board)
    gateway = GatewayProcess(tmp_path, [board], [line], mosquitto)
    done = await in_thread("check", "--config", str(gateway.config))
    assert done.returncode == 0, done.stdout
    assert [one.name for one in (tmp_path / "state").iterdir()] == ["agree.key"], "check changes nothing"
    line.unplug()
    mosquitto.stop()
    (tmp_path / "roster.cbor").write_bytes(FakeAuthority().roster_file([board.entry()]))
    done = await in_thread("check", "--config", str(gateway.config))
    assert done.returncode == 1
    wrong = [one for one in done.stdout.splitlines() if one.startswith("WRONG")]
    assert ["not a roster key" in one for one in wrong] == [True, False, False]
    assert "plug the adapter in" in wrong[1]
    assert "does not answer" in wrong[2]


@pytest.mark.parametrize("name", ["check", "status", "key"])
async def test_who_reads_only_the_first_line_gets_no_traceback(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine], name: str
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    seen_enough, out = os.pipe()
    os.close(seen_enough)
    arguments = [sys.executable, "-m", "laterne_gateway", name, "--config", str(gateway.config)]
    async with asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(*arguments, stdout=out, stderr=asyncio.subprocess.PIPE)
        os.close(out)
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


async def test_ctrl_c_while_a_broker_gives_no_answer_ends_check_without_a_traceback(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    silent = await asyncio.start_server(lambda reader, writer: asked.put_nowait(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    gateway.config.write_text(gateway.config.read_text().replace(mosquitto.url, f"mqtt://127.0.0.1:{port}"))
    arguments = ["-m", "laterne_gateway", "check", "--config", str(gateway.config)]
    pipe = asyncio.subprocess.PIPE
    async with asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe, stderr=pipe)
        caller = await asked.get()
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        while True:  # check tries twice: whether anybody is there, and then in MQTT
            caller.close()
            await caller.wait_closed()
            if asked.empty():
                break
            caller = asked.get_nowait()
    silent.close()
    assert process.returncode == 130
    assert errors == b""


async def test_a_gateway_s_key_is_made_once_readable_for_its_owner_only(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    file = tmp_path / "state" / "agree.key"
    file.unlink()
    file.parent.rmdir()
    done = await in_thread("key", "--config", str(gateway.config))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"kty", "crv", "x", "y"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    made = file.read_bytes()
    again = await in_thread("key", "--config", str(gateway.config))
    assert (again.returncode, again.stdout) == (0, done.stdout), "the same command again tells the same"
    assert "is there already" in again.stderr
    assert file.read_bytes() == made
    # A new key does not fit the credential that is there.
    for command_name, code in (("check", 1), ("run", 2)):
        done = await in_thread(command_name, "--config", str(gateway.config))
        assert done.returncode == code
        assert "names another key" in done.stdout + done.stderr
        assert "laterne gateway enrol" in done.stdout + done.stderr


CREDENTIALS = [
    ("missing", lambda authority, key: None, "cannot be read"),
    (
        "for another gateway",
        lambda authority, key: authority.gateway_file(key, gateway="gw-2"),
        "it is for gateway gw-2",
    ),
    ("of another authority", lambda authority, key: FakeAuthority().gateway_file(key), "is not a roster key"),
    ("of the past", lambda authority, key: authority.gateway_file(key, versions=(2, 3)), "trust versions 2 to 3"),
    ("a roster", lambda authority, key: authority.roster_file([]), "is not that of key"),
    ("noise", lambda authority, key: b"noise", "sign gw-1's key anew"),
]


@pytest.mark.parametrize(("name", "make", "words"), CREDENTIALS, ids=[one[0] for one in CREDENTIALS])
async def test_check_and_run_tell_of_a_credential_that_does_not_fit(
    tmp_path: Path,
    mosquitto: Mosquitto,
    line_of: Callable[..., FakeLine],
    name: str,
    make: Callable[[FakeAuthority, bytes], bytes | None],
    words: str,
) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    data = make(gateway.authority, gateway.key.public)
    if data is None:
        (tmp_path / "gateway.cbor").unlink()
    else:
        (tmp_path / "gateway.cbor").write_bytes(data)
    for command_name, code in (("check", 1), ("run", 2)):
        done = await in_thread(command_name, "--config", str(gateway.config))
        assert done.returncode == code
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


async def test_sighup_takes_a_new_roster(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine]
) -> None:
    board, new = FakeBoard("LE-1"), FakeBoard("LE-2")
    new.close_reports(1)
    new.sessions.replace_after_s = 0.0  # the handshake that was refused is half-made there
    gateway = GatewayProcess(tmp_path, [board], [line_of(new)], mosquitto)
    await gateway.start()
    try:
        # Its name is not known: no board says it in the clear, and the roster does not hold its key.
        await gateway.says(f"{new.sessions.kid.hex()}: line line: is not in the roster")
        (tmp_path / "roster.cbor").write_bytes(gateway.authority.roster_file([board.entry(), new.entry()], 2))
        gateway.signal(signal.SIGHUP)
        await new.forgets(1)
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
