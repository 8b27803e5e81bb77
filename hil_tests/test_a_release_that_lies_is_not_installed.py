"""P3 on the board: releases with good signatures and bad contents. The installer's own checks, one attack each.

Whoever has the keys can sign an index that lies, and whoever holds the line can send what he likes for a file. Neither
changes a byte outside of the slot that is written; an index that lies does not even cost what lay in that slot.
"""

import asyncio
import zlib
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.firmware.release_end import SignedRelease
from tests.fuzz import mutate
from tests.gateway.fake_authority import Key

from laterne_emulator import image, slots
from laterne_emulator.board import EmulatedBoard
from laterne_gateway import patches
from laterne_protocol import cbor, manifest, release_index
from laterne_protocol.update_messages import DEFLATED, DEFLATED_PATCH, PATCH, RAW

if TYPE_CHECKING:
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

MAIN = Path(__file__).parent / "firmware_for_tests" / "installing.py"
HEAP_BYTES = 256 * 1024
BLOCKS = 176
BLOCK_BYTES = 4096  # of content
WITHIN_S = 20.0  # a bound for what would hang
WHOLE, UNFIT, TOO_LARGE, BAD_INDEX, BAD_FILE = 0, 19, 21, 22, 23
BASE = bytes(range(256)) * 20  # what the running release has under the path that is attacked
PATH = "changed.mpy"
GOOD = BASE[:3000] + b"other" + BASE[3005:]
OLD = SignedRelease({"old/kept.mpy": b"kept" * 300, PATH: b"older" * 100}, "0.1.0", sequence=1)
ABC = sha256(b"abc").digest()


@dataclass(frozen=True)
class Attack:
    """index, size: as the board gets it and as the manifest names it. digest: as the manifest does, None: the true one.

    codes: (item, start) -> size, encoding and code of the block that begins there. The index comes raw.
    """

    index: bytes
    result: int
    codes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    size: int | None = None
    digest: bytes | None = None
    others: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        size = len(self.index) if self.size is None else self.size
        about = [b"an envelope", self.digest or sha256(self.index).digest(), size]
        made = {"x/about": cbor.encode(about), **self.others}
        return made | {"x/1": self.index} | {f"x/{item}-{start}": code for (item, start), code in self.codes.items()}


def index_of(entries: list[Any], head: dict[int, Any] | None = None) -> bytes:
    """The index with these entries, made without our own checks."""
    first = {1: "1", 2: slots.ABI, 3: len(entries), 4: release_index.LOADER, 6: "laterne_firmware.app"} | (head or {})
    return cbor.encode([cbor.encode(first), *[cbor.encode(entry) for entry in entries]])


def paths(*names: Any) -> Attack:
    return Attack(index_of([[name, 3, ABC] for name in names]), BAD_INDEX)


def sizes(*each: int) -> list[list[Any]]:
    return [[f"file-{number:03}.mpy", size, sha256(bytes(size)).digest()] for number, size in enumerate(each)]


