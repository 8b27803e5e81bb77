"""P4 on the board: one block of the flash is bad, whichever it is and in whatever way, and the board still answers.

The whole firmware starts on the flash of an enrolled board in a campaign: two slots, keys, records, a backlog. A block
has lost what it held, cannot be read, or does not take what is written. What must hold: the board answers on its line,
as itself, out of the other slot or out of the rescue; it says why when it is not the release that should run; a slot
that runs is whole; what can be read is still there afterwards, and who cannot read anything has changed nothing.
"""

import asyncio
import struct
from binascii import crc32
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
from tests.firmware.enrolled import Pairs, record
from tests.firmware.questions import Asker, asking
from tests.gateway.fake_authority import FakeAuthority

from laterne_emulator import damage, image, slot_reading
from laterne_emulator.flash import Bad, Wrong
from laterne_emulator.slots import Record, Release
from laterne_emulator.sweep import Settings
from laterne_protocol import cbor, cose, credential, edhoc_keys, messages, report

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches, FaultSweeps

NAME = "LE-0001"
WITHIN_S = 150.0  # eight starts that the watchdog ends, before the rescue comes
HEAP_BYTES = 192 * 1024  # the emulator's bad block takes some of it
AS_WITHOUT, ANOTHER, RESCUE, WITHOUT = "as without", "another release", "rescue", "without its flash"
UNUSABLE = ("the flash stays as it is: rescue", "the rescue cannot use its flash")
WRITTEN_AT_A_START = ("/slot.", "/st.", "/k/seed.", "/stage.", "/sensors.", "/log/open")


@cache
def enrolled() -> tuple[FakeAuthority, Pairs]:
    authority = FakeAuthority()
    return authority, Pairs(authority, NAME)


def backlog() -> dict[str, bytes]:
    """Three segments of reports that nobody has acknowledged."""
    _, pairs = enrolled()
    head, number, files = credential.digest(pairs.credential), 1, {}
    for count in (64, 64, 12):
        path, content = f"log/{number:08x}", b""
        for _ in range(count):
            payload = report.Report(
                NAME, number, head, 3, 1000 * number, (0, None, 0), report.Times(0), [], []
            ).to_payload()
            body = pairs.sign.sign(cose.REPORT, payload)
            head = report.digest(payload)
            header = struct.pack("<BHIII16s", 0xA7, len(body), number, 3, 0, head)
            content += header + struct.pack("<I", crc32(body, crc32(header))) + body
            number += 1
        files[path] = content
    return files


@cache
def boards() -> dict[str, tuple[Mapping[str, bytes], str]]:
    """{what a board is in the middle of: (its files, the folder that runs without damage)}."""
    authority, pairs = enrolled()
    base = image.firmware_files(image.find_firmware())
    base["main.py"] = image.main_with(base["main.py"], b'print("folder", sys.path[0])')
    before = Record.of(base["slot.0"])
    assert before is not None
    files = {path[2:]: base[path] for path in base if path.startswith("a/") and path not in ("a/M", "a/E")}
    new = replace(Release(files), sequence=2, version="0.2.0")
    base |= record("k/trust", authority.trust().to_payload()) | pairs.files | backlog()
    base |= record("st", cbor.encode([3, 193, []])) | record("k/seed", bytes(range(32)))
    slots = {**before.slots, "b": new.entry}
    there = new.in_slot("b")
    half = {path: there[path] for path in sorted(there)[::2] if path != "b/M"} | {
        "b/M.n": there["b/M"],
        "b/E": there["b/E"],
    }
    done = replace(before, active="b", confirmed=("a", "b"), slots=slots, floor=2)
    return {
        "a release is installed": (base | half | record("stage", cbor.encode([new.digest, 2, bytes(16)])), "/a"),
        "a release is tried": (base | there | replace(before, trial="b", slots=slots).files(), "/b"),
        "a release was confirmed": (base | there | done.files(), "/b"),
    }


class Start:
    """One start of a board with a bad block. said: what it printed. folder: what ran. answer: to who asks for it."""

    def __init__(self, said: str, answer: object) -> None:
        self.said = said
        self.answer = answer
        self.folders = [
            line.removeprefix("folder ").strip() for line in said.splitlines() if line.startswith("folder ")
        ]
        self.is_without_flash = any(why in said for why in UNUSABLE)

    @property
    def is_rescue(self) -> bool:
        return self.folders[-1] == "/r" or "no readings are taken" in self.said


async def start(board: "EmulatedBoard", asker: Asker, number: int) -> Start:
    """From power-on to the first answer on the line, whatever resets come before it."""
    (board.folder / "console.log").unlink(missing_ok=True)
    answer = None
    async with asyncio.timeout(WITHIN_S):
        await board.power_on()
        while answer is None:
            received = await asker.exchange(asker.clear(messages.Hello(number % 256).to_bytes()), 0.05)
            found = None if received is None else messages.message_of(received.payload)
            answer = found if found is not None and found.number == number % 256 else None
        await board.usb.wait_for_print(", start ")
    await board.power_off()
    return Start(board.usb.printed(), answer)


