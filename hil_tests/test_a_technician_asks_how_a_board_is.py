"""`laterne board doctor` and `board watch` on the USB port of boards with the real firmware.

An enrolled board is only listened to: what may be heard there is firmware/README.md, "Who gets in by USB?".
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from tests.firmware.questions import asking
from tests.typed import LATERNE, WITHIN_S, run

from laterne_emulator import image, release_tool
from laterne_emulator.world import Fault, Quantity
from laterne_provisioning.doctor import commands
from laterne_provisioning.flashing import repl

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"


async def doctor(port: Path, *options: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await run(*LATERNE, "board", "doctor", port, "--json", *options, code=code))[0])
    return found


def judged(found: dict[str, Any]) -> dict[str, str]:
    return {one["about"]: one["verdict"] for one in found["findings"]}


async def test_a_board_tells_how_it_is_before_and_after_enrolment(emulated_boards: "Benches", tmp_path: Path) -> None:
    bench = await emulated_boards(settings={"report_s": 5, "sample_ms": 500})
    board = bench.boards[NAME]
    usb = board.usb.path
    bench.world.hold(Quantity.ILLUMINANCE, 200.0)  # the sun would be too much for the sensor
    release = tmp_path / "release"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    tested = await doctor(usb, "--release", release)
    assert (tested["board"], tested["enrolled"]) == (f"board {board.unique_id.hex()}", False)
    assert judged(tested)["REPL"] == "ok"
    assert {"air temperature", "air pressure", "illuminance"} <= set(judged(tested))
    async with asyncio.timeout(WITHIN_S):
        await board.wait_for_life(0)
        await board.usb.wait_for_print("start 2 by reset")  # and it goes on afterwards
        await board.usb.wait_for_print("state [")
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol("LE-0001")
        await asker.wait_for_reports(1)
    bench.sensors[NAME]["sht4x"].probe.fault = Fault.MISSING
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print("SHT4x at 0x44 fails")
    found = await doctor(usb, code=1)
    assert (found["board"], found["enrolled"], found["verdict"]) == ("LE-0001", True, "broken")
    # Nobody has told it the time, and it was reset a moment ago; all else is well.
    assert {about: verdict for about, verdict in judged(found).items() if verdict != "ok"} == {
        "sensors": "broken", "clock": "look at", "power": "look at",
    }  # fmt: skip
    watched = [json.loads(line) for line in (await run(*LATERNE, "board", "watch", usb, "--count", 1))[0].splitlines()]
    states = [one for one in watched if "board" in one]
    assert [one["board"] for one in states] == ["LE-0001"]
    assert {one["name"]: one["value"] is None for one in states[-1]["readings"]} == {
        "air temperature": True, "relative humidity": True, "air pressure": False, "illuminance": False,
    }  # fmt: skip
    assert len(board.lives) == 1, "listening has reset nothing"


async def test_a_blank_board_has_a_repl_and_nothing_else(emulated_boards: "Benches") -> None:
    board = (await emulated_boards(blank=True)).boards[NAME]
    before = board.flash.count.operations
    found = await doctor(board.usb.path)
    assert judged(found) | {"release": "look at", "REPL": "look at", "power": "ok", "not known": "ok"} == judged(found)
    assert board.flash.count.operations == before, "nothing is written"
    assert "micropython" in next(one["said"] for one in found["findings"] if one["about"] == "interpreter").lower()


async def test_a_port_that_says_nothing_is_told(
    emulated_boards: "Benches", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A main.py that lets nobody in and prints nothing, as a board that hangs.
    silent = b"import micropython,time\nmicropython.kbd_intr(-1)\nwhile 1:time.sleep(1)\n"
    board = (await emulated_boards(files={"main.py": silent})).boards[NAME]
    monkeypatch.setattr(commands, "HEARD_WITHIN_S", 1.0)
    monkeypatch.setattr(repl, "ATTEMPTS", 1)
    with pytest.raises(typer.Exit):
        await asyncio.to_thread(commands.doctor, str(board.usb.path), None, True)
    assert judged(json.loads(capsys.readouterr().out)) == {"board": "broken"}
