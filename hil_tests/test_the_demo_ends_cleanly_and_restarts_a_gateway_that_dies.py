"""P1: a killed gateway loses nothing. And what the demo owes its user: no process left, no traceback, a sentence."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.demo_run import DemoRun


async def test_a_gateway_killed_twice_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    async with DemoRun(tmp_path / "demo", "--boards", "2", "--seconds", "14") as run:
        await run.served("LE-0002")
        gateway = None
        for _ in range(2):
            await asyncio.sleep(4.0)
            gateway = await run.gateway(other_than=gateway)
            os.kill(gateway, signal.SIGKILL)
        figures = await run.figures()
    assert figures["readings_lost"] == 0
    assert figures["readings_delivered"] == figures["readings_taken"] > 0
    assert figures["reports_refused"] == 0
    assert (tmp_path / "demo" / "gateway.log").read_text().count("gateway GW-0001: 2 lines") == 3


@pytest.mark.parametrize("when", ["during the set-up", "while boards are served, twice"])
async def test_ctrl_c_ends_everything_at_once_and_leaves_no_process(tmp_path: Path, when: str) -> None:
    async with DemoRun(tmp_path / "demo", "--boards", "2") as run:
        if when == "during the set-up":
            async with asyncio.timeout(30):
                while not (run.place / "boards" / "board-01" / "uart").exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(0.05)
        else:
            await run.served("LE-0002")
            run.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.3)
        run.process.send_signal(signal.SIGINT)
        _, errors = await run.process.communicate()
        assert run.process.returncode == 130
        assert "Traceback" not in errors.decode()
        assert run.processes() == []


async def test_ctrl_c_once_delivers_what_waits(tmp_path: Path) -> None:
    async with DemoRun(tmp_path / "demo", "--boards", "2") as run:
        await run.served("LE-0002")
        await asyncio.sleep(7.0)
        run.process.send_signal(signal.SIGINT)
        figures = await run.figures()
        assert figures["readings_lost"] == 0
        assert figures["readings_delivered"] == figures["readings_taken"] > 0
        assert run.processes() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--broker", "mqtt://127.0.0.1:1"), "no broker answers at mqtt://127.0.0.1:1"),
        (("--broker", "example"), "is no broker's address"),
    ],
)
async def test_a_broker_that_is_not_there_is_a_sentence(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    async with DemoRun(tmp_path / "demo", *options) as run:
        _, errors = await run.process.communicate()
        assert run.process.returncode == 1
        assert says in errors.decode()
        assert "Traceback" not in errors.decode()


async def test_a_directory_that_is_not_empty_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    async with DemoRun(tmp_path) as run:
        _, errors = await run.process.communicate()
        assert run.process.returncode == 2
        assert "is not empty" in errors.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
