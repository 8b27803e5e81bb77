"""The real firmware in an emulated board, updated by the gateway's parts: for bench_update.

The board is enrolled and runs the release of this checkout, which the gateway does not hold: so nothing is copied and
no patch is possible, and all of a release comes over the line. It is the same firmware with a byte behind each file,
which nobody reads.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.firmware.enrolled import EnrolledBoard, Pairs, Wire, record
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_releases import release
from tests.gateway.parts import Parts, until, write_identity

from laterne_emulator.bench import Bench
from laterne_emulator.flash import INSTANT, FlashTiming
from laterne_emulator.image import find_firmware, firmware_files, main_with
from laterne_emulator.interpreter import compiled
from laterne_gateway.updates import Standing
from laterne_protocol import order
from laterne_protocol.update_messages import INDEX, RECEIVING, STAGED

NAME = "board-01"
SETTINGS = {"report_s": 60, "sample_ms": 500}
SEQUENCE = 2_000_000_000  # above that of the release which runs: the time of its commit

# Put around what answers questions in a copy of the firmware: the figures are the board's own. What is garbage at that
# moment is collected first, so that they say what an update holds.
WATCHED = """
import gc
import link as _module
_update = _module.Link._update
_most = [0]
def _watched(self, question, now_ms):
    gc.collect()
    if self.sessions.updating is None:
        print("idle at %d bytes" % gc.mem_alloc())
        _most[0] = 0
    answer = _update(self, question, now_ms)
    gc.collect()
    if gc.mem_alloc() > _most[0]:
        _most[0] = gc.mem_alloc()
        print("updating at %d bytes" % _most[0])
    return answer
_module.Link._update = _watched
"""


@dataclass(frozen=True)
class Installed:
    """What an install cost from the first byte of the index that was wanted until the slot was whole.

    code_bytes: that were sent. content_bytes: of all files. erases, programs: of its flash. restarts: of the board.
    idle_bytes, most_bytes: of its heap before it was asked and at most, None when nobody looked.
    """

    code_bytes: int
    content_bytes: int
    took_s: float
    erases: int
    programs: int
    restarts: int
    idle_bytes: int | None
    most_bytes: int | None


async def installed(
    folder: Path, timing: FlashTiming, heap_bytes: int, *, watched: bool = False, used: bool = False
) -> Installed:
    """A whole release comes over 115,200 baud. watched: the board says what memory it takes; it has long names then.

    used: its slot holds another release, of which nothing stays, as at every update but a board's first.
    """
    folder.mkdir()
    authority = FakeAuthority()
    pairs = Pairs(authority, NAME)
    files = firmware_files(find_firmware(), used_by=WATCHED.encode() if watched else b"")
    newer = {path[2:]: files[path] + b"\0" for path in files if path.startswith("a/") and path.endswith(".mpy")}
    if used:
        files |= {f"b/{path}": content + b"\0" for path, content in newer.items()}
    files |= record("k/trust", authority.trust().to_payload()) | pairs.files
    files["settings.json"] = json.dumps(SETTINGS).encode()
    if watched:
        files["main.py"] = main_with(files["main.py"], b"import watched")
        files["watched.mpy"] = compiled(WATCHED.encode(), "watched.py")
    async with Bench(folder / "bench", files=files, paced=True, heap_bytes=heap_bytes) as bench:
        emulated = bench.boards[NAME]
        parts = Parts(folder, [])
        parts.authority = authority
        parts.trust_file.write_bytes(authority.trust_file())
        board = EnrolledBoard(emulated, 1, pairs)
        parts.roster_file.write_bytes(authority.roster_file([board.entry()]))
        parts.key = write_identity(folder, authority)
        await parts.open()
        try:
            made = release(authority, newer, SEQUENCE)
            await parts.releases.add(made.to_bytes(), ())
            await bench.power_on()
            wire = Wire(folder / "line", [board])
            wire.path.symlink_to(bench.lines[NAME].path)
            async with parts.asking(wire):
                said = parts.updates._standing(NAME)
                await until(lambda: said.progress is not None)
                assert said.progress is not None
                argument: list[bytes | int] = [made.digest, SEQUENCE, said.progress.nonce]
                parts.orders.take(NAME, authority.order(NAME, pairs.sign.kid, order.STAGE, argument))
                parts.buses[0].wake()
                await until(lambda: _wanted(said) == INDEX)
                began_s, count = parts.clock.monotonic_s(), emulated.flash.count
                erases, programs = count.erases, count.programs
                emulated.flash.timing = timing
                await until(lambda: said.progress is not None and said.progress.phase == STAGED)
                took_s = parts.clock.monotonic_s() - began_s
                emulated.flash.timing = INSTANT
            printed = emulated.usb.printed()
            idle, most = (re.findall(rf"{word} at (\d+) bytes", printed) for word in ("idle", "updating"))
            return Installed(
                parts.health.counted(NAME, "updates: bytes sent") - len(made.severed),
                sum(map(len, newer.values())),
                took_s,
                count.erases - erases,
                count.programs - programs,
                len(emulated.lives),
                int(idle[-1]) if idle else None,
                max(map(int, most)) if most else None,
            )
        finally:
            await parts.buffer.close()


def _wanted(said: Standing) -> int | None:
    """The item that the board wants."""
    if said.progress is None or said.progress.phase != RECEIVING or said.progress.wanted is None:
        return None
    return said.progress.wanted[1]
