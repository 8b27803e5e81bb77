"""The sweep of campaigns can fail: the firmware is broken in the ways in which updaters have been, and each is caught.

Numbers are those of the list in hil_tests/README.md, "Broken on purpose". Each variant is a change of the source by its
text; all run in this process, with the boards of the sweep. Those of which only a board with sessions, or the protocol,
can tell are in test_broken_variants_are_caught.py.
"""

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.firmware.known_campaigns import CAMPAIGNS, HEAP_BYTES, NEW, Whole

from laterne_emulator import cut_sweep, image
from laterne_emulator.cut_states import States
from laterne_emulator.slot_reading import NotWhole

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

MOST_STATES = 400  # of a variant's campaign; most are caught by the run without a cut, or within ten
SEED = 6

FIRST = "a release is installed, tried and confirmed"
REUSED = "the third release goes where the first one was"
CRASHES = "a release that crashes is rolled back"
RESCUED = "the rescue installs where no slot is good"
IN_A_TRIAL = "an order to stage another release during a trial"


@dataclass(frozen=True)
class Variant:
    """What is broken: in these modules of the firmware each good text becomes a bad one. campaign: what must fail.

    rots: a bit of the longest file turns over while the others come; without it the campaign is cut.
    """

    number: int
    breaks: tuple[tuple[str, str, str], ...]
    campaign: str = FIRST
    rots: bool = False


TRIAL_OPEN = "        _refuse_if(state.trial is not None, receipt.TRIAL_OPEN)\n"
INDEX = '    os.rename(name, folder + "/M")\n'
VARIANTS = {
    "a trial is not counted before its import": Variant(
        1, (("loader", "        state.save()\n        entry =", "        entry ="),), CRASHES
    ),
    "the index is written before the files": Variant(
        2,
        (
            (
                "installer",
                "    tries = _TRIES\n",
                '    with open(name, "rb") as index_file, open(folder + "/M", "wb") as file:\n'
                "        file.write(index_file.read())\n    tries = _TRIES\n",
            ),
        ),
    ),
    # What the index does not name goes anyway, and the old index with it; but folders first.
    "files go while the old index is there": Variant(
        2, (("installer", '    if exists(folder + "/M"):\n        os.remove(folder + "/M")\n', ""),)
    ),
    "the floor applied to a confirmed slot": Variant(
        3,
        (
            (
                "loader",
                "    if not _check(state, active, None):",
                "    if state.slots[active][2] >= state.floor and not _check(state, active, None):",
            ),
        ),
        CRASHES,
    ),
    "files come by a rename from another folder": Variant(
        4,
        (
            (
                "installer",
                "                yield from _receive(here, FIRST_FILE",
                '                yield from _receive(folder + "/part", FIRST_FILE + number, size, base, source)\n'
                '                os.rename(folder + "/part", here)\n'
                "                if False:\n                    yield from _receive(here, FIRST_FILE",
            ),
        ),
    ),
    "the slot that runs is written": Variant(
        5, (("updating", '        self.slot = "" if target == runs else target\n', "        self.slot = runs\n"),)
    ),
    "what is there from before the cut is believed by its size": Variant(
        6, (("installer", "                    return made.digest() == digest\n", "                    return True\n"),)
    ),
    "room is not judged before the old release goes": Variant(
        7,
        (("installer", "    if not begun and blocks > free_blocks() + _held(folder):\n", "    if not blocks:\n"),),
        "a release for which there is no room is not installed",
    ),
    "room is judged again when an install goes on": Variant(
        7, (("installer", "    if not begun and blocks >", "    if blocks >"),), REUSED
    ),
    "room without an end where there is none": Variant(
        7,
        (("store", "    return status[3] if status[3] <= status[2] else 0\n", "    return status[3]\n"),),
        "a release for which there is no room is not installed",
    ),
    "a confirmation that does not raise the floor": Variant(
        10, (("slots", "        self.floor = max(self.floor, self.slots[slot][2])\n", ""),)
    ),
    "the switch and the floor in two commits": Variant(
        10,
        (
            (
                "slots",
                "        self.floor = max(self.floor, self.slots[slot][2])\n",
                "        self.save()\n        self.floor = max(self.floor, self.slots[slot][2])\n",
            ),
        ),
    ),
    "another release is installed during a trial": Variant(
        11,
        (
            ("release_orders", f"{TRIAL_OPEN}        _refuse_if(int", "        _refuse_if(int"),
            ("updating", "        if self._trial:\n            return TRIAL\n", ""),
            ("updating", "        target = slots.other(state.active)\n", "        target = slots.other(runs)\n"),
        ),
        IN_A_TRIAL,
    ),
    "a slot is swapped in by two renames": Variant(
        14, (("installer", INDEX, INDEX + '    os.rename(folder, "/x")\n    os.rename("/x", folder)\n'),)
    ),
    "an index of an install before is taken for the new one": Variant(
        15,
        (
            (
                "installer",
                "    for _ in range(_TRIES):\n        if (yield from _has(name, size, index)):\n            return\n",
                "    if exists(name):\n        return\n    for _ in range(_TRIES):\n",
            ),
        ),
    ),
    "what is in no index stays": Variant(15, (("installer", '    yield from _clear(folder, "", name)\n', ""),)),
    "the bytecode's ABI not checked": Variant(
        17,
        (("slot_check", "    if head.abi != MPY_ABI or head.loader", "    if head.loader"),),
        "a release for another interpreter is not installed",
    ),
    "a fallback that was never confirmed": Variant(
        20, (("loader", "    if other not in state.confirmed or _check", "    if _check"),), RESCUED
    ),
    "files are not read back from flash": Variant(
        23,
        (
            (
                "installer",
                "    while (yield from _pass(folder, running, name, tries, bits)):\n        tries -= 1\n",
                "    yield from _pass(folder, running, name, tries, bits)\n",
            ),
        ),
        rots=True,
    ),
}


