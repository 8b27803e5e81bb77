"""Programs that tests run in the place of main.py, with the modules of the firmware as boards have them."""

from functools import cache
from pathlib import Path

from laterne_emulator import image
from laterne_provisioning import firmware_sources
from laterne_provisioning.compiling import flat_names


def files_of(program: Path) -> dict[str, bytes]:
    """{path on the board: bytes} of the firmware with this program as its main.py; the names in it are kept."""
    source = program.read_bytes()
    return image.firmware_files(image.find_firmware(), used_by=source) | {"main.py": flat(source)}


def flat(source: bytes) -> bytes:
    """A program that asks for modules of the firmware or the protocol, as it finds them on a board."""
    return flat_names.flat(source, _modules())


@cache
def _modules() -> frozenset[str]:
    return frozenset(firmware_sources.read(image.find_firmware()).modules)
