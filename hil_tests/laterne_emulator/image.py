"""Flash images of boards, built and read on the host while no board runs.

Layout of an image with firmware: `/boot.py` and `/main.py` as source (MicroPython dictates the names), the loader's own
modules below `/l`, the first slot below `/a` with its index `/a/M`, the rescue below `/r`, the record of the slots
`/slot.0` and `/slot.1`, the pin map `/pins.mpy`, and `/settings.json` if given (firmware/README.md).
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from littlefs import LittleFS, LittleFSError

from laterne_emulator import release_tool, slots
from laterne_emulator.flash import BLOCK_BYTES, BLOCKS, PAGE_BYTES

SLOT, LOADER, RESCUE = "a", "l", "r"
SELF_TEST = "self_test.py"  # of `laterne flash`; it is run there and lies on no flash
_SHARED = tuple(f"{folder}/" for folder in (SLOT, LOADER, RESCUE))
_CHOSEN = b"    sys.path[0] = choose()\n"


class NoFirmware(Exception):
    """The sources of the boards' firmware are not where they should be."""


def find_firmware(folder: Path | None = None) -> Path:
    """The folder `firmware/` of a checkout: the one named, or the one here, or the one beside this package."""
    candidates = [folder] if folder else [Path("firmware").absolute(), Path(__file__).parents[2] / "firmware"]
    for candidate in candidates:
        if (candidate / "laterne_firmware").is_dir() and (candidate / "main.py").is_file():
            return candidate
    raise NoFirmware(
        f"no firmware in {candidates[0]}: run from a checkout of laterne, or name its folder with --firmware DIR"
    )


def firmware_files(
    folder: Path,
    model: str = "emulated",
    settings: Mapping[str, int | float | str] | None = None,
    *,
    short: bool = True,
    used_by: bytes = b"",
) -> dict[str, bytes]:
    """{path on the board: bytes} of everything that a board of this model needs, not enrolled.

    short: as boards get it; otherwise for programs that change constants of it. used_by: source of another program that
    uses the firmware by its names.

    Raises NoFirmware if there is no pin map for the model, ReleaseNotBuilt if the firmware makes no release.
    """
    built = release_tool.release(folder, short=short, used_by=used_by)
    pins = f"pins/{model}.mpy"
    if pins not in built.base:
        known = ", ".join(path[5:-4] for path in sorted(built.base) if path.startswith("pins/"))
        raise NoFirmware(f"{folder} has no pin map for {model!r}, only for {known}")
    files = {
        path: content for path, content in built.base.items() if path != SELF_TEST and not path.startswith("pins/")
    }
    files["pins.mpy"] = built.base[pins]
    release = slots.Release.built(built)
    files |= release.in_slot(SLOT) | release.in_slot(RESCUE)
    entry = release.entry
    files |= slots.Record(SLOT, floor=entry[2], slots={SLOT: entry}, confirmed=(SLOT,)).files()
    if settings:
        files["settings.json"] = json.dumps(dict(settings)).encode()
    return files


