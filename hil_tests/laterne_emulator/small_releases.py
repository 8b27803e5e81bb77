"""Releases of a few small files, for tests of what starts them: each says which one runs, and does one thing.

They hold the firmware's own record of the slots, and confirm, arm and abandon with it, as the firmware does. A start of
one takes some 20 ms. Every one consists of two modules that name it, so that a mixture of two would show:

    runs NEW NEW from /b
"""

from functools import cache
from pathlib import Path

import laterne_protocol
from laterne_emulator import image
from laterne_emulator.interpreter import compiled
from laterne_emulator.slots import Record, Release

OF_THE_FIRMWARE = ("laterne_firmware/slots", "laterne_firmware/store")
OF_THE_PROTOCOL = ("laterne_protocol/cbor", "laterne_protocol/errors", "laterne_protocol/fields")

_APP = """
import machine
import sys
import time

import part
from laterne_firmware.slots import State


def run():
    print("runs", "{name}", part.NAME, "from", sys.path[0])
    state = State()
    state.load()
    slot = sys.path[0][1:]
    tried = state.trial == slot
{does}
    print("done")
    while True:
        time.sleep_ms(1000)
"""

# What a release does. CONFIRMS and what follows act when it is tried; ARMS when it is the active one and nothing came
# of an update before.
NOTHING = "    pass"
CONFIRMS = "    if tried:\n        state.confirm()"
CRASHES = "    machine.reset()"
ABANDONS = "    if tried:\n        state.abandon()\n        machine.reset()"
HANGS = '    print("hangs")\n    while True:\n        pass'


def arms(slot: str, release: Release) -> str:
    """What the active release does to have another one tried."""
    digest, index, sequence = release.entry
    return (
        "    if not tried and state.trial is None and state.result is None and state.active == slot:\n"
        f"        state.arm({slot!r}, {digest!r}, {index!r}, {sequence})\n"
        "        machine.reset()"
    )


def release(name: str, does: str, sequence: int, abi: int = 6) -> Release:
    """One release. name: what it says when it runs."""
    return Release(_files(name, does), version=name.lower(), sequence=sequence, abi=abi)


@cache
def _files(name: str, does: str) -> dict[str, bytes]:
    files = {
        "app.mpy": compiled(_APP.format(name=name, does=does).encode(), "app"),
        "part.mpy": compiled(f"NAME = {name!r}\n".encode(), "part"),
        "laterne_firmware/__init__.mpy": compiled(b"", "laterne_firmware"),
        "laterne_protocol/__init__.mpy": compiled(b"", "laterne_protocol"),
    }
    for path in OF_THE_FIRMWARE:
        files[f"{path}.mpy"] = compiled((image.find_firmware() / f"{path}.py").read_bytes(), path)
    for path in OF_THE_PROTOCOL:
        source = Path(laterne_protocol.__path__[0]).parent / f"{path}.py"
        files[f"{path}.mpy"] = compiled(source.read_bytes(), path)
    return files


def board_files(a: Release, b: Release | None, record: Record | None, rescue: Release) -> dict[str, bytes]:
    """An enrolled board's image: this checkout's loader, and these releases. record: None for a board without one."""
    firmware = image.firmware_files(image.find_firmware())
    files = {path: firmware[path] for path in firmware if path.startswith("l/") or path in ("boot.py", "main.py")}
    files |= a.in_slot("a") | rescue.in_slot("r") | {"k/name.0": b"a board that is enrolled"}
    if b is not None:
        files |= b.in_slot("b")
    return files | (record.files() if record is not None else {})
