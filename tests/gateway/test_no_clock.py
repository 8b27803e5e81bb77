"""A gateway whose machine has no clock: it serves and delivers in 1970, and dates when it knows the time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.subscriber import Subscriber, said_with
from tests.servers import Mosquitto

# Python runs it in each process that has its folder in PYTHONPATH: the machine's clock, as far off as the file says.
CLOCK = """
import time
_time, _time_ns = time.time, time.time_ns
def _off_s():
    with open({file!r}) as file:
        return int(file.read())
time.time = lambda: _time() + _off_s()
time.time_ns = lambda: _time_ns() + _off_s() * 10**9
"""


async def test_a_gateway_serves_and_delivers_in_1970_and_dates_when_it_has_the_time(
    tmp_path: Path,
    mosquitto: Mosquitto,
    subscriber: Subscriber,
    line_of: Callable[..., FakeLine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    off, folder = tmp_path / "off", tmp_path / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCK.format(file=str(off)))
    off.write_text(str(-int(time.time())))  # just now it was 1970
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    board = FakeBoard()
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    await gateway.start()
    try:
        board.close_reports(1)
        await subscriber.has_all(board)
        assert said_with(subscriber.messages[-1]) == {"historical": "false"}, "nobody here knew when"
        assert board.time is None
        found = gateway.status()
        assert found is not None
        assert found["clock_credible"] is False
        # An outage, in which the machine gets the time.
        mosquitto.stop()
        board.close_reports(2)
        await board.forgets(3)
        off.write_text("0")  # NTP
        await until(lambda: board.time is not None)
        mosquitto.start()
        await subscriber.has_all(board)
        for message in subscriber.messages[-2:]:
            said = said_with(message)
            assert "received" not in said, "it came while nobody knew when"
            dated = datetime.fromisoformat(said["dated"])
            assert abs((datetime.now(UTC) - dated).total_seconds()) < 60
            assert int(said["dated_within_ms"]) < 1000
        board.close_reports(1)
        await subscriber.has_all(board)
        assert said_with(subscriber.messages[-1])["received"].startswith("20")
        assert await gateway.stop() == 0
    finally:
        await gateway.end()