HONEST = index_of([[PATH, len(GOOD), sha256(GOOD).digest()]])
INDEXES = {
    "a path up": paths("../boot.py"),
    "a path up in the middle": paths("lib/../../main.py"),
    "a path that is only up": paths(".."),
    "a path from the root": paths("/boot.py"),
    "a path of nothing": paths(""),
    "a folder of no name": paths("lib//a.mpy"),
    "this folder": paths("./a.mpy"),
    "the slot's own index": paths("M"),
    "the slot's own envelope": paths("E"),
    "the index while it comes": paths("M.n"),
    "a file half written": paths("a.mpy.n"),
    "a hidden name": paths("lib/.a"),
    "upper case": paths("A.mpy"),
    "another script": paths("ä.mpy"),
    "a zero byte": paths("a\0b"),
    "a path that is bytes": paths(b"a.mpy"),
    "a path of 49 bytes": paths("a" * 49),
    "four folders": paths("a/b/c/d/e.mpy"),
    "a path twice": paths("a.mpy", "a.mpy"),
    "out of order": paths("b.mpy", "a.mpy"),
    "a file that is a folder": paths("a", "a-b", "a/b"),
    "161 files": Attack(index_of(sizes(*[1] * 161)), BAD_INDEX),
    "no file": Attack(index_of([]), BAD_INDEX),
    "a number of files that lies": Attack(index_of(sizes(1, 2), {3: 3}), BAD_INDEX),
    "a file of 32,769 bytes": Attack(index_of([["a.mpy", 32_769, ABC]]), BAD_INDEX),
    "a file of a terabyte": Attack(index_of([["a.mpy", 1 << 40, ABC]]), BAD_INDEX),
    "a file of less than nothing": Attack(index_of([["a.mpy", -1, ABC]]), BAD_INDEX),
    "512 KiB and a byte": Attack(index_of(sizes(*[32_768] * 16, 1)), BAD_INDEX),
    "a digest of 31 bytes": Attack(index_of([["a.mpy", 3, ABC[1:]]]), BAD_INDEX),
    "more about a file": Attack(index_of([["a.mpy", 3, ABC, 1]]), BAD_INDEX),
    "an index without an end": Attack(b"\x9f" + HONEST[1:] + b"\xff", BAD_INDEX),
    "bytes after its end": Attack(HONEST + b"\0", BAD_INDEX),
    "less than it says": Attack(HONEST[:-1], BAD_INDEX),
    "not the index that is signed": Attack(HONEST, BAD_INDEX, digest=ABC),
    "an index larger than the manifest says": Attack(HONEST, BAD_INDEX, size=len(HONEST) - 1),
    "an index smaller than the manifest says": Attack(HONEST, BAD_INDEX, size=len(HONEST) + 1),
    "another bytecode": Attack(index_of(sizes(1), {2: slots.ABI + 1}), UNFIT),
    "another loader": Attack(index_of(sizes(1), {4: release_index.LOADER + 1}), UNFIT),
    "an older interpreter": Attack(index_of(sizes(1), {8: [0, 11999]}), UNFIT),
    "a newer interpreter": Attack(index_of(sizes(1), {8: [20000, 999999]}), UNFIT),
    "interpreters the wrong way round": Attack(index_of(sizes(1), {8: [999999, 0]}), BAD_INDEX),
    "no room for it": Attack(index_of(sizes(*[32_768] * 15)), TOO_LARGE, others={"log/full": bytes(100_000)}),
    "an entry that is no module": Attack(index_of(sizes(1), {6: "os;reset"}), BAD_INDEX),
}


def instead(block: bytes, *, of: bytes = GOOD, size: int | None = None) -> Attack:
    """A file's first block comes as this, encoding and code; the second is good."""
    size = len(of) if size is None else size
    named = index_of([[PATH, size, sha256(of).digest()]])
    rest = of[BLOCK_BYTES:] or b"x"
    return Attack(
        named, BAD_FILE, {(2, 0): sized(min(size, BLOCK_BYTES), block), (2, BLOCK_BYTES): sized(len(rest), raw(rest))}
    )


def sized(size: int, block: bytes) -> bytes:
    return size.to_bytes(2, "big") + block


def raw(data: bytes) -> bytes:
    return bytes([RAW]) + data


def inflating(encoding: int, data: bytes, window_bits: int = 10, before: bytes = b"") -> bytes:
    return bytes([encoding]) + patches.deflated(data, window_bits, before)


def ending(data: bytes, before: bytes = b"") -> bytes:
    """With a last block, behind which nothing can go on."""
    made = zlib.compressobj(9, zlib.DEFLATED, -12, zdict=before) if before else zlib.compressobj(9, zlib.DEFLATED, -12)
    return bytes([DEFLATED]) + made.compress(data) + made.flush()


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def copies(count: int) -> bytes:
    """Steps of a patch that each copy a whole block of the base, from its beginning."""
    back = varint(2 * BLOCK_BYTES - 1)  # zigzag of -4096
    step = varint(2 * BLOCK_BYTES + 1)
    return step + b"\0" + (step + back) * (count - 1)


def best(content: bytes, base: bytes) -> bytes:
    encoding, code = patches.encoded([patches.Portion(content[:BLOCK_BYTES], 0, patches.Base(base))])
    assert encoding & PATCH
    return bytes([encoding]) + code


