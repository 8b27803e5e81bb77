"""The watchdog is fed by the data path: a whole agent in this process, its bounds shortened, and what may hang."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.test_command_line import in_thread
from tests.gateway.test_service import Manager, pings
from tests.servers import Mosquitto

from laterne_gateway import agent, bus, exchange, service, writer
from laterne_gateway.health import Health
from laterne_gateway.last_good import Configuration
from laterne_gateway.service import ServiceManager, keep_alive

LineOf = Callable[..., FakeLine]
EVERY_S = 0.02
WITHIN_S = 60.0  # so that an agent that is not as it should be is told to stop
SILENT_S = 1.0  # all that comes round in the agent does so in a tenth of it


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(round(2e6 * EVERY_S)))
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with contextlib.closing(Manager(tmp_path / "notify")) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "laterne")
    monkeypatch.setattr(service, "SILENT_AT_MOST_S", SILENT_S)
    for module, bound in ((bus, "TURN_WITHIN_S"), (bus, "POLL_WITHIN_S"), (bus, "REOPEN_CAP_S")):
        monkeypatch.setattr(module, bound, SILENT_S / 10)
    monkeypatch.setattr(writer, "TURN_WITHIN_S", SILENT_S / 10)


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, broker: Mosquitto, *lines: FakeLine) -> AsyncIterator[GatewayProcess]:
    """An agent that has stored a report of each board, in this process; its files are those of a process."""
    boards = [board for line in lines for board in line.boards]
    files = GatewayProcess(tmp_path, boards, lines, broker)
    running = asyncio.create_task(agent.run(Configuration(files.config, None)))
    try:
        async with asyncio.timeout(WITHIN_S):
            for board in boards:
                board.close_reports(1)
                await board.forgets(1)
            yield files
    finally:
        signal.raise_signal(signal.SIGTERM)
        await running


async def ping_no_more(manager: Manager) -> None:
    """Returns when a good many rounds have gone by without a ping."""
    rounds, before = 0, pings(manager)
    while rounds < 25:
        await asyncio.sleep(EVERY_S)
        now = pings(manager)
        rounds, before = rounds + 1 if now == before else 0, now


async def go_on(manager: Manager) -> None:
    """Returns when pings go out although all that hangs now has done so for longer than it may."""
    await asyncio.sleep(2 * SILENT_S)
    before = pings(manager)
    await until(lambda: pings(manager) > before + 2)


async def test_a_line_whose_asking_hangs_ends_the_pings_although_all_else_goes_on(
    tmp_path: Path,
    mosquitto: Mosquitto,
    line_of: LineOf,
    manager: Manager,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hanging, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    async with serving(tmp_path, mosquitto, line_of(hanging, name="quay"), line_of(other, name="other")):
        await go_on(manager)
        monkeypatch.setattr(exchange, "answer_within_s", lambda question_bytes, baud: 3600.0)
        hanging.silent = True
        await ping_no_more(manager)
        assert "no progress: line quay: unless" in caplog.text
        other.close_reports(3)
        await other.forgets(4)


async def test_a_disk_that_hangs_ends_the_pings_until_it_goes_on(
    tmp_path: Path,
    mosquitto: Mosquitto,
    line_of: LineOf,
    manager: Manager,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    board, goes_on, statvfs = FakeBoard(), threading.Event(), os.statvfs

    def hang(path: str) -> os.statvfs_result:
        if threading.current_thread().name == "buffer":
            goes_on.wait()
        return statvfs(path)

    async with serving(tmp_path, mosquitto, line_of(board)):
        try:
            monkeypatch.setattr(os, "statvfs", hang)
            board.close_reports(1)
            await ping_no_more(manager)
            assert "no progress: the disk: unless" in caplog.text
            assert board.acknowledged == 1
        finally:
            goes_on.set()
        await board.forgets(2)
        await go_on(manager)


async def test_what_is_away_ends_no_pings_a_broker_an_adapter_or_a_port_that_was_given_up(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf, manager: Manager, impatient: None
) -> None:
    lines = [line_of(FakeBoard(f"LE-{name}"), name=name) for name in ("stays", "unplugged", "given")]
    async with serving(tmp_path, mosquitto, *lines) as files:
        mosquitto.kill()
        lines[1].unplug()
        done = await in_thread("port", "release", str(lines[2].path), "--config", str(files.config))
        assert done.returncode == 0, done.stderr
        await go_on(manager)
        lines[0].boards[0].close_reports(3)
        await lines[0].boards[0].forgets(4)


async def test_a_round_in_which_the_event_loop_was_held_up_gives_no_ping(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "LAG_AT_MOST_S", 0.5)
    before: list[int] = []  # pings before each round

    def disk_turned_s() -> float:
        before.append(pings(manager))
        return time.monotonic()

    alive = asyncio.create_task(keep_alive(ServiceManager.found(), Health(), disk_turned_s, lambda: "all is well"))
    try:
        await until(lambda: pings(manager) > 2)
        time.sleep(0.8)  # noqa: ASYNC251 - this is what is tested
        held_up = len(before)
        await until(lambda: len(before) >= held_up + 3)
        assert before[held_up + 1] == before[held_up], "that round"
        assert before[held_up + 2] == before[held_up] + 1, "and no other"
        assert "no progress: the event loop, " in caplog.text
    finally:
        alive.cancel()
        await asyncio.gather(alive, return_exceptions=True)
