"""TLS on a machine that is in 1970: its C library's clock is, and so Python's and OpenSSL's; the broker is real."""

import os
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.subscriber import subscribed
from tests.gateway.test_tls import Certificates, TlsBroker, gateway_with_tls

# libfaketime 0.9.10 never returns from Python's sleep() when it leaves the monotonic clock as it is.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Which clock processes have that begin now, as libfaketime reads it; the monotonic one is left as it is."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Debian's libfaketime")
    file, folder = tmp_path / "clock", tmp_path / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLEEP)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    monkeypatch.setenv("LD_PRELOAD", str(found[0]))
    return file


async def test_a_gateway_in_1970_keeps_reports_says_that_it_waits_for_the_clock_and_connects_when_that_is_set(
    tmp_path: Path, clock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Certificates(tmp_path / "certificates")
    clock.write_text("+0")
    broker = TlsBroker(tmp_path / "broker", made.issue("localhost"), made.ca)
    broker.broker.start()
    board = FakeBoard()
    line = FakeLine(tmp_path / "line", [board])
    gateway = gateway_with_tls(tmp_path, board, line, broker, made.ca, made.issue("gw-1.example"))
    try:
        async with subscribed(broker.broker) as subscriber:
            clock.write_text("@1970-01-01 00:00:30")
            await gateway.start()
            monkeypatch.delenv("LD_PRELOAD")
            board.close_reports(3)
            await board.forgets(3)  # they are on the gateway's disk
            await gateway.says("waits for this machine's clock, which says 1970-01-01")
            found = gateway.status()
            assert found is not None
            assert found["clock_credible"] is False
            assert isinstance(found["buffer"], dict)
            assert found["buffer"]["waiting"] == {"mqtt": 3}
            assert board.time is None, "no board is told a time that nobody knows"
            assert not subscriber.bodies
            assert gateway.process is not None
            pid = gateway.process.pid
            clock.write_text("+0")
            await subscriber.has_all(board)
            assert gateway.process.pid == pid
            assert gateway.process.returncode is None
            assert await gateway.stop() == 0
            assert "Traceback" not in gateway.said()
    finally:
        await gateway.end()
        await line.close()
        broker.broker.stop()
