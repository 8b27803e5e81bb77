"""Campaigns of a single board, small enough for sweeps of power cuts: its flash, its plan, and what must come of it.

The program is hil_tests/firmware_for_tests/campaigning.py, which says what of it is real. A release is three modules
that say which one runs, and some files as real ones have them: one that stays, one that changes, one in new folders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from tests.firmware import programs

import laterne_protocol
from laterne_emulator import image
from laterne_emulator.interpreter import compiled
from laterne_emulator.slots import Record, Release
from laterne_gateway import patches
from laterne_protocol import cbor, order
from laterne_protocol.update_messages import FIRST_FILE, INDEX, MAX_BLOCK_BYTES

PROGRAM = Path(image.__file__).parents[1] / "firmware_for_tests" / "campaigning.py"
OF_THE_FIRMWARE = (
    *(
        "executed",
        "floors",
        "identity",
        "installer",
        "loader",
        "memory",
        "ordered",
        "orders",
        "release_orders",
        "running",
    ),
    *("slot_check", "slots", "steps", "store", "unpacking", "updating"),
)
OF_THE_PROTOCOL = (
    *("board_messages", "cbor", "cose", "cose_writing", "errors", "fields", "manifest", "order"),
    *("public_keys", "receipt", "release_index", "report", "update_messages"),
)
_APP = """
import part
part.NAME = {name!r}
from campaigning import run
"""
PIECE_BYTES = 4096
STAGE, ARM, ABANDON = order.STAGE, order.ARM, order.ABANDON


def release(name: str, sequence: int, payload: Mapping[str, bytes], *, crashes: bool = False) -> Release:
    """name: what it says when it runs. payload: its files beside the modules. crashes: when it is tried."""
    files = {
        "app.mpy": compiled(_APP.format(name=name).encode(), "app"),
        "part.mpy": compiled(f"ALSO = {name!r}\nCRASHES = {crashes}\n".encode(), "part"),
    }
    return Release({**files, **payload}, version=name.lower(), sequence=sequence)


@cache
def _frozen(firmware: Path) -> dict[str, bytes]:
    """{path below /f: bytes}: the program and everything of the firmware that it takes, names as they are."""
    protocol = Path(laterne_protocol.__path__[0])
    paths = [firmware / f"laterne_firmware/{name}.py" for name in OF_THE_FIRMWARE]
    paths += [PROGRAM, *(protocol / f"{name}.py" for name in OF_THE_PROTOCOL)]
    found = {f"{path.stem}.mpy": compiled(programs.flat(path.read_bytes()), path.stem) for path in paths}
    return {**found, **release("RESCUE", 1, {}).files}


def _codes(name: str, contents: list[bytes], bases: list[bytes | None]) -> dict[str, bytes]:
    """All blocks that begin in the first of these files: short ones, and long ones, which go on in those behind it."""
    found = {}
    for start in range(0, max(1, len(contents[0])), PIECE_BYTES):
        for kind, size, reached in (("short", PIECE_BYTES, 1), ("long", MAX_BLOCK_BYTES, len(contents))):
            portions: list[patches.Portion] = []
            left = size
            for content, base in zip(contents[:reached], bases, strict=False):
                place = 0 if portions else start
                portions.append(patches.Portion(content[place:][:left], place, patches.Base(base) if base else None))
                left -= len(portions[-1].content)
            encoding, code = patches.encoded(portions)
            found[f"{name}-{start}-{kind}"] = (size - left).to_bytes(2, "big") + bytes([encoding]) + code
    return found | {name: contents[0]}


@dataclass(frozen=True)
class Order:
    """until: the item that the board wants when the order comes; None: it has all of the release."""

    action: int
    release: Release
    until: int | None = None


@dataclass(frozen=True)
class Campaign:
    """a, b: what is in the slots, and record: of them, before. orders: in their order, each until its receipt is there.

    end: the record when it is over, or or_end where a cut makes a difference. runs: the release that runs then, and
    from where. left: what is in the slots then. damaged: paths in which a byte is wrong from the start. more: files
    that lie there, too. blocks: of the flash, which is programmed page_bytes at once. ways: in how many of the six
    ways each operation is cut.
    """

    a: Release
    b: Release | None
    record: Record
    orders: tuple[Order, ...]
    end: Record
    runs: str
    left: Mapping[str, Release]
    or_end: Record | None = None
    damaged: tuple[str, ...] = ()
    more: Mapping[str, bytes] = field(default_factory=dict)
    blocks: int = 64
    page_bytes: int = 256
    ways: float = 1.0

    @property
    def releases(self) -> list[Release]:
        return list({made.digest: made for made in (one.release for one in self.orders)}.values())

    def files(self, firmware: Path | None = None) -> dict[str, bytes]:
        """What lies on flash, and below r/ what is frozen (image.split)."""
        firmware = firmware or image.find_firmware()
        files = {path: programs.flat((firmware / path).read_bytes()) for path in ("boot.py", "main.py")}
        files["pins.mpy"] = compiled((firmware / "boards" / "emulated.py").read_bytes(), "pins")
        files |= {f"r/{path}": content for path, content in _frozen(firmware).items()}
        files |= {f"r/{path}": content for path, content in self._plan().items()}
        files |= {**self.a.in_slot("a"), **(self.b.in_slot("b") if self.b else {}), **self.more}
        files |= {"k/name.0": b"a board that is enrolled"} | self.record.files()
        for path in self.damaged:
            content = bytearray(files[path])
            content[len(content) // 2] ^= 1
            files[path] = bytes(content)
        return files

    def _plan(self) -> dict[str, bytes]:
        releases = self.releases
        about = [
            [made.digest, made.sequence, made.envelope, sha256(made.index).digest(), len(made.index)]
            for made in releases
        ]
        orders = [[one.action, releases.index(one.release), one.until] for one in self.orders]
        found = {"plan": cbor.encode([about, orders])}
        running = self._running()
        for which, made in enumerate(releases):
            files = [made.files[path] for path in sorted(made.files)]
            bases = [None if running is None else running.files.get(path) for path in sorted(made.files)]
            found |= _codes(f"x/{which}-{INDEX}", [made.index], [None])
            for at in range(len(files)):
                found |= _codes(f"x/{which}-{FIRST_FILE + at}", files[at:], bases[at:])
        return found

    def _running(self) -> Release | None:
        # Whose files a gateway makes patches against: it knows none of the rescue's.
        if any(path.startswith((f"{self.record.active}/", "slot")) for path in self.damaged):
            return None
        return self.a if self.record.active == "a" else self.b
