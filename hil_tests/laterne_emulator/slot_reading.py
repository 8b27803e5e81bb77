"""The slots of a board that is off, judged from outside: its image is read, and digests are made, by no code of it."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from laterne_emulator import image
from laterne_emulator.slots import RECORD, Record, Release


class NotWhole(Exception):
    """A slot that no board may run: the message says what is wrong with it."""


def record(flash: Path) -> Record | None:
    """The record on this flash; the copy that the board takes. None when neither copy can be read."""
    return record_in({f"/{RECORD}{copy}": image.read(flash, RECORD + copy) or b"" for copy in (".0", ".1")})


def record_in(contents: Mapping[str, bytes]) -> Record | None:
    """The same of what image.contents() has read."""
    for copy in (".0", ".1"):
        found = Record.of(contents.get(f"/{RECORD}{copy}", b""))
        if found is not None:
            return found
    return None


def files_in(contents: Mapping[str, bytes], slot: str) -> dict[str, bytes]:
    """{path in the slot: bytes}."""
    prefix = f"/{slot}/"
    return {path.removeprefix(prefix): contents[path] for path in contents if path.startswith(prefix)}


def require_whole(flash: Path, slot: str, release: Release) -> None:
    """That a slot holds this release: its index, every file of it, and no file beside them. Raises NotWhole."""
    require_whole_in(image.contents(flash), slot, release)


def require_whole_in(
    contents: Mapping[str, bytes], slot: str, release: Release, may_have: tuple[str, ...] = ()
) -> None:
    """The same of what image.contents() has read. may_have: files that may be there beside the release's."""
    found = files_in(contents, slot)
    index = found.pop("M", None)
    found.pop("E", None)
    if index is None or sha256(index).digest() != sha256(release.index).digest():
        raise NotWhole(f"slot {slot} has another index, or none")
    for path, content in release.files.items():
        if path not in found:
            raise NotWhole(f"slot {slot} lacks {path}")
        if sha256(found.pop(path)).digest() != sha256(content).digest():
            raise NotWhole(f"slot {slot} has another {path}")
    more = sorted(set(found) - set(may_have))
    if more:
        raise NotWhole(f"slot {slot} has files of no release: {', '.join(more)}")