def judge(board: "EmulatedBoard", harmed: bytes, life: Start, should_run: str, where: str) -> str:
    """How it ended; AssertionError when it must not end so."""
    if life.is_without_flash:
        assert board.flash.image.read_bytes() == harmed, f"{where}: a flash that cannot be used was written"
        assert isinstance(life.answer, messages.Identity), where
        return WITHOUT
    assert isinstance(life.answer, messages.Refusal), f"{where}: it has forgotten who it is\n{life.said}"
    after, unreadable = image.readable(board.flash.image)
    board.flash.image.with_name("harmed.img").write_bytes(harmed)
    before, _ = image.readable(board.flash.image.with_name("harmed.img"))
    for path, content in before.items():
        if content and not path.startswith(WRITTEN_AT_A_START):  # a file without content is one that was being made
            there = path in unreadable or content in (after.get(path), after.get(f"{path}.bad"))
            assert there, f"{where}: {path} was changed or removed\n{life.said}"
    folder = life.folders[-1]
    if life.is_rescue:
        assert any(why in life.said for why in ("refuses", "damaged", "lost", "failed")), f"{where}: nobody knows why"
        return RESCUE
    if board.flash.bad is None:
        files, _ = boards()["a release was confirmed"]
        for path, content in slot_reading.files_in(after, folder[1:]).items():
            assert content == files[f"{folder[1:]}/{path}"], f"{where}: {folder} runs, and {path} is damaged"
    if folder == should_run:
        return AS_WITHOUT
    assert "slot b" in life.said or "slot a" in life.said, f"{where}: nobody knows why"
    return ANOTHER


@pytest.mark.parametrize("name", ["a release is installed", "a release is tried", "a release was confirmed"])
async def test_whatever_block_is_bad_the_board_answers_and_says_what_it_could_not_read(
    emulated_boards: "Benches", fault_sweep: "FaultSweeps", name: str
) -> None:
    files, should_run = boards()[name]
    bench = await emulated_boards(files=files, powered=False, paced=False, boot="frozen", heap_bytes=HEAP_BYTES)
    board = bench.boards["board-01"]
    before = board.flash.image.read_bytes()
    blocks = damage.used(board.flash.image)
    cases = fault_sweep("board, bad block", quick=80)
    kinds = damage.AT_REST + damage.WHEN_WRITTEN
    if Settings.found(None, None).factor == 1:
        # What littlefs could not read once it takes out of its cache: code runs wild until the watchdog bites, and that
        # as often as the loader lets it. It ends well, after a minute.
        kinds.remove(Wrong.READ_FAILS_ONCE)
    most = len(blocks) * len(kinds)
    harms = damage.every(blocks, kinds, cases.seed)
    async with asking(bench.lines["board-01"].path) as asker:
        for case, (number, harm) in zip(cases, enumerate(harms), strict=False):
            if number == 2 * most:
                return
            while number < case.number:  # one case is repeated
                number, harm = number + 1, next(harms)
            with case:
                harmed = harm.do(board.flash, before)
                life = await start(board, asker, number)
                cases.ended(judge(board, harmed, life, should_run, str(harm)))
                case.survived()


async def test_a_board_whose_root_is_worn_out_takes_no_readings_and_delivers_what_it_has(
    emulated_boards: "Benches",
) -> None:
    files, _ = boards()["a release was confirmed"]
    bench = await emulated_boards(files=files, powered=False, paced=False, boot="frozen", heap_bytes=HEAP_BYTES)
    board = bench.boards["board-01"]
    _, pairs = enrolled()
    async with asking(bench.lines["board-01"].path) as asker:
        image.write(board.flash.image, record("k/trust", asker.authority.trust().to_payload()))
        asker.board = edhoc_keys.party(NAME, pairs.agree.public)
        asker.name, asker.sign_key = NAME, pairs.sign.public
        asker.follow(credential.digest(pairs.credential))
        board.flash.bad = Bad(1, Wrong.WRITE_FAILS)  # the half of the root that is written to, and cannot be replaced
        await board.power_on()
        await asker.wait_for_reports(140)
        assert (await asker.hello()).release == "rescue"
        await asker.poll()  # the last ones are acknowledged, too
        assert "flash refuses the number of this start" in board.usb.printed()
        assert board.lives == []
        assert bench.readings_served("board-01") == 0
        await board.power_off()
        board.flash.bad = None
        await board.power_on()
        await board.usb.wait_for_print("channels 1, 2")
        assert "release" in board.usb.printed().rpartition("start 4")[0]
