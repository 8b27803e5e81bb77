"""What a technician does with a board, and nothing that only an emulated one can do.

    pytest hil_tests/test_a_board_on_a_usb_port.py --board /dev/ttyACM0 --board-line /dev/ttyUSB0

takes a real board that is not enrolled, and the adapter on its UART; README.md says what is done to it. Without
--board it is an emulated one. test_a_rig_with_two_ports_runs_the_tests_of_a_board.py gives the options in CI.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.servers import Mosquitto
from tests.typed import GATEWAY, LATERNE, gateway_config, laterne, run, started

from laterne_emulator import image, release_tool

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches

WITHIN_S = 180.0  # a real board's flash may take 400 ms for each of 220 erases; it closes a report each minute
SETTINGS = b'{"report_s": 5}'  # of the emulated board: it lies there, as on a real one, and no test writes it
FASTER_PPM = 3_000_000  # an emulated board's seconds are a quarter of ours


class Ports(NamedTuple):
    """usb: of a board that nobody has enrolled. line: to its UART; None: no adapter of a real board was named."""

    usb: Path
    line: Path | None


class Workshop(NamedTuple):
    """A throw-away authority, the release that it has signed, and the command that flashes the board with it."""

    office: Path
    flash: list[object]


@pytest.fixture(scope="module")
def given(request: pytest.FixtureRequest) -> Ports | None:
    """The real board that the options name; it is refused if it is in service. None: they name none."""
    usb, line = request.config.getoption("--board"), request.config.getoption("--board-line")
    if usb is None:
        return None
    # Nothing is sent to a board in service: doctor only listens to it.
    command = [*LATERNE, "board", "doctor", usb, "--json"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if not asked.stdout.startswith("{"):
        pytest.fail(asked.stdout + asked.stderr)
    found = json.loads(asked.stdout)
    broken = {one["about"] for one in found["findings"] if one["verdict"] == "broken"}
    if found["enrolled"] or broken & {"REPL", "board"}:
        pytest.fail(f"{found['board'] or 'The board'} on {usb} is in service, or tells nothing: it was left alone")
    return Ports(Path(usb), None if line is None else Path(line))


@pytest.fixture
async def board(given: Ports | None, emulated_boards: "Benches") -> Ports:
    if given is not None:
        return given
    bench = await emulated_boards(files={"settings.json": SETTINGS}, paced=False, powered=False)
    bench.boards["board-01"].clock_ppm = FASTER_PPM
    await bench.power_on()
    return Ports(bench.boards["board-01"].usb.path, bench.lines["board-01"].path)


@pytest.fixture
async def workshop(board: Ports, tmp_path: Path) -> Workshop:
    office, release = tmp_path / "office", tmp_path / "release"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    return Workshop(office, ["flash", board.usb, "--release", release, "--authority", office, "--json"])


async def findings(board: Ports) -> tuple[dict[str, Any], dict[str, str]]:
    """What doctor says of a board of which nothing is broken: all of it, and the verdicts alone."""
    found = await laterne("board", "doctor", board.usb, "--json", within_s=WITHIN_S)
    verdicts = {one["about"]: one["verdict"] for one in found["findings"]}
    assert set(verdicts.values()) <= {"ok", "look at"}, found
    return found, verdicts


async def watched(board: Ports) -> dict[str, Any]:
    """The next state that the board tells."""
    told = (await run(*LATERNE, "board", "watch", board.usb, "--count", 1, within_s=WITHIN_S))[0].splitlines()
    state: dict[str, Any] = json.loads(told[-1])
    return state


async def test_a_board_is_flashed_twice_and_tells_how_it_is(board: Ports, workshop: Workshop) -> None:
    first = await laterne(*workshop.flash, within_s=WITHIN_S)
    again = await laterne(*workshop.flash, within_s=WITHIN_S)
    assert (again["written"], again["files"], again["model"]) == (0, first["files"], first["model"])
    assert all(reading["value"] is not None for reading in again["readings"])
    state = await watched(board)
    assert (state["release"], state["slot"], state["enrolled"]) == (first["version"], "a", False)


async def test_a_command_that_is_killed_on_its_way_is_given_again(board: Ports, workshop: Workshop) -> None:
    progress, told = os.openpty()  # on a terminal it tells how far it is
    os.set_blocking(progress, False)
    process = await asyncio.create_subprocess_exec(
        *LATERNE, *map(str, workshop.flash), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told
    )
    os.close(told)
    heard, said = asyncio.Event(), bytearray()

    def hear() -> None:
        try:
            said.extend(os.read(progress, 65536))
        except OSError:  # EIO: it has ended
            asyncio.get_running_loop().remove_reader(progress)
        if b"Writing release" in said:
            heard.set()

    asyncio.get_running_loop().add_reader(progress, hear)
    try:
        async with asyncio.timeout(WITHIN_S):
            await heard.wait()
        process.kill()
        await process.wait()
    finally:
        asyncio.get_running_loop().remove_reader(progress)
        os.close(progress)
        if process.returncode is None:
            process.kill()
            await process.wait()
    done = await laterne(*workshop.flash, within_s=WITHIN_S)
    assert done["files"] > 100
    assert not (await findings(board))[0]["enrolled"]


@contextlib.asynccontextmanager
async def in_service(board: Ports, workshop: Workshop, label: Path) -> AsyncIterator[str]:
    """Its id. However the block ends, the board is taken out of service: by the order, and no line is needed."""
    name, order = f"TEST-{secrets.token_hex(4)}", workshop.office.with_name("end.order")
    enrolling = ("--id", name, "--line", board.line, "--label", label)
    try:
        done = await laterne(*workshop.flash, *enrolling, within_s=WITHIN_S)
        assert (done["board"]["id"], done["board"]["state"]) == (name, "enrolled")
        yield name
    finally:
        end = ("board", "decommission", name, "--authority", workshop.office)
        await laterne(*end, "--reason", "a test", "--give-up-backlog", "-o", order)
        again = await laterne(*workshop.flash, "--order", order, within_s=2 * WITHIN_S)
        assert again["files"] > 100, "it has a REPL again"
        ended = await laterne(*end, "--receipt", order.with_suffix(".receipt"), "--json")
        assert ended["state"] == "decommissioned"


async def test_a_board_serves_and_is_a_new_one_after_the_operators_order(
    board: Ports, workshop: Workshop, tmp_path: Path
) -> None:
    if board.line is None:
        pytest.skip("it takes the adapter on the board's UART: --board-line PORT")
    label = tmp_path / "label.svg"
    with Mosquitto(tmp_path / "broker") as broker:
        async with in_service(board, workshop, label) as name:
            assert b"</svg>" in label.read_bytes()
            config = await gateway_config(tmp_path, broker.url, workshop.office, board.line)
            verify = ("verify", "--broker", broker.url, "--count", 1, "--authority", workshop.office, "--json")
            async with started(GATEWAY, "run", "--config", config), asyncio.TaskGroup() as both:
                state = both.create_task(watched(board))
                verified = await laterne(*verify, within_s=WITHIN_S)
                assert (verified["ok"], verified["reports_verified"]) == (True, 1)
                assert ((await state)["board"], (await state)["enrolled"]) == (name, True)
                told, verdicts = await findings(board)
                assert (told["board"], told["enrolled"]) == (name, True)
                assert verdicts | dict.fromkeys(("release", "REPL", "line", "backlog", "key"), "ok") == verdicts