CONTENTS = {
    "another content": instead(raw(bytes(BLOCK_BYTES))),
    "the file of another release": instead(raw((b"older" * 1000)[:BLOCK_BYTES])),
    "the older file": instead(raw(BASE[:BLOCK_BYTES])),
    "one bit": instead(raw(bytes([GOOD[0] ^ 1]) + GOOD[1:BLOCK_BYTES])),
    "a byte too few": instead(raw(GOOD[: BLOCK_BYTES - 1])),
    "a size that is too small": instead(raw(b"abc"), of=b"abc", size=2),
    "a size that is too large": instead(raw(b"abc"), of=b"abc", size=4),
    "a megabyte of zeros": instead(inflating(DEFLATED, bytes(1 << 20))),
    "a byte less than the block": instead(inflating(DEFLATED, GOOD[: BLOCK_BYTES - 1])),
    "half a code": instead(inflating(DEFLATED, GOOD[:BLOCK_BYTES])[:-20]),
    "no code": instead(bytes([DEFLATED]) + b"\xff" * 300),
    "an end before the end": instead(ending(GOOD[: BLOCK_BYTES - 1])),
    "500 bytes more than the block": instead(inflating(DEFLATED, GOOD[: BLOCK_BYTES + 500])),
    "more behind the block": instead(inflating(DEFLATED, GOOD[:BLOCK_BYTES]) + bytes(9)),
    "content before it that nobody has": instead(inflating(DEFLATED, GOOD[:BLOCK_BYTES], 12, GOOD[:BLOCK_BYTES])),
    "a patch that copies a block too much": instead(bytes([PATCH]) + copies(2)),
    "a patch that copies for ever": instead(inflating(DEFLATED_PATCH, copies(5000))),
    "a patch of a megabyte": instead(inflating(DEFLATED_PATCH, varint(1 << 20) + bytes(1 << 19))),
    "a copy from behind the base": instead(bytes([PATCH]) + varint(3) + varint(1 << 20)),
    "a copy from before the base": instead(bytes([PATCH]) + varint(3) + varint(1)),
    "a copy beyond the end of the base": instead(
        bytes([PATCH]) + varint(2 * BLOCK_BYTES + 1) + varint(2 * len(BASE) - 20)
    ),
    "an empty step": instead(bytes([PATCH, 0])),
    "half a number": instead(bytes([PATCH, 0x80])),
    "a number that is too long": instead(bytes([PATCH]) + b"\xff" * 8),
    "a literal beyond the end": instead(bytes([PATCH]) + varint(2 * BLOCK_BYTES) + b"x"),
    "a patch against another base": instead(best(GOOD, GOOD[2000:] + BASE)),
}
assert all(len(code) <= BLOCK_BYTES + 3 for one in CONTENTS.values() for code in one.codes.values())


async def a_board(emulated_boards: "Benches", more: dict[str, bytes]) -> EmulatedBoard:
    made = image.firmware_files(image.find_firmware(), short=False)
    kept = {path: content for path, content in made.items() if path.startswith(("a/", "boot"))}
    kept |= {"main.py": MAIN.read_bytes(), f"a/{PATH}": BASE, "log/reports": b"that wait" * 50}
    kept |= OLD.in_slot("b") | {"b/E": OLD.signed_by(Key())}
    bench = await emulated_boards(files=kept | more, powered=False, heap_bytes=HEAP_BYTES, blocks=BLOCKS)
    return bench.boards["board-01"]


async def live(board: EmulatedBoard) -> int:
    """What an install ends with."""
    (board.folder / "console.log").unlink(missing_ok=True)
    async with asyncio.timeout(WITHIN_S):
        await board.power_on()
        await board.usb.wait_for_print("done")
        await board.power_off()
    (said,) = [line for line in board.usb.printed().splitlines() if line.startswith("ended ")]
    return int(said.split()[1])


async def installed(emulated_boards: "Benches", attack: Attack) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """All files of the board before and after it has met the attack."""
    board = await a_board(emulated_boards, attack.files())
    before = image.contents(board.flash.image)
    assert await live(board) == attack.result
    # Four passes of two blocks, and what a file system needs besides: whatever would have come out of the code.
    assert board.flash.count.bytes_programmed < 200_000
    return before, image.contents(board.flash.image)


