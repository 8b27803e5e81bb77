"""A technician gets a line's port from the running gateway and gives it back; two programs never have it at once."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import serialx
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.test_command_line import in_thread
from tests.servers import Mosquitto

from laterne_gateway import port_requests
from laterne_gateway.__main__ import run_command
from laterne_gateway.status import reachable

LineOf = Callable[..., FakeLine]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As laterne flash, laterne board and mpremote have a port. Raises OSError: another program has it."""
    port = serialx.serial_for_url(str(path), 115_200, exclusive=True)
    try:
        port.open()
        yield
    finally:
        port.close()


@asynccontextmanager
async def serving(folder: Path, broker: Mosquitto, board: FakeBoard, line: FakeLine) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(folder, [board], [line], broker)
    board.close_reports(1)
    await gateway.start()
    try:
        await board.forgets(1)
        yield gateway
    finally:
        await gateway.end()


async def asked(gateway: GatewayProcess, *arguments: str, code: int = 0) -> Any:
    done = await in_thread("port", *arguments, "--json", "--config", str(gateway.config))
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_a_port_is_given_up_and_taken_back(tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with serving(tmp_path, mosquitto, board, line) as gateway:
        with pytest.raises(OSError, match="locked"), held(line.path):
            pass
        assert (await asked(gateway, "release", str(line.path)))["done"]
        with held(line.path):
            questions = board.questions
            board.close_reports(2)
            # Taken back too early: the one who has the port keeps it, and the gateway says so and waits.
            assert not (await asked(gateway, "take", "line", code=1))["done"]
            found: Any = gateway.status()
            assert any("is in use by another program" in alarm for alarm in found["subjects"]["line line"]["alarms"])
            assert board.questions == questions, "nobody else spoke on the line"
        await board.forgets(3)
        assert (await asked(gateway, "release", "line", "--minutes", "0.01"))["done"]
        board.close_reports(1)
        await board.forgets(4)  # whoever forgets to give it back leaves nobody unserved
        assert (await asked(gateway, "take", "line"))["done"]
        gone = await asked(gateway, "release", str(tmp_path / "ttyUSB9"), code=1)
        assert "is no line of this gateway" in gone["said"]


async def test_a_line_that_is_given_up_is_alive(tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with serving(tmp_path, mosquitto, board, line) as gateway:
        await asked(gateway, "release", "line")
        found: Any = gateway.status()
        values = found["subjects"]["line line"]["values"]
        assert (values["open"], values["given up"]) == (False, True)
        assert not found["subjects"]["line line"]["alarms"], "it is no fault"
        assert await gateway.stop() == 0, "and does not keep the gateway from ending"


async def test_hostile_requests_change_nothing(tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with serving(tmp_path, mosquitto, board, line) as gateway:
        path = reachable(tmp_path / "state" / port_requests.SOCKET_NAME)
        for request in (
            b"\n",
            b"[]\n",
            b"{\n",
            b"x" * 100_000,
            b'{"do":"release","port":"line"}\n',
            b'{"do":"release","port":"line","seconds":-1}\n',
            b'{"do":"release","port":"line","seconds":1e9}\n',
            b'{"do":"release","port":"line","seconds":NaN}\n',
            b'{"do":"release","port":"line","seconds":1' + b"0" * 400 + b"}\n",
            b'{"do":"fly","port":"line"}\n',
            b"[" * 8000 + b"\n",
        ):
            answer = await asyncio.to_thread(sent, path, request)
            assert not answer or not json.loads(answer)["done"], request
        board.close_reports(1)
        await board.forgets(2)
        await until(lambda: "Traceback" not in gateway.said())


def sent(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(path)
        try:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return client.recv(8192)
        except ConnectionError:
            return b""  # hung up on


async def test_without_a_gateway_the_port_is_free(tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf) -> None:
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    assert (await asked(gateway, "release", "line"))["done"]
    assert not (await asked(gateway, "take", "line", code=1))["done"]
    assert (
        await in_thread("port", "release", "line", "--minutes", "0", "--config", str(gateway.config))
    ).returncode == 2


@pytest.mark.parametrize("minutes", ["x", "nan", "0", "-1", "1441"])
def test_minutes_that_are_none_are_refused_in_words(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_command(["port", "release", "quay", "--config", "c", f"--minutes={minutes}"])
    assert f"{minutes} is not between 0 and 1440" in capsys.readouterr().err
