"""A blank board becomes one that reports, by one command; stopped anywhere, the same command ends it well (P4).

mpremote's transport is the real one, on the board's USB port. The commands are processes, as people run them.
test_a_flashing_that_is_interrupted_is_given_again.py sweeps the interruptions.
"""

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.servers import Mosquitto
from tests.typed import GATEWAY, LATERNE, WITHIN_S, gateway_config, laterne, run, started

from laterne_emulator import image, release_tool
from laterne_emulator.control import Control
from laterne_emulator.flash import FlashTiming
from laterne_emulator.lives import Ending
from laterne_protocol.release_file import Release
from laterne_provisioning import authority as authorities
from laterne_provisioning import interpreters
from laterne_provisioning.errors import OperatorError
from laterne_provisioning.flashing import layout, steps, writing
from laterne_provisioning.flashing.repl import Repl

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

FLASH_WITHIN_S = 30.0
NAME = "board-01"


async def test_a_blank_board_becomes_one_whose_report_verifies_by_one_command_for_each_step(tmp_path: Path) -> None:
    office, boards, release = tmp_path / "office", tmp_path / "boards", tmp_path / "release"
    usb, uart = boards / NAME / "usb", boards / NAME / "uart"
    await run(*LATERNE, "init", office, "--no-passphrase")
    with Mosquitto(tmp_path / "broker") as broker:
        async with started(*LATERNE, "emulate", boards, "--blank"):  # with the flash of a Pico, that takes its time
            async with await Control.connect(boards / "control", within_s=WITHIN_S) as control:  # the board has power
                await control.ask({"do": "world", "illuminance": 800})  # at noon there is more than its sensor takes
            await run(*LATERNE, "release", "build", "-o", release, "--sequence", 7, "--uncommitted")
            flash = ("flash", usb, "--release", release, "--authority", office, "--json")
            assert "Nothing was written" in await laterne(*flash, code=1), "nobody has signed it"
            await run(*LATERNE, "release", "sign", release, "--authority", office)
            enrolling = ("--id", "LE-0001", "--post", "P-1", "--line", uart, "--label", tmp_path / "label.svg")
            done = await laterne(*flash, *enrolling, "--report-seconds", 5, within_s=FLASH_WITHIN_S)
            assert (done["model"], done["written"] + 1, done["sequence"]) == ("emulated", done["files"], 7)
            assert {one["name"] for one in done["readings"] if one["quality"] == 1} == {
                "air temperature", "relative humidity", "air pressure", "illuminance",
            }  # fmt: skip
            board = done["board"]
            assert (board["id"], board["state"], board["post"]) == ("LE-0001", "enrolled", "P-1")
            assert b"</svg>" in (tmp_path / "label.svg").read_bytes()
            config = await gateway_config(tmp_path, broker.url, office, uart)
            async with started(GATEWAY, "run", "--config", config):
                found = await laterne("verify", "--broker", broker.url, "--count", 2, "--authority", office, "--json")
            assert (found["ok"], found["reports_verified"]) == (True, 2)
            # The same command again: nothing to do, which the board can only say over its line.
            again = await laterne(*flash, *enrolling)
            assert (again["written"], again["files"], again["board"]["already"]) == (0, None, True)
            log = authorities.open_authority(office).log
            assert interpreters.newest(log) == {"LE-0001": done["interpreter"]}, "for the canaries of a campaign"
            await run(*LATERNE, "audit", "verify", "--authority", office)


def _flash(board: "EmulatedBoard", release: Release) -> steps.Flashed:
    return steps.flashed(str(board.usb.path), release, None, {"report_s": 5}, lambda _: None)


async def test_a_board_that_runs_is_stopped_and_found_right(emulated_boards: "Benches") -> None:
    board = (await emulated_boards(blank=True)).boards[NAME]
    release = release_tool.release(image.find_firmware())
    done = await asyncio.to_thread(_flash, board, release)
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print("waiting for enrolment")
    # Now firmware and watchdog run: it is stopped for the next time, and nothing has to be written.
    lives = len(board.lives)
    again = await asyncio.to_thread(_flash, board, release)
    assert (again.written.written, again.written.files) == (0, done.written.files)
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print("start 2 by reset")
    assert {life.ending for life in board.lives[lives:]} == {Ending.RESET}


async def test_a_flash_as_slow_as_they_come_is_waited_for(emulated_boards: "Benches") -> None:
    # A program for the board renames some fifty files; what it says after each keeps mpremote waiting.
    board = (await emulated_boards(blank=True)).boards[NAME]
    release = release_tool.release(image.find_firmware())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("laterne_provisioning.flashing.repl.ANSWER_WITHIN_S", 0.5)
        board.flash.timing = FlashTiming(erase_ms=10.0)
        done = await asyncio.to_thread(_flash, board, release)
    assert done.written.written == done.written.files - 1


