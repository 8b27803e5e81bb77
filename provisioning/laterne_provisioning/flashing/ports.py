"""Which serial ports could be a board: what `laterne flash` shows when no port is named, what `--batch` takes.

Who is flashed is interrupted first, by a Ctrl-C. Unasked that goes only to what says by its USB numbers that it is
MicroPython on a board of ours. Behind an adapter there may be anything (an ESP32, a gateway's line, a heating): such a
port is named by the technician.
"""

from dataclasses import dataclass

# MicroPython, ports/rp2/mpconfigport.h: MICROPY_HW_USB_VID and _PID, the same for RP2040 and RP2350.
_OURS = {(0x2E8A, 0x0005): "Raspberry Pi Pico or Pico 2 with MicroPython"}
# Vendors' own lists: who the adapter says it is.
_ADAPTERS = {
    (0x10C4, 0xEA60): "CP210x, as on many ESP32 boards",
    (0x1A86, 0x7523): "CH340, as on many ESP32 boards",
    (0x1A86, 0x55D4): "CH9102, as on many ESP32 boards",
    (0x0403, 0x6001): "FT232, an adapter",
}


@dataclass(frozen=True)
class Port:
    """device: its path. what: in words. serial: of the adapter or the board, or "". is_board: MicroPython, for sure."""

    device: str
    what: str
    serial: str
    is_board: bool


def found() -> list[Port]:
    """All ports that hang on USB."""
    from serial.tools import list_ports  # type: ignore[import-untyped]  # pyserial brings no types

    return sorted(
        (
            Port(
                one.device,
                (_OURS | _ADAPTERS).get((one.vid, one.pid), "") or one.description or "a serial port",
                one.serial_number or "",
                (one.vid, one.pid) in _OURS,
            )
            for one in list_ports.comports()
            if one.vid is not None  # what is soldered onto this machine is no board
        ),
        key=lambda port: port.device,
    )