def split(files: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What of a firmware's files is frozen into an interpreter of ours, and what is on flash (firmware/manifest.py)."""
    boot = (find_firmware() / "frozen" / "_boot.py").read_bytes()
    if f"{RESCUE}/app.mpy" in files:  # modules have no packages, as manifest.py has it
        boot = boot.replace(b"from laterne_firmware import ram\n", b"import ram\n")
    inside = {"_boot.py": boot}
    for folder in (RESCUE, LOADER):
        inside |= {path[2:]: files[path] for path in files if path.startswith(f"{folder}/")}
    starts = ("boot.py", "main.py", "pins.mpy")
    inside |= {path: files[path] for path in starts if path in files}
    return inside, {path: files[path] for path in files if path not in starts and path[:2] not in ("l/", "r/")}


def main_with(main: bytes, change: bytes) -> bytes:
    """The main.py of a firmware that runs these lines, too: when its slot is chosen, before anything of it runs."""
    lines = b"".join(b"    " + line + b"\n" for line in change.strip().splitlines())
    made = main.replace(_CHOSEN, _CHOSEN + lines)
    assert made != main, "main.py has changed: say anew where its slot is chosen"
    return made


def build(image: Path, files: Mapping[str, bytes], blocks: int = BLOCKS) -> None:
    """Write a fresh image that holds {path: bytes}. Raises LittleFSError if they do not fit."""
    # Nearly all of it is the same in nearly all images: made once, in a tenth of the time.
    shared = {path: files[path] for path in files if path.strip("/")[:2] in _SHARED}
    volume = _volume(blocks)
    volume.context.buffer = bytearray(_with(tuple(shared.items()), blocks))
    volume.mount()
    _put(volume, (pair for pair in files.items() if pair[0] not in shared))
    volume.unmount()
    image.write_bytes(bytes(volume.context.buffer))


@lru_cache(maxsize=4)
def _with(files: tuple[tuple[str, bytes], ...], blocks: int) -> bytes:
    volume = _volume(blocks)
    volume.format()
    volume.mount()
    _put(volume, files)
    volume.unmount()
    return bytes(volume.context.buffer)


def _put(volume: LittleFS, files: Iterable[tuple[str, bytes]]) -> None:
    for path, content in files:
        folder = path.strip("/").rpartition("/")[0]
        if folder:
            volume.makedirs(folder, exist_ok=True)
        with volume.open(path, "wb") as file:
            file.write(content)


def read(image: Path, path: str) -> bytes | None:
    """One file of an image; None if it is not there. Raises LittleFSError if the image holds no file system."""
    volume = _mounted(image)
    try:
        with volume.open(path, "rb") as file:
            content: bytes = file.read()
            return content
    except FileNotFoundError:
        return None


def names(image: Path, folder: str = "/") -> list[str]:
    """All files below a folder of an image, as absolute paths, sorted."""
    return sorted(f"{where.rstrip('/')}/{name}" for where, _, found in _mounted(image).walk(folder) for name in found)


def contents(image: Path) -> dict[str, bytes]:
    """All files of an image, by absolute path. One look: much quicker than read() for each of names().

    Raises LittleFSError for a file that cannot be read, and says which.
    """
    found, unreadable = readable(image)
    for path, why in unreadable.items():
        why.add_note(f"{path} of {image}")
        raise why
    return found


def readable(image: Path) -> tuple[dict[str, bytes], dict[str, LittleFSError]]:
    """The files of an image that can be read, and why the others cannot. Raises LittleFSError: nothing can be."""
    volume = _mounted(image)
    found, unreadable = {}, {}
    for where, _, files in volume.walk("/"):
        for name in files:
            path = f"{where.rstrip('/')}/{name}"
            try:
                with volume.open(path, "rb") as file:
                    found[path] = file.read()
            except LittleFSError as why:
                unreadable[path] = why
    return found, unreadable


def write(image: Path, files: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Change files in an existing image while its board is off."""
    volume = _mounted(image, to_write=True)
    for path in remove:
        volume.remove(path)
    for path, content in files.items():
        with volume.open(path, "wb") as file:
            file.write(content)
    volume.unmount()
    image.write_bytes(bytes(volume.context.buffer))


def _volume(blocks: int) -> LittleFS:
    # The sizes that MicroPython's VfsLfs2(device, progsize=256) uses.
    return LittleFS(
        mount=False,
        block_size=BLOCK_BYTES,
        block_count=blocks,
        read_size=32,
        prog_size=PAGE_BYTES,
        lookahead_size=32,
    )


def _reader(blocks: int) -> LittleFS:
    # Who only reads may do it in large pieces: a third of the time, and nothing of it stands on flash.
    return LittleFS(
        mount=False,
        block_size=BLOCK_BYTES,
        block_count=blocks,
        read_size=BLOCK_BYTES,
        prog_size=PAGE_BYTES,
        cache_size=BLOCK_BYTES,
        lookahead_size=32,
    )


def _mounted(image: Path, *, to_write: bool = False) -> LittleFS:
    content = image.read_bytes()
    blocks = len(content) // BLOCK_BYTES
    volume = _volume(blocks) if to_write else _reader(blocks)
    volume.context.buffer = bytearray(content)
    volume.mount()
    return volume


__all__ = [
    "LittleFSError",
    "NoFirmware",
    "build",
    "contents",
    "find_firmware",
    "firmware_files",
    "names",
    "read",
    "readable",
    "write",
]
