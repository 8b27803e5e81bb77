"""A driver that hangs keeps one thread of ours: no other line, not the event loop, not the end of the process."""

import asyncio
import fcntl
import os
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.hanging import HangingPort
from tests.gateway.parts import GatewayProcess, Parts, parts, until
from tests.gateway.test_bus import arrive
from tests.servers import Mosquitto

from laterne_gateway import bus, port, serial_line, service
from laterne_gateway.config import LineSettings
from laterne_gateway.health import Health
from laterne_gateway.port import DriverHangs, Port
from laterne_gateway.serial_line import LineLost, SerialLine

LineOf = Callable[..., FakeLine]


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[HangingPort]:
    (tmp_path / "hangs").mkdir()
    with HangingPort(tmp_path / "hangs") as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "OPEN_WITHIN_S", 0.1)
    monkeypatch.setattr(port, "CLOSED_WITHIN_S", 0.1)
    monkeypatch.setattr(bus, "REOPEN_CAP_S", 0.1)


class LineThatHangs:
    def __init__(self, hanging: HangingPort, board: FakeBoard) -> None:
        self.path = hanging.path
        self.boards = [board]


def hang() -> int:
    return sum(thread.name == "port" for thread in threading.enumerate())


def can_be_had(path: Path) -> bool:
    """As laterne flash has it."""
    holder = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(holder)
    return True


def lost(gateway: Parts) -> int:
    return gateway.health.counted("line port", "lost")


async def test_a_driver_that_hangs_holds_up_nobody_else_and_is_served_when_it_lets_go(
    tmp_path: Path, line_of: LineOf, hanging: HangingPort, impatient: None
) -> None:
    board, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    line = line_of(board)
    async with parts(tmp_path, board, other) as gateway, gateway.asking(line, LineThatHangs(hanging, other)):
        await until(lambda: lost(gateway) >= 3)
        assert hang() == 1, "however often it was tried"
        assert gateway.health.silent(5.0) == [], "the watchdog sees each line come round"
        assert gateway.buses[1].tried.is_set(), "the service is ready without it"
        assert f"{hanging.path}: its driver has not answered" in str(gateway.health.snapshot()["line port"]["alarms"])
        board.close_reports(5)
        await arrive(gateway, board)
        behind = line_of(other, name="behind")
        hanging.let_go(behind.path)
        other.close_reports(5)
        await arrive(gateway, other)
        assert not gateway.health.snapshot()["line port"]["alarms"]
        assert hang() == 0


def test_a_line_whose_driver_hangs_comes_round_before_the_watchdog_takes_it_for_hung() -> None:
    assert port.OPEN_WITHIN_S + port.CLOSED_WITHIN_S + bus.REOPEN_CAP_S < service.SILENT_AT_MOST_S


async def test_a_port_that_was_given_up_meanwhile_is_closed_as_soon_as_its_driver_lets_go(
    tmp_path: Path, line_of: LineOf, hanging: HangingPort, impatient: None
) -> None:
    board = FakeBoard()
    behind = line_of(board, name="behind")
    async with parts(tmp_path, board) as gateway, gateway.asking(LineThatHangs(hanging, board)):
        await until(lambda: lost(gateway) >= 1)
        assert not await gateway.buses[0].give_up(3600), "the technician is told that it hangs"
        hanging.let_go(behind.path)
        await until(lambda: can_be_had(behind.path) and not gateway.buses[0]._line.hangs)
        assert await gateway.buses[0].give_up(3600)
        board.close_reports(1)
        assert await gateway.buses[0].take_back()
        await arrive(gateway, board)


async def test_a_gateway_that_is_told_to_stop_has_stopped_although_a_driver_hangs(
    tmp_path: Path, mosquitto: Mosquitto, line_of: LineOf, hanging: HangingPort
) -> None:
    board, other = FakeBoard("LE-1"), FakeBoard("LE-2")
    gateway = GatewayProcess(tmp_path, [board, other], [line_of(board)], mosquitto)
    gateway.config.write_text(gateway.config.read_text() + f'[[line]]\nname = "bad"\npath = "{hanging.path}"\n')
    try:
        await gateway.start()
        await asyncio.to_thread(hanging.asked.acquire)
        board.close_reports(5)
        await board.forgets(5)
        stopping = asyncio.create_task(gateway.stop())
        await gateway.says("stopped, 0 reports waiting")
        assert not (tmp_path / "state" / "status.sock").exists(), "the next one may begin"
        hanging.let_go(Path("/dev/null"))  # the kernel ends no process before that
        assert await stopping == 0
    finally:
        hanging.let_go(Path("/dev/null"))
        await gateway.end()


async def test_a_port_whose_closing_hangs_is_opened_anew_when_that_is_over(
    line_of: LineOf, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    line = line_of(FakeBoard())
    tried = Port(line.path, 115_200)
    first = await tried.open()
    goes_on, closing = threading.Event(), os.close

    def close(descriptor: int) -> None:
        goes_on.wait()
        closing(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        await tried.close()
        assert tried.hangs
        for _ in range(3):
            with pytest.raises(DriverHangs):
                await tried.open()
        assert hang() == 1
        assert os.isatty(first)
        goes_on.set()
        while hang():  # noqa: ASYNC110 - a thread has no event
            await asyncio.sleep(0.01)
    assert os.isatty(await tried.open())
    await tried.close()
    assert not tried.hangs


async def test_an_adapter_that_takes_no_byte_is_opened_anew_and_what_waits_for_it_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = os.openpty()
    tty.setraw(terminal)
    line = SerialLine(LineSettings("quay", Path(os.ttyname(terminal)), 115_200, ()), Health())
    try:
        await line.open()
        monkeypatch.setattr(serial_line, "TAKES_WITHIN_S", 3600.0)
        sent = 0
        while not line._unsent:
            line.write(bytes(4096))
            sent += 4096
        line.write(b"x" * 10)  # it may be slow
        os.set_blocking(controller, False)
        received = 0
        while received < sent + 10:
            try:
                received += len(os.read(controller, 65536))
            except BlockingIOError:
                await asyncio.sleep(0)
        while not line._unsent:
            line.write(bytes(4096))
        monkeypatch.setattr(serial_line, "TAKES_WITHIN_S", 0.0)
        with pytest.raises(LineLost, match="has taken no byte"):
            line.write(b"x")
        await line.close()
        assert not line.hangs
    finally:
        os.close(controller)
        os.close(terminal)