async def test_a_killed_command_is_given_again_away_from_the_authority(
    emulated_boards: "Benches", tmp_path: Path
) -> None:
    bench = await emulated_boards(blank=True, paced=False)
    board = bench.boards[NAME]
    office, release, key, grant = (tmp_path / name for name in ("office", "release", "key", "grant"))
    await run(*LATERNE, "init", office, "--no-passphrase")
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await run(*LATERNE, "release", "sign", release, "--authority", office)
    public, _ = await run(*LATERNE, "grant", "key", "-o", key, "--no-passphrase")
    (tmp_path / "key.jwk").write_text(public)
    await run(
        *(*LATERNE, "grant", "issue", "--technician", "M. Lindqvist", "--key", tmp_path / "key.jwk", "--site", "quay"),
        *("--ids", "LE-01*", "--number", 2, "--authority", office, "-o", grant),
    )
    office.rename(tmp_path / "far away")
    flash = (
        *("flash", board.usb.path, "--release", release, "--grant", grant, "--technician-key", key, "--json"),
        *("--id", "LE-0101", "--post", "Quay-3", "--line", bench.lines[NAME].path),
    )
    for operations in (200, 600):
        process = await asyncio.create_subprocess_exec(*LATERNE, *map(str, flash), stderr=subprocess.PIPE)
        until = board.flash.count.operations + operations
        while process.returncode is None and board.flash.count.operations < until:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        assert process.returncode is None, "it was to be killed before it was done"
        process.kill()
        await process.communicate()
    done = await laterne(*flash)
    assert 0 < done["written"] < done["files"] - 1, "what was right already was not written again"
    assert (done["board"]["id"], done["board"]["post"], done["board"]["already"]) == ("LE-0101", "Quay-3", False)
    merged = await laterne(
        "grant", "merge", grant.with_suffix(".journal"), "--authority", tmp_path / "far away", "--json"
    )
    assert (merged["merged"], merged["refused"]) == (1, 0)


async def test_another_release_leaves_nothing_of_the_one_before(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={})
    board = bench.boards[NAME]
    await board.power_off()
    files = image.firmware_files(image.find_firmware())
    other = {"a/laterne_firmware/app.py": b"1/0", "b/x/y.mpy": b"old", "b/M": b"old", "notes.txt": b"a technician's"}
    image.build(board.flash.image, {**files, **other, "pins.mpy": b"another board's"})
    await board.power_on()
    release = release_tool.release(image.find_firmware())
    done = await asyncio.to_thread(_flash, board, release)
    assert done.written.written == 2, "the pins and the settings"
    async with asyncio.timeout(WITHIN_S):
        await board.usb.wait_for_print("waiting for enrolment")
    await board.power_off()
    held = image.contents(board.flash.image)
    assert held["/pins.mpy"] == files["pins.mpy"]
    assert not set(held) & {f"/{path}" for path in other if "/" in path}
    assert "/notes.txt" in held
    assert not any(path.startswith("/b/") for path in held)


async def test_a_board_that_cannot_have_the_release_is_left_as_it_is(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(files={"k/credential.0": b"somebody's"})
    board = bench.boards[NAME]
    release = release_tool.release(image.find_firmware())
    before = board.flash.count.operations
    changes: list[tuple[dict[str, object], str]] = [
        ({"abi": 5}, "ABI 5.*pip install"),
        ({"interpreters": (12400, 12799)}, "it is 1.29.0.*pip install"),
        ({}, "is enrolled"),
    ]
    for change, words in changes:
        former = {name: getattr(release.head, name) for name in change}
        vars(release.head).update(change)
        try:
            with pytest.raises(OperatorError, match=words):
                await asyncio.to_thread(_flash, board, release)
        finally:
            vars(release.head).update(former)
    assert board.flash.count.operations == before


async def test_what_is_read_back_otherwise_is_never_started(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(blank=True)
    board = bench.boards[NAME]
    wanted = layout.layout(release_tool.release(image.find_firmware()), "emulated")

    def write() -> None:
        with Repl(str(board.usb.path)) as repl:
            writing.stopped(repl)

            def progress(done: int, whole: int) -> None:
                if done == whole:
                    repl.run("f=open('/r/app.mpy','ab')\nf.write('x')\nf.close()")

            writing.write(repl, wanted, progress)

    with pytest.raises(OperatorError, match=r"/r/app\.mpy was read back"):
        await asyncio.to_thread(write)
    await board.power_off()
    assert "/main.py" not in image.names(board.flash.image)
