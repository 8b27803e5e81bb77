"""MicroPython itself onto a chip: a UF2 file by the drive of an RP2's boot loader, an image by an ESP32's esptool.

What may happen in between, and what the same command then does:
1 - the file is refused: nothing has changed.
2 - the board is in its boot loader, and nobody has written: its drive is found at once.
3 - the file is half written: an RP2 stays in its boot loader at the next power-on only if BOOTSEL is held; hold it.
4 - all is written: the interpreter fits, and nothing is written again.
The board's file system lies behind the interpreter and is not touched; no ESP32 is erased, keys may be on it.

Sources: the UF2 format (github.com/microsoft/uf2), family numbers of pico-sdk (boot/uf2.h); esptool's documentation,
"Firmware Image Format".
"""

import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from laterne_protocol.release_index import Head
from laterne_provisioning import output
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import interpreter
from laterne_provisioning.flashing.repl import NoRepl, Repl

MAX_FILE_BYTES = 32 * 1024 * 1024
DRIVE_WITHIN_S = 20.0  # a boot loader's USB, and whoever mounts drives
BACK_WITHIN_S = 30.0
WRITE_WITHIN_S = 300.0  # esptool at 115,200 baud: 1.7 MB take 150 s
LOOK_AGAIN_S = 0.2
PIECE_BYTES = 64 * 1024
_MOUNTS = Path("/proc/self/mounts")
_INFO = "INFO_UF2.TXT"
_FAT = {"vfat", "msdos", "exfat", "fuseblk"}  # what a boot loader's drive can be
_BLOCK = struct.Struct("<8I476sI")
_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_NOT_MAIN_FLASH, _HAS_FAMILY = 0x00000001, 0x00002000
_ABSOLUTE = 0xE48BFF57  # one block of it stands first, where a chip's erratum wants it
_RP2 = {0xE48BFF56: ("pico", "RPI-RP2"), 0xE48BFF59: ("pico2", "RP2350")}
_ESP_MAGIC = 0xE9
_ESP32 = 0  # of the chip's numbers in an image's header; the others have no pin map here
_BOOTLOADER = "import machine,time\ntime.sleep_ms(100)\nmachine.bootloader()\n"


@dataclass(frozen=True)
class Image:
    """A file that holds an interpreter. drive: what an RP2's boot loader calls itself, "" for an ESP32."""

    path: Path
    data: bytes
    model: str
    drive: str


