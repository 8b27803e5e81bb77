"""Which serial ports could be a board: what `laterne flash` shows when no port is named."""

from dataclasses import dataclass

# pid.codes and vendors' own lists: who the adapter or the board says it is.
_KNOWN = {
    (0x2E8A, 0x0005): "Raspberry Pi Pico or Pico 2 with MicroPython",
    (0x10C4, 0xEA60): "CP210x, as on many ESP32 boards",
    (0x1A86, 0x7523): "CH340, as on many ESP32 boards",
    (0x1A86, 0x55D4): "CH9102, as on many ESP32 boards",
    (0x0403, 0x6001): "FT232, an adapter",
}


@dataclass(frozen=True)
class Port:
    """device: its path. what: in words. serial: of the adapter or the board, or ""."""

    device: str
    what: str
    serial: str


def found() -> list[Port]:
    """All ports that hang on USB."""
    from serial.tools import list_ports  # type: ignore[import-untyped]

    return sorted(
        (
            Port(
                one.device,
                _KNOWN.get((one.vid, one.pid), "") or one.description or "a serial port",
                one.serial_number or "",
            )
            for one in list_ports.comports()
            if one.vid is not None  # what is soldered onto this machine is no board
        ),
        key=lambda port: port.device,
    )
