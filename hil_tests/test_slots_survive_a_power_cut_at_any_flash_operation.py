"""P4 on the board: the power fails at every flash operation of a trial, from its arming to its end, and of a rescue.

After each cut the image is read from outside (littlefs-python, its own digests): both slots are whole and the record is
one of those between the old and the new. Then the power comes back, and perhaps goes again: every start runs a whole
release or the rescue, and the end is the one that the scenario has without a cut. The releases are small and do all of
it by themselves; campaigns, with the installer, have a file of their own.
"""

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from laterne_emulator import cut_sweep, image, slot_reading
from laterne_emulator.cut_sweep import Life
from laterne_emulator.flash import Cut, Torn
from laterne_emulator.slots import Record, Release
from laterne_emulator.small_releases import (
    ABANDONS,
    CONFIRMS,
    CRASHES,
    NOTHING,
    arms,
    board_files,
    release,
)

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

BLOCKS = 64
WITHIN_S = 20.0  # a bound for what would hang
DAMAGED, UNSUITABLE, CRASHED, POWER_FAILED, ABANDONED = 1, 2, 3, 4, 5
RESCUE = release("RESCUE", NOTHING, 1)
GOOD = release("NEW", CONFIRMS, 8)
BAD = release("NEW", CRASHES, 8)
WITHDRAWN = release("NEW", ABANDONS, 8)
FOREIGN = release("NEW", CONFIRMS, 8, abi=5)
OLD = release("OLD", NOTHING, 7)


def armed(new: Release) -> tuple[Release, Record]:
    """A board that will arm `new` in slot b by itself."""
    old = release("OLD", arms("b", new), 7)
    return old, Record("a", floor=7, slots={"a": old.entry, "b": new.entry}, confirmed=("a",))


def ended(of: Record, result: tuple[int, bytes], refused: bool = True) -> Record:
    return replace(of, trial=None, attempts=0, power_ons=0, result=result, refused=result[1] if refused else None)


