"""`laterne flash --batch`: boards are flashed and enrolled as they are plugged in; it may be stopped, one may fail."""

import asyncio
import itertools
import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.typed import LATERNE, WITHIN_S, begun, ended, laterne

from laterne_emulator import image, release_tool
from laterne_provisioning.errors import UsageError
from laterne_provisioning.flashing import arrivals, box
from laterne_provisioning.flashing.arrivals import Arrivals

if TYPE_CHECKING:
    from laterne_emulator.bench import Bench
    from laterne_emulator.pytest_plugin import Benches

TABLE = "id;post;latitude;longitude\nLE-0007;P-7;48,1374;11,5755\nLE-0003;P-3;;\n"


async def told(process: asyncio.subprocess.Process, text: str) -> None:
    """Returns when it has said that on stderr."""
    assert process.stderr is not None
    async with asyncio.timeout(WITHIN_S):
        while text not in (line := (await process.stderr.readline()).decode()):
            assert line, "it has ended"


async def test_a_box_with_a_broken_board_is_done_in_two_goes(emulated_boards: "Benches", tmp_path: Path) -> None:
    bench: Bench = await emulated_boards(boards=3, blank=True, paced=False, powered=False)
    first, second, broken = bench.boards.values()
    image.build(broken.flash.image, {"k/credential.0": b"somebody's"})  # a board that must not be flashed
    office, release, table = tmp_path / "office", tmp_path / "release", tmp_path / "box.csv"
    label = tmp_path / "labels.pdf"
    table.write_text(TABLE)
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    command = (
        *("flash", "--batch", "--release", release, "--authority", office, "--csv", table, "--json"),
        *("--port-from", bench.folder / "*" / "usb", "--line", bench.folder / "*" / "uart", "--label", label),
    )
    await first.power_on()
    async with begun(*LATERNE, *command) as process:
        await told(process, "LE-0007 enrolled")
        await broken.power_on()  # the next one is plugged in while the command waits
        await told(process, "failed")
        process.send_signal(signal.SIGINT)  # the technician goes home
        done = json.loads((await ended(process, code=130))[0])
    assert [(row["id"], row["result"]) for row in done["rows"]] == [
        ("LE-0007", "enrolled"), (None, "failed"),
    ]  # fmt: skip
    assert done["open"] == ["LE-0003"]
    assert label.read_bytes().startswith(b"%PDF")
    # The next day: the same command with the same boards, and a good one in place of the broken one.
    await broken.power_off()
    async with begun(*LATERNE, *command) as process:
        await told(process, "already")
        await second.power_on()
        again = json.loads((await ended(process))[0])
    assert (again["enrolled"], again["already"], again["failed"], again["open"]) == (1, 1, 0, [])
    assert again["rows"][-1]["id"] == "LE-0003"
    boards = await laterne("board", "list", "--json", "--authority", office)
    assert {one["id"]: (one["state"], one["post"], one["hardware"]) for one in boards} == {
        "LE-0007": ("enrolled", "P-7", first.unique_id.hex()),
        "LE-0003": ("enrolled", "P-3", second.unique_id.hex()),
    }


async def test_the_line_of_another_board_is_noticed(emulated_boards: "Benches", tmp_path: Path) -> None:
    bench: Bench = await emulated_boards(boards=2, paced=False)
    office, release = tmp_path / "office", tmp_path / "release"
    release.write_bytes(release_tool.release(image.find_firmware()).to_bytes())
    await laterne("init", office, "--no-passphrase")
    await laterne("release", "sign", release, "--authority", office)
    flash = ("flash", bench.boards["board-01"].usb.path, "--release", release, "--authority", office)
    errors = await laterne(*flash, "--id", "LE-0001", "--line", bench.lines["board-02"].path, code=1)
    assert "is another" in errors
    # An id that another chip has is refused before anything is written, and so is one that is used up.
    before = bench.boards["board-01"].flash.count.operations
    lives = len(bench.boards["board-01"].lives)
    rest = ("--id", "LE-0001", "--line", bench.lines["board-01"].path)
    assert "belongs to another board" in await laterne(*flash, *rest, code=1)
    await laterne("board", "revoke", "LE-0001", "--reason", "a trial", "--authority", office)
    assert "under a new id" in await laterne(*flash, *rest, code=1)
    assert bench.boards["board-01"].flash.count.operations == before
    assert len(bench.boards["board-01"].lives) == lives, "it was not even stopped"


def test_ids_are_counted_as_they_are_written() -> None:
    assert [row.board for row in box.counted("LE-0998", 4)] == ["LE-0998", "LE-0999", "LE-1000", "LE-1001"]
    with pytest.raises(UsageError, match="LE 0007"):
        box.counted("LE 0007", 1)
    with pytest.raises(UsageError, match="ends in no number"):
        box.counted("LE", 3)


def test_what_a_star_stands_for_is_put_into_the_line() -> None:
    of = box.lines_for("/dev/bench-*-usb", "/dev/bench-*-line")
    assert of("/dev/bench-12-usb") == "/dev/bench-12-line"
    assert box.lines_for(None, "/dev/ttyUSB0")("/dev/ttyACM3") == "/dev/ttyUSB0"
    with pytest.raises(UsageError, match="one --port-from"):
        box.lines_for(None, "/dev/bench-*-line")


def test_a_port_that_vanishes_for_a_moment_is_the_same_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(arrivals, "GONE_AFTER_S", 2.5)
    clock = itertools.count()  # a second at each look
    looks = iter([["A"], [], ["A", "B"], ["B"], ["B"], ["B"], ["B"], ["A", "B"]])
    over = threading.Event()

    def look() -> list[str]:
        found = next(looks, None)
        if found is None:
            over.set()
            return ["A", "B"]
        return found

    with Arrivals(look, lambda: float(next(clock))) as came:
        assert over.wait(WITHIN_S)
        assert [came.next(0.01) for _ in range(4)] == ["A", "B", "A", None]


def test_what_cannot_be_looked_at_ends_the_box() -> None:
    def look() -> list[str]:
        raise OSError("no USB here")

    with Arrivals(look) as came, pytest.raises(OSError, match="no USB"):
        came.next(WITHIN_S)


def test_waiting_for_a_board_is_no_work() -> None:
    looks = 0

    def look() -> list[str]:
        nonlocal looks
        looks += 1
        return []

    with Arrivals(look) as came:
        assert came.next(1.0) is None
    assert 1 <= looks <= 1.0 / arrivals.LOOK_AGAIN_S + 2, "it looks a few times a second, also where there is nothing"
