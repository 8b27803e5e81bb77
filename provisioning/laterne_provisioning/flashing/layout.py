"""What comes to lie where on a board that is flashed (firmware/README.md, "What is on flash?"), and in which order.

Pure: a release and a model make a list of files. The order is what makes an interrupted flashing safe to repeat:

1 - no /main.py: nothing of laterne starts, the board is its technician's, no watchdog runs
2 - the slot, the rescue and the loader; in each folder the index comes after the files that it names
3 - the record of the slots, the pins, the settings, /boot.py
4 - everything is read back
5 - /main.py: from now on the board starts laterne
"""

import json
import struct
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from laterne_protocol import cbor
from laterne_protocol.release_file import Release
from laterne_provisioning.errors import OperatorError

MAIN = "main.py"
UNFINISHED = ".n"  # a file that is being written; firmware/laterne_firmware/store.py calls it so, too
SLOT, RESCUE, LOADER = "a", "r", "l"
OWN_FOLDERS = (SLOT, "b", RESCUE, LOADER)  # what lies in them and is in no plan, goes
PINS = "pins/"
SETTINGS = "settings.json"
CHECK = "self_test.py"  # of the base: run once by who flashes, never on flash

# firmware/laterne_firmware/store.py: magic, length of the body, its CRC-32.
_RECORD = "<4sII"
_MAGIC = b"LTR1"


@dataclass(frozen=True)
class File:
    """A file of a board. same_as: the path of another one, written before, with the same bytes."""

    path: str
    content: bytes
    same_as: str | None = None

    @property
    def digest(self) -> bytes:
        return sha256(self.content).digest()


@dataclass(frozen=True)
class Layout:
    """files: in the order in which they are written. main: the file that comes last, when all others are right."""

    files: tuple[File, ...]
    main: File

    @property
    def all(self) -> tuple[File, ...]:
        return (*self.files, self.main)


def models(release: Release) -> list[str]:
    """The models that a release has a pin map for."""
    return sorted(path.removeprefix(PINS).removesuffix(".mpy") for path in release.base if path.startswith(PINS))


def layout(release: Release, model: str, settings: Mapping[str, int] | None = None) -> Layout:
    """Everything that a board of this model needs, not enrolled.

    settings: None leaves those that the board has. Raises OperatorError: the release lacks a part.
    """
    for needed in (MAIN, "boot.py", f"{PINS}{model}.mpy"):
        if needed not in release.base:
            raise OperatorError(f"The release has no {needed}: it cannot be flashed. Build it from a newer checkout.")
    index = release.manifest.index
    assert index is not None  # a release file has it
    held = [(path, release.contents[digest]) for path, _, digest in release.entries]
    held += [("E", release.severed), ("M", index)]
    files = [File(f"{SLOT}/{path}", content) for path, content in held]
    files += [File(f"{RESCUE}/{path}", content, f"{SLOT}/{path}") for path, content in held]
    files += [File(path, content) for path, content in sorted(release.base.items()) if path.startswith(f"{LOADER}/")]
    record = slot_record(release.digest, sha256(index).digest(), release.manifest.sequence)
    files += [File(f"slot.{copy}", record) for copy in (0, 1)]
    files.append(File("pins.mpy", release.base[f"{PINS}{model}.mpy"]))
    if settings is not None:
        files.append(File(SETTINGS, json.dumps(dict(settings)).encode()))
    files.append(File("boot.py", release.base["boot.py"]))
    return Layout(tuple(files), File(MAIN, release.base[MAIN]))


def slot_record(release: bytes, index: bytes, sequence: int) -> bytes:
    """A copy of the record of a board whose slot a was flashed (firmware/laterne_firmware/slots.py says what is what).

    release: digest, 16 bytes. index: SHA-256 of its index.
    """
    parts: dict[object, object] = {
        1: SLOT, 2: None, 3: 0, 4: 0, 5: sequence, 6: None, 8: {SLOT: [release, index, sequence]}, 9: [SLOT], 10: None,
    }  # fmt: skip
    body = cbor.encode(parts)
    return struct.pack(_RECORD, _MAGIC, len(body), crc32(body)) + body