@dataclass(frozen=True)
class Scenario:
    """a, b: what is in the slots. record: before. end: the record when it is over; runs: what runs then, from where.

    damaged: a path in which a byte is wrong. ways: in how many ways each operation is cut.
    """

    a: Release
    b: Release
    record: Record
    end: Record
    runs: str
    damaged: str = ""
    ways: float = 2.0

    def image(self, place: Path) -> Path:
        files = board_files(self.a, self.b, self.record, RESCUE)
        if self.damaged:
            content = bytearray(files[self.damaged])
            content[len(content) // 2] ^= 1
            files[self.damaged] = bytes(content)
        image.build(place, files, BLOCKS)
        return place


def scenarios() -> dict[str, Scenario]:
    made = {}
    old, before = armed(GOOD)
    made["arming, trial, confirmation"] = Scenario(
        old, GOOD, before, replace(before, active="b", floor=8, confirmed=("a", "b")), "NEW NEW from /b"
    )
    old, before = armed(BAD)
    made["a release that crashes"] = Scenario(old, BAD, before, ended(before, (CRASHED, BAD.digest)), "OLD OLD from /a")
    old, before = armed(WITHDRAWN)
    made["a trial that an order ends"] = Scenario(
        old, WITHDRAWN, before, ended(before, (ABANDONED, WITHDRAWN.digest), refused=False), "OLD OLD from /a"
    )
    old, before = armed(FOREIGN)
    made["bytecode of another interpreter"] = Scenario(
        old, FOREIGN, before, ended(before, (UNSUITABLE, FOREIGN.digest)), "OLD OLD from /a"
    )
    old, before = armed(GOOD)
    made["a trial whose slot is damaged"] = Scenario(
        old, GOOD, before, ended(before, (DAMAGED, GOOD.digest)), "OLD OLD from /a", "b/part.mpy"
    )
    # The slot of the older release is used again, and its release was confirmed once.
    new = release("NEW", CONFIRMS, 9)
    former = release("OLD", arms("a", new), 8)
    before = Record("b", floor=8, slots={"a": OLD.entry, "b": former.entry}, confirmed=("a", "b"))
    end = replace(before, active="a", floor=9, confirmed=("b", "a"), slots={"a": new.entry, "b": former.entry})
    made["the other way round"] = Scenario(new, former, before, end, "NEW NEW from /a")
    both = {"a": OLD.entry, "b": GOOD.entry}
    before = Record("b", floor=8, slots=both, confirmed=("a", "b"))
    made["the active slot is damaged, the other one proven"] = Scenario(
        OLD, GOOD, before, replace(before, active="a", result=(DAMAGED, GOOD.digest)), "OLD OLD from /a",
        "b/laterne_protocol/cbor.mpy",
    )  # fmt: skip
    crashing = release("OLD", CRASHES, 7)
    before = Record("a", attempts=8, floor=7, slots={"a": crashing.entry}, confirmed=("a",))
    made["the active release crashes again and again"] = Scenario(
        crashing, GOOD, before, before, "RESCUE RESCUE from /r", ways=0.2
    )
    return made


SCENARIOS = scenarios()


class Kept:
    """What holds in a scenario, and at its end."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._whole = {f"{name} {name} from {path}" for name in ("OLD", "NEW") for path in ("/a", "/b")}

    def at_any_time(self, found: Mapping[str, bytes], where: str) -> None:
        scenario = self.scenario
        record = slot_reading.record_in(found)
        assert record is not None, f"{where}: the record is lost"
        assert record.floor in (scenario.record.floor, scenario.end.floor), where
        assert (record.floor == scenario.end.floor) == (record.active == scenario.end.active) or (
            scenario.record.floor == scenario.end.floor
        ), f"{where}: the floor rises with the switch"
        for slot, kept in (("a", scenario.a), ("b", scenario.b)):
            if not scenario.damaged.startswith(slot):
                slot_reading.require_whole_in(found, slot, kept)

    def at_the_end(self, found: Mapping[str, bytes], life: Life, where: str) -> None:
        self.at_any_time(found, where)
        self.ran(life, where)
        assert life.is_done, f"{where}: {life.printed}"
        assert life.runs[-1] == self.scenario.runs, f"{where}: {life.printed}"
        record = slot_reading.record_in(found)
        assert record is not None
        end = self.scenario.end
        # What a trial's end by an order leaves: the start after it counts for the active release, if no power began it.
        assert record.attempts == end.attempts or (end.attempts, record.attempts) == (0, 1), where
        assert replace(record, attempts=end.attempts) == end, f"{where}: {record}"

    def ran(self, life: Life, where: str) -> None:
        damaged = self.scenario.damaged
        for run in life.runs:
            assert run in self._whole | {self.scenario.runs}, f"{where}: {run}"
            assert not damaged or not run.endswith(f"from /{damaged[0]}"), where


async def a_board(emulated_boards: "Benches", scenario: Scenario, before: Path) -> "EmulatedBoard":
    """A board that is off, with the scenario's image, which is in `before`, too."""
    scenario.image(before)
    bench = await emulated_boards(files={"boot.py": b""}, powered=False, blocks=BLOCKS)
    board = bench.boards["board-01"]
    shutil.copy(before, board.flash.image)
    return board


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_cut_at_any_flash_operation_leaves_a_whole_release_that_runs(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", name: str, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    board = await a_board(emulated_boards, scenario, tmp_path / "before.img")
    await cut_sweep.sweep(board, Kept(scenario), fault_sweep, "board, slots", scenario.ways)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_power_that_is_really_taken_three_times_in_a_row_changes_nothing_of_that(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", name: str, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    before = tmp_path / "before.img"
    board = await a_board(emulated_boards, scenario, before)
    judge = Kept(scenario)
    whole = await cut_sweep.goes_on(board, before.read_bytes(), judge, "without a cut")
    for case in fault_sweep("board, slots, cut three times", quick=12):
        with case:
            shutil.copy(before, board.flash.image)
            cuts = [case.dice.randrange(len(whole.operations)), *(case.dice.randrange(10) for _ in range(2))]
            where = f"cuts at operations {cuts}"
            for at in cuts:
                life = await cut_sweep.live(board, Cut(at, case.dice.choice(list(Torn)), case.seed + at))
                judge.ran(life, where)
                judge.at_any_time(image.contents(board.flash.image), where)
            await cut_sweep.goes_on(board, board.flash.image.read_bytes(), judge, where)
            case.survived()


async def start(board: "EmulatedBoard", until: str, cut: Cut | None = None) -> bool:
    """Gives power until the firmware says so, or until the cut; whether it has said so. The board is off afterwards."""
    async with asyncio.timeout(WITHIN_S):
        await board.power_on(cut)
        down = asyncio.create_task(board.wait_until_down())
        said = asyncio.create_task(board.usb.wait_for_print(until))
        await asyncio.wait([down, said], return_when=asyncio.FIRST_COMPLETED)
        has_said = said.done()
        said.cancel()
        await board.power_off()
        await down
    return has_said


async def test_a_cut_at_any_write_of_the_firmware_itself_while_it_is_tried_leaves_both_slots_whole(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", tmp_path: Path
) -> None:
    files = image.firmware_files(image.find_firmware()) | {"k/name.0": b"a board that is enrolled"}
    built = Record.of(files["slot.0"])
    assert built is not None
    held = Release({path[2:]: files[path] for path in files if path.startswith("a/") and path not in ("a/M", "a/E")})
    new = replace(held, sequence=2, version="0.2.0")
    record = replace(built, trial="b", slots={**built.slots, "b": new.entry})
    bench = await emulated_boards(files=files | new.in_slot("b") | record.files(), powered=False)
    board = bench.boards["board-01"]
    before = tmp_path / "before.img"
    shutil.copy(board.flash.image, before)
    for case in fault_sweep("board, slots"):
        with case:
            shutil.copy(before, board.flash.image)
            cut = Cut(case.number, case.dice.choice(list(Torn)), case.seed)
            finished = await start(board, "keys made", cut)  # the last thing that a new board writes
            assert await start(board, "by power-on")
            assert "slot b is tried" in board.usb.printed()
            found = slot_reading.record(board.flash.image)
            assert found is not None
            assert replace(found, power_ons=0) == record, f"cut at operation {case.number}"
            assert found.power_ons in (1, 2)
            slot_reading.require_whole(board.flash.image, "b", new)
            contents = image.contents(board.flash.image)
            assert all(contents[f"/{path}"] == files[path] for path in files if path.startswith(("a/", "l/", "r/")))
            case.survived()
            if finished:
                assert case.number > 30
                return