def broken_firmware(variant: Variant, place: Path) -> Path:
    firmware = place / "firmware"
    shutil.copytree(image.find_firmware(), firmware, ignore=shutil.ignore_patterns("__pycache__"))
    for module, good, bad in variant.breaks:
        source = firmware / "laterne_firmware" / f"{module}.py"
        text = source.read_text()
        assert text.count(good) == 1, f"{module} has changed: say anew how to break it"
        source.write_text(text.replace(good, bad))
    return firmware


async def every_state(board: "EmulatedBoard", judge: Whole) -> None:
    whole = await cut_sweep.goes_on(board, board.flash.image.read_bytes(), judge, "without a cut", twice=True)
    for state in itertools.islice(States(whole, SEED), MOST_STATES):
        await cut_sweep.goes_on(board, state.image, judge, str(state))


async def with_a_bit_that_turns_over(board: "EmulatedBoard", judge: Whole) -> None:
    cut_sweep.turn_a_bit_over_when_it_is_there(board, NEW.files["deep/er/new.mpy"])
    life = await cut_sweep.live(board)
    judge.at_the_end(image.contents(board.flash.image), life, "a bit turned over")


@pytest.mark.parametrize("name", VARIANTS)
async def test_a_broken_update_is_caught(emulated_boards: "Benches", tmp_path: Path, name: str) -> None:
    variant = VARIANTS[name]
    campaign = CAMPAIGNS[variant.campaign]
    files = campaign.files(broken_firmware(variant, tmp_path))
    bench = await emulated_boards(
        files=files, powered=False, heap_bytes=HEAP_BYTES, blocks=campaign.blocks, boot="frozen"
    )
    look = with_a_bit_that_turns_over if variant.rots else every_state
    with pytest.raises((AssertionError, NotWhole)) as caught:
        await look(bench.boards["board-01"], Whole(campaign))
    print(caught.value.args[0][-300:])
