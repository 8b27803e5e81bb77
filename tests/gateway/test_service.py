"""What the service manager hears: ready when boards are served, alive while the data path goes on, and no longer."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.servers import Mosquitto

from laterne_gateway import service
from laterne_gateway.health import Health
from laterne_gateway.service import ALIVE, READY, STOPPING, ServiceManager, keep_alive


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def lines(self) -> list[str]:
        """All that was said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> "contextlib.AbstractContextManager[Manager]":
    return contextlib.closing(Manager(tmp_path / "notify"))


@contextlib.asynccontextmanager
async def kept_alive(
    manager: Manager, health: Health, disk_turned_s: Callable[[], float]
) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(
        keep_alive(ServiceManager(str(manager.path), 0.02), health, disk_turned_s, lambda: "all is well")
    )
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def pings(manager: Manager) -> int:
    return manager.lines().count(ALIVE)


async def test_a_ping_goes_out_while_lines_and_disk_go_on_and_none_when_a_line_hangs(
    manager: "contextlib.AbstractContextManager[Manager]",
) -> None:
    now_s = [1000.0]
    health = Health(lambda: now_s[0])
    with manager as heard:
        health.progressed("line quay")
        async with kept_alive(heard, health, asyncio.get_running_loop().time):
            await until(lambda: pings(heard) > 2)
            assert "STATUS=all is well" in heard.heard
            assert health.snapshot()["gateway"]["values"]["loop lag s"] >= 0  # type: ignore[index]  # values are a dict of numbers
            now_s[0] += service.SILENT_AT_MOST_S + 1
            await asyncio.sleep(0.05)
            before = pings(heard)
            await asyncio.sleep(0.2)
            assert pings(heard) == before
            health.progressed("line quay")  # it was only slow
            await until(lambda: pings(heard) > before)


async def test_no_ping_goes_out_while_the_disk_hangs(
    manager: "contextlib.AbstractContextManager[Manager]", caplog: pytest.LogCaptureFixture
) -> None:
    with manager as heard:
        async with kept_alive(heard, Health(), lambda: 0.0):
            await until(lambda: "the disk" in caplog.text)
            await asyncio.sleep(0.1)
            assert pings(heard) == 0
    assert caplog.text.count("no progress") == 1


def test_a_watchdog_that_is_meant_for_another_process_is_none_of_ours() -> None:
    said = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "17"}
    assert ServiceManager.found(said, pid=17).watchdog_s == 60.0
    assert ServiceManager.found(said, pid=18).watchdog_s is None
    assert ServiceManager.found({}, pid=17).watchdog_s is None


def test_nobody_listening_is_no_reason_to_stop() -> None:
    ServiceManager("/nowhere/notify").tell(READY)
    ServiceManager("").tell(READY)


async def test_ready_is_said_when_boards_are_served_and_stopping_when_it_is_told_to_stop(
    tmp_path: Path,
    mosquitto: Mosquitto,
    line_of: Callable[..., FakeLine],
    manager: "contextlib.AbstractContextManager[Manager]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    board = FakeBoard()
    with manager as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", str(heard.path))
        gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
        gateway.config.write_text(gateway.config.read_text() + '[[line]]\nname = "away"\npath = "nowhere"\n')
        await gateway.start()
        try:
            await until(lambda: pings(heard) > 0)
            said = heard.heard
            assert any(re.match(r"EXTEND_TIMEOUT_USEC=\d+", one) for one in said)
            assert said.index(READY) < said.index(ALIVE)
            # Not before the ports were opened, and also when one of them is away.
            assert said[said.index(READY) + 1].startswith("STATUS=1 of 2 lines open; reports wait: ")
            assert (tmp_path / "state").is_dir()
            await gateway.stop()
            assert STOPPING in heard.lines()
        finally:
            await gateway.end()
