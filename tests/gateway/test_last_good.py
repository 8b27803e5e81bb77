"""A configuration that cannot be used, at a start: the last good one serves, where a service manager wants it to."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GatewayProcess, until
from tests.gateway.test_config import GOOD
from tests.servers import Mosquitto

from laterne_gateway.config import ConfigError
from laterne_gateway.last_good import FILE_NAME, Configuration

BAD = GOOD.replace("baud = 19200", "baud = 1")


def configuration(tmp_path: Path, text: str | None) -> Configuration:
    file = tmp_path / "gateway.toml"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    return Configuration(file, tmp_path)


@pytest.mark.parametrize("text", [BAD, "[gateway\n", "", None], ids=["bad", "no TOML", "empty", "gone"])
def test_a_start_with_a_bad_file_goes_on_with_the_last_good_one_and_its_paths(tmp_path: Path, text: str | None) -> None:
    first = configuration(tmp_path, GOOD)
    good = first.start()
    first.keep()
    second = configuration(tmp_path, text)
    assert second.start() == good
    assert second.problems
    second.keep()  # it is in force, and is not what the file says
    assert (tmp_path / FILE_NAME).read_text() == GOOD
    third = configuration(tmp_path, GOOD)
    third.start()
    assert third.problems == []


@pytest.mark.parametrize("kept", [None, BAD, "\x00"])
def test_without_a_good_one_the_problems_are_those_of_the_file(tmp_path: Path, kept: str | None) -> None:
    if kept is not None:
        (tmp_path / FILE_NAME).write_text(kept)
    with pytest.raises(ConfigError, match=r"gateway\.toml:19: \[\[line\]\] baud"):
        configuration(tmp_path, BAD).start()


def test_one_that_was_only_read_is_not_kept_and_one_that_is_the_same_not_written(tmp_path: Path) -> None:
    one = configuration(tmp_path, GOOD)
    one.start()
    assert not (tmp_path / FILE_NAME).exists()
    one.keep()
    before = (tmp_path / FILE_NAME).stat()
    one.load()
    one.keep()
    assert (tmp_path / FILE_NAME).stat() == before
    Configuration.found(tmp_path / "gateway.toml", None, {}).keep()


def test_a_directory_that_cannot_be_written_is_no_reason_not_to_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gateway.toml").write_text(GOOD)
    one = Configuration(tmp_path / "gateway.toml", tmp_path / "not there", "debug")
    assert one.start().log_level == "debug"
    one.keep()
    assert "not kept for a start with a bad file" in caplog.text


async def test_a_service_with_a_bad_file_serves_on_after_a_power_cut_with_an_alarm_until_it_is_good(
    tmp_path: Path, mosquitto: Mosquitto, line_of: Callable[..., FakeLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = FakeBoard()
    board.sessions.replace_after_s = 0.0
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    gateway = GatewayProcess(tmp_path, [board], [line_of(board)], mosquitto)
    good = gateway.config.read_text()
    await gateway.start()
    try:
        board.close_reports(1)
        await board.forgets(1)
        gateway.config.write_text(good + "baud = 1\n")
        gateway.signal(signal.SIGHUP)
        await gateway.says("files read again")
        await gateway.kill()
        await gateway.start()
        board.close_reports(1)
        await board.forgets(2)
        (alarm,) = alarms(gateway)
        assert f"{gateway.config}:" in alarm
        assert "[[line]] baud: is not a whole number" in alarm
        gateway.config.write_text(good)
        gateway.signal(signal.SIGHUP)
        await until(lambda: alarms(gateway) == [])
        assert await gateway.stop() == 0
    finally:
        await gateway.end()


def alarms(gateway: GatewayProcess) -> list[str]:
    found: Any = gateway.status()
    return list(found["subjects"]["configuration"]["alarms"])
