"""A gateway that dies again and again rests ever longer before it tries again; one that was told to end does not."""

import asyncio
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GatewayProcess
from tests.servers import Mosquitto

from laterne_gateway.starts import CAP_S, FREE, STABLE_S, Starts


def test_the_first_starts_are_free_and_the_rest_doubles_up_to_its_bound(tmp_path: Path) -> None:
    rests = [Starts(tmp_path).begin() for _ in range(FREE + 12)]
    assert rests[:FREE] == [0.0] * FREE
    for number, rest_s in enumerate(rests[FREE:]):
        most_s = min(CAP_S, 10.0 * 2**number)
        assert most_s / 2 <= rest_s <= most_s
    again = Starts(tmp_path)
    assert again.begin() > 0
    again.ended_well()
    assert Starts(tmp_path).begin() == 0.0


@pytest.mark.parametrize("content", [b"", b"-7", b"many", b"\xff\xff", b"9" * 100])
def test_what_stands_in_the_file_is_bounded_and_no_reason_not_to_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "starts").write_bytes(content)
    assert 0.0 <= Starts(tmp_path).begin() <= CAP_S


def test_without_a_service_manager_nothing_is_counted(tmp_path: Path) -> None:
    assert [Starts.found({}).begin() for _ in range(FREE + 2)] == [0.0] * (FREE + 2)
    there = {"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"}
    assert [Starts.found(there).begin() for _ in range(FREE + 1)][-1] > 0
    assert Starts(tmp_path / "not there").begin() == 0.0


async def test_who_has_lived_long_enough_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laterne_gateway.starts.STABLE_S", 0.01)
    starts = Starts(tmp_path)
    starts.begin()
    settling = asyncio.create_task(starts.settle())
    while (tmp_path / "starts").exists():  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.01)
    settling.cancel()
    assert STABLE_S > 60, "a start that ends within a minute has ended soon"


async def test_a_process_that_rests_says_so_and_ends_at_once_when_it_is_told(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = GatewayProcess(tmp_path, [FakeBoard()], [], mosquitto)
    gateway.config.write_text(gateway.config.read_text() + '[[line]]\nname = "quay"\npath = "nowhere"\n')
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    try:
        (tmp_path / "run" / "starts").write_text(str(FREE + 2))
        await gateway.start()
        await gateway.says(f"has ended {FREE + 2} times in a row soon after its start: rests")
        assert await gateway.stop() == 0
        assert "lines" not in gateway.said()
        (tmp_path / "run" / "starts").write_text("0")
        await gateway.start()
        await gateway.says("reports waiting")
        assert (tmp_path / "run" / "starts").read_text() == "1"
        assert await gateway.stop() == 0
        assert not (tmp_path / "run" / "starts").exists()
        # A configuration that nobody has filled in: it must not fill the log for ten years.
        gateway.config.write_text("[gateway]\n")
        for _ in range(FREE):
            await gateway.start()
            assert gateway.process is not None
            assert await gateway.process.wait() == 2
        said = len(gateway.said())
        await gateway.start()
        await gateway.says(f"has ended {FREE} times in a row soon after its start: rests")
        assert await gateway.stop() == 0
        assert str(gateway.config) in gateway.said()[:said]
        assert str(gateway.config) not in gateway.said()[said:], "it rests before it reads"
    finally:
        await gateway.end()
