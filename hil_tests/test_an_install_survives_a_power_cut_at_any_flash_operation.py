"""P4 on the board: the power fails at every flash operation of an install, in five ways, and it still ends well.

One install is recorded, operation by operation; from that are made all images that a cut can leave. Each is read from
outside (littlefs-python, its own digests) and then given to a board that goes on: the running slot is untouched, and a
slot with an index is whole, whatever was cut.
"""

import asyncio
import itertools
import random
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.firmware.release_end import SignedRelease, assert_whole
from tests.gateway.fake_authority import Key

from laterne_emulator import image
from laterne_emulator.flash import BLOCK_BYTES, PAGE_BYTES, Cut, Torn, torn_erase, torn_program
from laterne_gateway import patches
from laterne_protocol import cbor, manifest_writing

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

MAIN = Path(__file__).parent / "firmware_for_tests" / "installing.py"
HEAP_BYTES = 256 * 1024
BLOCKS = 176
QUICK = 60
WITHIN_S = 20.0  # a bound for what would hang
SAME, CHANGED, NEW = bytes(range(200)) * 6, bytes(range(256)) * 20, b"a new file " * 900
OLD_RELEASE = SignedRelease({"old/gone.mpy": b"gone" * 300, "changed.mpy": b"older" * 100}, "0.1.0", sequence=1)
RELEASE = SignedRelease(
    {
        "changed.mpy": CHANGED[:3000] + b"other" + CHANGED[3005:],
        "deep/er/new.mpy": NEW,
        "empty.mpy": b"",
        "same.mpy": SAME,
    },
    "0.2.0",
    sequence=2,
)


