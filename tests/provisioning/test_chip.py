"""Files that hold an interpreter: which chip they are for, whether they are whole, and on which drive they belong."""

import struct
from pathlib import Path

import pytest

from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import chip

RP2040, RP2350, RISC_V, ABSOLUTE = 0xE48BFF56, 0xE48BFF59, 0xE48BFF5A, 0xE48BFF57
FLASH = 0x10000000


def block(number: int, count: int, family: int = RP2040, flags: int = 0x2000, *, end: int = 0x0AB16F30) -> bytes:
    head = (0x0A324655, 0x9E5D5157, flags, FLASH + 256 * number, 256, number, count, family)
    return struct.pack("<8I476sI", *head, bytes([number % 256]) * 256, end)


def uf2(count: int = 5, family: int = RP2040) -> bytes:
    return b"".join(block(number, count, family) for number in range(count))


def esp_image(chip_number: int = 0) -> bytes:
    return bytes((0xE9, 3, 2, 0x20)) + bytes(8) + struct.pack("<H", chip_number) + bytes(100)


def file_of(folder: Path, data: bytes) -> Path:
    file = folder / "interpreter"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("data", "model", "drive"),
    [
        (uf2(), "pico", "RPI-RP2"),
        (uf2(family=RP2350), "pico2", "RP2350"),
        (block(0, 2, ABSOLUTE) + uf2(family=RP2350), "pico2", "RP2350"),
        (esp_image(), "esp32", ""),
    ],
)
def test_a_file_says_which_chip_it_is_for(tmp_path: Path, data: bytes, model: str, drive: str) -> None:
    found = chip.read(file_of(tmp_path, data))
    assert (found.model, found.drive, found.data) == (model, drive, data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (uf2()[:-1], "damaged"),
        (uf2()[:-512], "damaged"),
        (uf2()[512:], "damaged"),
        (block(0, 1, end=0), "damaged"),
        (block(1, 2) + block(0, 2), "damaged"),
        (uf2() + uf2(family=RP2350), "no RP2040"),
        (uf2(family=RISC_V), "no RP2040"),
        (block(0, 1, flags=0), "which chip"),
        (block(0, 1, flags=0x2001), "which chip"),
        (esp_image(9), "another chip"),
        (b"", "neither"),
        (b"GIF89a" + bytes(600), "neither"),
    ],
)
def test_what_is_no_interpreter_or_not_whole_is_refused_before_anything_happens(
    tmp_path: Path, data: bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        chip.read(file_of(tmp_path, data))


def mounted(folder: Path, *boards: str) -> Path:
    """A list of mounts as the kernel's, with a drive of each of these boot loaders."""
    lines = ["proc /proc proc rw 0 0"]
    for number, board in enumerate(boards):
        drive = folder / f"drive {number}"
        drive.mkdir()
        (drive / "INFO_UF2.TXT").write_text(f"UF2 Bootloader v3.0\r\nModel: Raspberry Pi\r\nBoard-ID: {board}\r\n")
        place = str(drive).replace(" ", r"\040")
        lines.append(f"/dev/sd{number} {place} vfat rw 0 0")
    mounts = folder / "mounts"
    mounts.write_text("\n".join(lines) + "\n")
    return mounts


def test_the_drive_of_the_right_chip_is_found_and_two_of_them_are_a_question(tmp_path: Path) -> None:
    image = chip.read(file_of(tmp_path, uf2()))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert chip.drive_of(image, mounted(tmp_path / "a", "RP2350", "RPI-RP2")) == tmp_path / "a" / "drive 1"
    with pytest.raises(OperatorError, match="leave one"):
        chip.drive_of(image, mounted(tmp_path / "b", "RPI-RP2", "RPI-RP2"))


def test_only_a_drive_can_be_a_boot_loader_s_and_its_path_may_have_any_letters(tmp_path: Path) -> None:
    """Who may write into a folder that is mounted, as /dev/shm, must not have an interpreter written where he wants."""
    image = chip.read(file_of(tmp_path, uf2()))
    mounts = mounted(tmp_path, "RPI-RP2")
    mounts.write_text(mounts.read_text().replace(" vfat ", " tmpfs "))
    assert chip.drive_of(image, mounts) is None
    (tmp_path / "Müller").mkdir()
    assert chip.drive_of(image, mounted(tmp_path / "Müller", "RPI-RP2")) == tmp_path / "Müller" / "drive 0"


def test_a_drive_that_nobody_mounts_is_asked_for_with_the_command_that_does_it(tmp_path: Path) -> None:
    image = chip.read(file_of(tmp_path, uf2()))
    with pytest.raises(OperatorError, match=r"BOOTSEL.*udisksctl mount -b /dev/disk/by-label/RPI-RP2"):
        chip.put(image, str(tmp_path / "no port"), lambda _: None, mounted(tmp_path, "RP2350"), within_s=0.0)


def test_what_was_written_is_the_file_and_then_the_port_is_there(tmp_path: Path) -> None:
    image = chip.read(file_of(tmp_path, uf2(2000)))
    port = tmp_path / "port"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "Waiting" in text:
            port.touch()

    chip.put(image, str(port), say, mounted(tmp_path, "RPI-RP2"))
    assert (tmp_path / "drive 0" / "interpreter").read_bytes() == image.data


def test_an_esp32_is_written_by_esptool_where_its_boot_loader_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """esptool itself wants a chip: a program in its place writes down how it was called."""
    image = chip.read(file_of(tmp_path, esp_image()))
    port = tmp_path / "port"
    port.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="pip install esptool"):
        chip.put(image, str(port), lambda _: None)
    tool = tmp_path / "esptool"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    tool.chmod(0o755)
    chip.put(image, str(port), lambda _: None)
    called = (tmp_path / "called").read_text().split()
    assert called == ["--port", str(port), "--baud", "460800", "write-flash", "0x1000", str(image.path)]
    tool.write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(OperatorError, match="hold BOOT"):
        chip.put(image, str(port), lambda _: None)