@pytest.mark.parametrize("how", INDEXES)
async def test_an_index_that_lies_costs_the_other_slot_nothing(emulated_boards: "Benches", how: str) -> None:
    before, after = await installed(emulated_boards, INDEXES[how])
    assert after.pop("/b/M.n", b"") is not None
    assert after == before


@pytest.mark.parametrize("how", CONTENTS)
async def test_a_file_that_never_has_its_digest_makes_no_slot(emulated_boards: "Benches", how: str) -> None:
    before, after = await installed(emulated_boards, CONTENTS[how])
    assert "/b/M" not in after
    assert len(after.get(f"/b/{PATH}", b"")) <= len(GOOD)
    assert {path for path in after if path.startswith("/b/")} <= {"/b/M.n", "/b/E", f"/b/{PATH}"}
    for files in (before, after):
        for path in [path for path in files if path.startswith("/b/")]:
            del files[path]
    assert after == before


HONEST_BLOCKS = {
    "a patch, and as it is": (best(GOOD, BASE), raw(GOOD[BLOCK_BYTES:])),
    "a block that goes on with the other": (
        inflating(DEFLATED, GOOD[:BLOCK_BYTES], 12),
        inflating(DEFLATED, GOOD[BLOCK_BYTES:], 12, GOOD[:BLOCK_BYTES]),
    ),
    "an end where the release ends": (
        inflating(DEFLATED, GOOD[:BLOCK_BYTES], 12),
        ending(GOOD[BLOCK_BYTES:], GOOD[:BLOCK_BYTES]),
    ),
}


@pytest.mark.parametrize("how", HONEST_BLOCKS)
async def test_the_same_release_without_the_lie_is_installed(emulated_boards: "Benches", how: str) -> None:
    """Else the tests above would fail for another reason than they say."""
    first, second = HONEST_BLOCKS[how]
    codes = {(2, 0): sized(BLOCK_BYTES, first), (2, BLOCK_BYTES): sized(len(GOOD) - BLOCK_BYTES, second)}
    good = Attack(HONEST, WHOLE, codes)
    _, after = await installed(emulated_boards, good)
    assert (after["/b/M"], after[f"/b/{PATH}"]) == (HONEST, GOOD)


async def test_the_same_files_under_a_new_sequence_keep_their_slot_and_get_its_envelope(
    emulated_boards: "Benches",
) -> None:
    """A campaign back to what lies in the other slot: nothing comes but the envelope, and it is what the slot shows."""
    again = Attack(OLD.index, WHOLE)
    before, after = await installed(emulated_boards, again)
    assert manifest.envelope_of(before.pop("/b/E")).sequence == OLD.sequence
    assert after.pop("/b/E") == b"an envelope"
    assert after == before


async def test_no_index_that_is_made_up_writes_outside_of_its_slot(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps"
) -> None:
    """As if release keys had signed whatever comes; for every file that is asked for comes one byte."""
    honest = index_of([["deep/er/new.mpy", 700, ABC], [PATH, len(GOOD), ABC], ["main.py", 3, ABC]])
    codes = {f"x/{item}": b"x" for item in range(2, 12)}
    board = await a_board(emulated_boards, {**Attack(honest, BAD_FILE).files(), **codes})
    fresh = board.flash.image.read_bytes()
    for case in fault_sweep("an index is made up", quick=30):
        with case:
            index = mutate.mutated(honest, [honest, HONEST], case.dice)[: 2 * BLOCK_BYTES] or b"\0"
            board.flash.image.write_bytes(fresh)
            image.write(board.flash.image, Attack(index, BAD_FILE).files())
            before = image.contents(board.flash.image)
            result = await live(board)
            after = image.contents(board.flash.image)
            assert result in (UNFIT, TOO_LARGE, BAD_INDEX, BAD_FILE)
            assert (result == BAD_FILE) == ("/b/M" not in after)
            for files in (before, after):
                for path in [path for path in files if path.startswith("/b/")]:
                    del files[path]
            assert after == before
            case.survived()
