"""`laterne emulate` keeps boards running, is told what to do with them, and leaves no process behind."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.emulator.talking import WITHIN_S

from laterne_emulator.control import Control, ControlRefused
from laterne_emulator.image import find_firmware


@asynccontextmanager
async def emulating(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    program = "import typer; from laterne_emulator.emulate import emulate; typer.run(emulate)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, folder, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_laterne_emulate_runs_boards_until_it_is_told_to_stop(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--boards", "2", "--blank") as process:
        async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
            status = await control.ask({"do": "status"})
            assert list(status["boards"]) == ["board-01", "board-02"]
            assert status["boards"]["board-01"]["powered"]
            await control.ask({"do": "pin", "board": "board-01", "pin": 22, "value": 0})
            await control.ask({"do": "sensor", "board": "board-02", "sensor": "veml7700", "fault": "silent"})
            await control.ask({"do": "line", "board": "board-02", "bit_errors": 0.001, "split": True})
            await control.ask({"do": "world", "temperature": 21.5})
            await control.ask({"do": "power_off", "board": "board-02"})
            assert not (await control.ask({"do": "status"}))["boards"]["board-02"]["powered"]
            await control.ask({"do": "power_on", "board": "board-02"})
            for wrong in ({"do": "fly"}, {"do": "reset", "board": "x"}, {"do": "line", "board": "board-01", "a": 1}):
                with pytest.raises(ControlRefused):
                    await control.ask(wrong)
        assert (place / "board-01" / "uart").is_symlink()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0
    assert sorted(path.name for path in (place / "board-01").iterdir()) == ["console.log", "flash.img"]


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


async def test_no_board_outlives_an_emulator_that_is_killed(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--boards", "3", "--blank") as process:
        async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
            await control.ask({"do": "status"})
        (origin,) = children(process.pid)  # which forks for every life
        boards = children(int(origin))
        assert len(boards) == 3
        watched = [os.pidfd_open(int(child)) for child in (origin, *boards)]
        process.kill()
        for pidfd in watched:
            ended, _, _ = select.select([pidfd], [], [], WITHIN_S)
            os.close(pidfd)
            assert ended


async def test_boards_of_an_earlier_run_keep_their_flash(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    for expected in (1, 0):
        async with emulating(place, "--blank") as process:
            async with await Control.connect(place / "control", within_s=WITHIN_S) as control:
                assert (await control.ask({"do": "status"}))["boards"]["board-01"]["formatted"] == expected
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0


async def test_two_emulators_never_share_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "boards"
    async with emulating(place, "--blank"), await Control.connect(place / "control", within_s=WITHIN_S) as control:
        async with emulating(place, "--blank") as second:
            assert await second.wait() == 2
        assert (await control.ask({"do": "status"}))["boards"]["board-01"]["powered"]


async def test_emulating_without_firmware_says_where_it_would_be_found(tmp_path: Path) -> None:
    async with emulating(tmp_path / "boards", "--firmware", str(tmp_path)) as process:
        assert await process.wait() == 2


def test_the_firmware_of_the_checkout_where_we_are_is_taken_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel has none beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "firmware").mkdir()
    assert find_firmware() != tmp_path / "firmware"
    (tmp_path / "firmware" / "laterne_firmware").mkdir()
    (tmp_path / "firmware" / "main.py").touch()
    assert find_firmware() == tmp_path / "firmware"
