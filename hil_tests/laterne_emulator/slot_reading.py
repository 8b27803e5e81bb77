"""The slots of a board that is off, judged from outside: its image is read, and digests are made, by no code of it."""

from hashlib import sha256
from pathlib import Path

from laterne_emulator import image
from laterne_emulator.slots import RECORD, Record, Release


class NotWhole(Exception):
    """A slot that no board may run: the message says what is wrong with it."""


def record(flash: Path) -> Record | None:
    """The record on this flash; the copy that the board takes. None when neither copy can be read."""
    for copy in (".0", ".1"):
        found = Record.of(image.read(flash, RECORD + copy) or b"")
        if found is not None:
            return found
    return None


def require_whole(flash: Path, slot: str, release: Release) -> None:
    """That a slot holds this release: its index, every file of it, and no file beside them. Raises NotWhole."""
    prefix = f"/{slot}/"
    everything = image.contents(flash)
    found = {path.removeprefix(prefix): everything[path] for path in everything if path.startswith(prefix)}
    index = found.pop("M", None)
    found.pop("E", None)
    if index is None or sha256(index).digest() != sha256(release.index).digest():
        raise NotWhole(f"slot {slot} has another index, or none")
    for path, content in release.files.items():
        if path not in found:
            raise NotWhole(f"slot {slot} lacks {path}")
        if sha256(found.pop(path)).digest() != sha256(content).digest():
            raise NotWhole(f"slot {slot} has another {path}")
    if found:
        raise NotWhole(f"slot {slot} has files of no release: {', '.join(sorted(found))}")