def read(path: Path) -> Image:
    """Raises UsageError: it is nothing that a board could be given, or damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as why:
        raise UsageError(f"{path} cannot be read: {why.strerror}.") from why
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} has more than {MAX_FILE_BYTES} bytes: it is no interpreter of a board.")
    if data[:4] == struct.pack("<I", _MAGIC[0]):
        model, drive = _RP2[_family(path, data)]
        return Image(path, data, model, drive)
    if len(data) > 24 and data[0] == _ESP_MAGIC:
        (chip,) = struct.unpack_from("<H", data, 12)
        if chip != _ESP32:
            raise UsageError(f"{path} is for another chip than the ESP32 (number {chip}).")
        return Image(path, data, "esp32", "")
    raise UsageError(f"{path} is neither a .uf2 for an RP2040 or RP2350 nor a .bin for an ESP32.")


def _family(path: Path, data: bytes) -> int:
    """Whose UF2 this is, all of its blocks looked at."""
    damaged = UsageError(f"{path} is damaged: download it again.")
    if len(data) % _BLOCK.size:
        raise damaged
    families: dict[int, list[tuple[int, int]]] = {}
    for start in range(0, len(data), _BLOCK.size):
        one, two, flags, _, size, number, count, family, _, end = _BLOCK.unpack_from(data, start)
        if (one, two, end) != _MAGIC or not 0 < size <= 476 or number >= count:
            raise damaged
        if not flags & _HAS_FAMILY or flags & _NOT_MAIN_FLASH:
            raise UsageError(f"{path} does not say for which chip it is, or is not for its flash.")
        families.setdefault(family, []).append((number, count))
    families.pop(_ABSOLUTE, None)
    if len(families) != 1 or not families.keys() <= _RP2.keys():
        raise UsageError(f"{path} is for no RP2040 and no RP2350 (Arm).")
    ((family, found),) = families.items()
    if found != [(number, len(found)) for number in range(len(found))]:
        raise damaged
    return family


def prepare(image: Image, port: str, head: Head, say: Callable[[str], None], mounts: Path = _MOUNTS) -> None:
    """Put this interpreter on the chip, unless the one that is there fits a release with this head.

    An ESP32 without a REPL is written: a new one has none. An RP2 without one needs a person's finger on BOOTSEL.
    Raises NoRepl, UsageError, OperatorError.
    """
    if os.path.exists(port) and not (image.drive and drive_of(image, mounts)):
        try:
            with Repl(port) as repl:
                found = interpreter.told(repl.run(interpreter.ASK))
                if interpreter.problem_of(found, head) is None:
                    say(f"{found} fits the release: {image.path.name} is not needed")
                    return
                model = interpreter.model_said(found)
                if model != image.model:
                    raise UsageError(
                        f"{image.path} is for another chip ({image.model}) than the board on {port} has "
                        f"({model or output.foreign(found.machine)}). Nothing was written."
                    )
                say(f"The board has {found}, which the release is not for")
        except NoRepl as why:
            if image.drive:
                raise NoRepl(
                    f"What is on {port} gives no REPL, so it does not enter its boot loader by itself: hold BOOTSEL "
                    "while you plug the board in, and repeat the command."
                ) from why
    put(image, port, say, mounts)


def put(
    image: Image, port: str, say: Callable[[str], None], mounts: Path = _MOUNTS, within_s: float = DRIVE_WITHIN_S
) -> None:
    """Write it, and wait until the board is on its port again. Raises UsageError, OperatorError."""
    if image.drive:
        _by_drive(image, port, say, mounts, within_s)
    else:
        _by_esptool(image, port)
    say(f"{image.path.name} is on the chip. Waiting for {port}")
    end = time.monotonic() + BACK_WITHIN_S
    while not os.path.exists(port):
        if time.monotonic() > end:
            raise OperatorError(
                f"{port} has not come back with the new interpreter: plug the board in again, see which port it has "
                "now (laterne flash), and repeat the command."
            )
        time.sleep(LOOK_AGAIN_S)


def _by_drive(image: Image, port: str, say: Callable[[str], None], mounts: Path, within_s: float) -> None:
    if drive_of(image, mounts) is None and os.path.exists(port):
        say(f"Sending the board on {port} into its boot loader")
        with Repl(port) as repl:
            repl.leave(_BOOTLOADER)
    end = time.monotonic() + within_s
    while (drive := drive_of(image, mounts)) is None:
        if time.monotonic() > end:
            raise OperatorError(
                f"No drive {image.drive} is mounted. Hold BOOTSEL while you plug the board in; if nothing mounts its "
                f"drive, do it: udisksctl mount -b /dev/disk/by-label/{image.drive}. Then repeat the command."
            )
        time.sleep(LOOK_AGAIN_S)
    say(f"Writing {image.path.name} to {drive}")
    with output.bar("writing") as progress:
        _copy(image.data, drive / image.path.name, progress)


def drive_of(image: Image, mounts: Path = _MOUNTS) -> Path | None:
    """Where the drive of a boot loader that takes this image is mounted. Raises OperatorError: there are several."""
    found = []
    for line in mounts.read_text(errors="replace").splitlines():
        _, written, kind = line.split(" ")[:3]
        if kind not in _FAT:  # a folder that anybody may write in could send us anywhere
            continue
        # Spaces in a path stand there as \040 (fstab(5)).
        place = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), written))
        try:
            told = (place / _INFO).read_text(errors="replace")[:4096]
        except OSError:
            continue
        if f"Board-ID: {image.drive}" in told.splitlines():
            found.append(place)
    if len(found) > 1:
        raise OperatorError(f"Several boards are in their boot loader ({', '.join(map(str, found))}): leave one.")
    return found[0] if found else None


def _copy(data: bytes, path: Path, progress: Callable[[int, int], None]) -> None:
    """The boot loader starts the program with the last block, and takes its drive with it: from there on errors say
    nothing. Whether it runs, the port tells."""
    handed = 0
    try:
        with path.open("wb", buffering=0) as file:
            while handed < len(data):
                handed += file.write(data[handed : handed + PIECE_BYTES])
                os.fsync(file.fileno())
                progress(handed, len(data))
    except OSError as why:
        if handed < len(data) - PIECE_BYTES:
            raise OperatorError(
                f"The board's drive has gone away after {handed} of {len(data)} bytes ({why.strerror}): hold BOOTSEL "
                "while you plug the board in, and repeat the command."
            ) from why


def _by_esptool(image: Image, port: str) -> None:
    tool = shutil.which("esptool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if tool is None:
        raise UsageError("An ESP32 is written by esptool: pip install esptool, and repeat the command.")
    command = [tool, "--port", port, "--baud", "460800", "write-flash", "0x1000", str(image.path)]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=WRITE_WITHIN_S)
    except (OSError, subprocess.SubprocessError) as why:
        raise OperatorError(
            f"esptool has not written {image.path.name} ({why}): hold BOOT while you press EN, and repeat the command."
        ) from why
