"""Nobody who is none of our boards is interrupted unasked: which USB ports `laterne flash` takes by itself."""

from pathlib import Path

import pytest
from serial.tools import list_ports  # type: ignore[import-untyped]  # pyserial brings no types
from serial.tools.list_ports_common import ListPortInfo  # type: ignore[import-untyped]  # as above

from laterne_provisioning.errors import UsageError
from laterne_provisioning.flashing import box_command, commands, ports


def adapter(device: str, vid: int | None, pid: int | None, description: str) -> ListPortInfo:
    port = ListPortInfo(device)
    port.vid, port.pid, port.description, port.serial_number = vid, pid, description, "1"
    return port


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged = [
        adapter("/dev/ttyACM0", 0x2E8A, 0x0005, "Board in FS mode"),
        adapter("/dev/ttyACM1", 0x2E8A, 0x000C, "Debugprobe on Pico"),
        adapter("/dev/ttyUSB0", 0x10C4, 0xEA60, "CP2102"),
        adapter("/dev/ttyUSB1", 0x067B, 0x2303, "the heating\x1b[2J"),
        adapter("/dev/ttyS0", None, None, "ttyS0"),
    ]
    monkeypatch.setattr(list_ports, "comports", lambda: plugged)


def options(line: str, port_from: str | None = None) -> box_command.Options:
    return box_command.Options("LE-0001", 2, None, line, port_from, None, None, False)


@pytest.mark.usefixtures("street")
def test_a_box_takes_what_is_a_board_for_sure_and_says_once_what_it_leaves_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    look = box_command.looking(options("/dev/ttyUSB0"))
    assert [list(look()) for _ in range(3)] == [["/dev/ttyACM0"]] * 3
    said = capsys.readouterr().err.splitlines()
    assert [one.split()[0] for one in said] == ["/dev/ttyACM1", "/dev/ttyUSB1"], "the line is no stranger"
    assert "--port-from '/dev/ttyUSB1'" in said[1]
    assert "\x1b" not in said[1]


@pytest.mark.usefixtures("street")
def test_what_the_technician_names_is_taken(tmp_path: Path) -> None:
    for name in ("jig-1-usb", "jig-2-usb"):
        (tmp_path / name).touch()
    look = box_command.looking(options("/dev/ttyUSB0", str(tmp_path / "jig-*-usb")))
    assert list(look()) == [str(tmp_path / "jig-1-usb"), str(tmp_path / "jig-2-usb")]


@pytest.mark.usefixtures("street")
def test_without_a_port_nothing_is_flashed(capsys: pytest.CaptureFixture[str]) -> None:
    commands.flash()
    assert "/dev/ttyACM0" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"laterne flash PORT … On USB here: /dev/ttyACM0 \(Raspberry Pi Pico"):
        commands.flash(release_file=Path("r.laterne"))
    assert [port.is_board for port in ports.found()] == [True, False, False, False]