def files(firmware: Path | None = None, release: SignedRelease = RELEASE) -> dict[str, bytes]:
    """A board that runs slot a, has an older release in slot b, and all codes of the next one in /x."""
    made = image.firmware_files(firmware or image.find_firmware(), short=False)
    kept = {path: content for path, content in made.items() if path.startswith(("a/", "boot"))}
    kept |= {"main.py": MAIN.read_bytes(), "a/same.mpy": SAME, "a/changed.mpy": CHANGED}
    kept |= OLD_RELEASE.in_slot("b") | {"b/old/stale.mpy": b"in no index", "b/M.n": b"half an index of another"}
    about = [release.signed_by(Key()), sha256(release.index).digest(), len(release.index)]
    kept["x/about"] = cbor.encode(about)
    for item in range(1, 2 + len(release.files)):
        content = release.item(item)
        base = patches.Base(CHANGED) if item > 1 and release.paths[item - 2] == "changed.mpy" else None
        for block in range((len(content) + BLOCK_BYTES - 1) // BLOCK_BYTES):
            piece = content[block * BLOCK_BYTES :][:BLOCK_BYTES]
            encoding, code = patches.encoded(piece, block, base)
            kept[f"x/{item}-{block}"] = bytes([encoding]) + code
    return kept


async def live(board: "EmulatedBoard") -> list[str]:
    """What one life says."""
    (board.folder / "console.log").unlink(missing_ok=True)
    async with asyncio.timeout(WITHIN_S):
        await board.power_on()
        await board.usb.wait_for_print("done")
        await board.power_off()
    return board.usb.printed().splitlines()


async def recorded(board: "EmulatedBoard") -> list[bytes]:
    """The images before each flash operation of an install that nothing cuts, and the one after the last."""
    images: list[bytes] = []
    begins = board.flash.begins

    def watched() -> tuple[Cut | None, bool]:
        images.append(board.flash.image.read_bytes())
        return begins()

    vars(board.flash)["begins"] = watched
    said = await live(board)
    assert "ended 0" in said, said
    del vars(board.flash)["begins"]
    return [*images, board.flash.image.read_bytes()]


def torn(before: bytes, after: bytes, kind: Torn, seed: int) -> bytes:
    """The image that an operation leaves which the power cuts, made of the images before and after it."""
    first = next(
        (at for at in range(0, len(before), PAGE_BYTES) if before[at:][:PAGE_BYTES] != after[at:][:PAGE_BYTES]), None
    )
    if first is None:
        return before
    block = first // BLOCK_BYTES * BLOCK_BYTES
    cut = Cut(0, kind, seed)
    if after[block : block + BLOCK_BYTES] == b"\xff" * BLOCK_BYTES:
        return before[:block] + torn_erase(before[block : block + BLOCK_BYTES], cut) + before[block + BLOCK_BYTES :]
    page = torn_program(before[first : first + PAGE_BYTES], after[first : first + PAGE_BYTES], cut)
    return before[:first] + page + before[first + PAGE_BYTES :]


def states(images: list[bytes], seed: int) -> Iterator[bytes]:
    """All different images that a cut in this install can leave."""
    seen = set()
    for number, (before, after) in enumerate(itertools.pairwise(images)):
        for kind in (Torn.CLEAN, Torn.HEAD, Torn.TAIL, Torn.RANDOM_BITS, Torn.HALF_ERASED):
            made = torn(before, after, kind, seed + number)
            digest = sha256(made).digest()
            if digest not in seen:
                seen.add(digest)
                yield made


def slot(everything: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {path[3:]: content for path, content in everything.items() if path.startswith(f"/{name}/")}


def assert_no_index_of_a_slot_that_is_not_whole(everything: dict[str, bytes]) -> None:
    """The index is read with the protocol's code for the authority; no digest is the board's."""
    found = slot(everything, "b")
    if "M" not in found:
        return
    _, entries = manifest_writing.index_of(found["M"])
    for path, size, digest in entries:
        assert len(found.get(path, b"")) == size, path
        assert sha256(found[path]).digest() == digest, path


async def test_an_install_that_is_cut_comes_to_its_end(emulated_boards: "Benches", fault_sweep: "FaultSweeps") -> None:
    bench = await emulated_boards(files=files(), powered=False, heap_bytes=HEAP_BYTES, blocks=BLOCKS)
    board = bench.boards["board-01"]
    running = slot(image.contents(board.flash.image), "a")
    images = await recorded(board)
    assert_whole(board, RELEASE)
    sweep = fault_sweep("an install is cut", quick=QUICK)
    possible = list(states(images, sweep.seed))
    assert len(possible) > 250
    dice = random.Random(sweep.seed)
    dice.shuffle(possible)  # a quick run takes some of every kind, a long one all
    for case in sweep:
        state = possible[case.number % len(possible)]
        with case:
            board.flash.image.write_bytes(state)
            cut = image.contents(board.flash.image)
            assert slot(cut, "a") == running
            assert_no_index_of_a_slot_that_is_not_whole(cut)
            assert "ended 0" in await live(board)
            after = image.contents(board.flash.image)
            assert slot(after, "a") == running
            found = slot(after, "b")
            assert found.pop("E")
            assert found == {**RELEASE.files, "M": RELEASE.index}
            case.survived()


Change = tuple[str, str]
VARIANTS: dict[str, Change] = {
    "the index is written before the files": (
        "    tries = _TRIES\n",
        '    replace(folder + "/M", open(name, "rb").read())\n    tries = _TRIES\n',
    ),
    "files are written while the old index is there": (
        '    if exists(folder + "/M"):\n        os.remove(folder + "/M")\n',
        "",
    ),
    "a file with the right size is taken for whole": (
        "                    return made.digest() == digest\n",
        "                    return True\n",
    ),
    "a stale index is taken for the new one": (
        "    for _ in range(_TRIES):\n        if (yield from _has(name, size, index)):\n            return\n",
        "    if exists(name):\n        return\n    for _ in range(_TRIES):\n",
    ),
    "what is in no index stays": ('    yield from _clear(folder, "", name)\n', ""),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_broken_installer_is_caught(
    emulated_boards: "Benches", tmp_path: Path, variant: str, board_seed: int
) -> None:
    shutil.copytree(image.find_firmware(), tmp_path / "firmware")
    source = tmp_path / "firmware" / "laterne_firmware" / "installer.py"
    text = source.read_text(encoding="utf-8")
    before, after = VARIANTS[variant]
    assert before in text
    source.write_text(text.replace(before, after), encoding="utf-8")
    bench = await emulated_boards(
        files=files(tmp_path / "firmware"), powered=False, heap_bytes=HEAP_BYTES, blocks=BLOCKS
    )
    board = bench.boards["board-01"]
    with pytest.raises(AssertionError):
        await every_state_is_judged(board, board_seed)


async def every_state_is_judged(board: "EmulatedBoard", seed: int) -> None:
    images = await recorded(board)
    assert_whole(board, RELEASE)
    for state in states(images, seed):
        board.flash.image.write_bytes(state)
        assert_no_index_of_a_slot_that_is_not_whole(image.contents(board.flash.image))
