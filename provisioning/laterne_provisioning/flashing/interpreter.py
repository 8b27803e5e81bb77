"""The MicroPython that is on a board: which board that makes it, and whether a release runs on it.

Pure: what the board says of itself comes in, a model or a refusal comes out. `sys.implementation` says what: name,
version, `_mpy` (its lowest byte is the ABI of the bytecode it loads, py/persistentcode.h) and `_machine` (for people,
ends in the processor, as `Raspberry Pi Pico with RP2040`).
"""

import ast
from dataclasses import dataclass

from laterne_protocol import release_index
from laterne_protocol.release_index import Head
from laterne_provisioning import output
from laterne_provisioning.errors import OperatorError, UsageError

ABI_MASK = 0xFF
MAX_TOLD_BYTES = 512

# Run on the board: one line of Python literals, as `told` reads it.
ASK = (
    "import sys\n"
    "_i=sys.implementation\n"
    "print([_i.name,list(_i.version[:3]),getattr(_i,'_mpy',0),sys.platform,getattr(_i,'_machine','')])"
)

# (sys.platform, how `_machine` ends) -> the model whose pin map it gets. An ESP32-S3 or -C3 has other pins: not here.
_MODELS = {
    ("rp2", "RP2040"): "pico",
    ("rp2", "RP2350"): "pico2",
    ("esp32", "ESP32"): "esp32",
    ("linux", ""): "emulated",
}
_RP2 = (
    "hold BOOTSEL while you plug the board in, then: cp {name}-{version}.uf2 /media/$USER/{drive}/ "
    "(from https://micropython.org/download/{name}/)"
)
_ESP32 = (
    "esptool --port {port} erase-flash && esptool --port {port} --baud 460800 write-flash 0x1000 "
    "ESP32_GENERIC-{version}.bin (from https://micropython.org/download/ESP32_GENERIC/)"
)
_COMMANDS = {
    "pico": _RP2.replace("{name}", "RPI_PICO").replace("{drive}", "RPI-RP2"),
    "pico2": _RP2.replace("{name}", "RPI_PICO2").replace("{drive}", "RP2350"),
    "esp32": _ESP32,
    "emulated": "pip install 'laterne[emulator]'",
}


@dataclass(frozen=True)
class Interpreter:
    """What a board says of its MicroPython. abi: of the bytecode it loads, 0 for none."""

    name: str
    version: tuple[int, int, int]
    abi: int
    platform: str
    machine: str

    @property
    def dotted(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def number(self) -> int:
        """As in the head of an index."""
        return 10000 * self.version[0] + 100 * self.version[1] + self.version[2]

    def __str__(self) -> str:
        shown = f"{output.foreign(self.name)} {self.dotted}, bytecode ABI {self.abi}"
        return f"{shown}, {output.foreign(self.machine)}" if self.machine else shown


def told(line: bytes) -> Interpreter:
    """What ASK has printed. Raises OperatorError: something else than MicroPython has."""
    try:
        value = ast.literal_eval(line[:MAX_TOLD_BYTES].decode().strip())
        name, version, mpy, platform, machine = value
        major, minor, patch = version
        if not (isinstance(name, str) and isinstance(platform, str) and isinstance(machine, str)):
            raise ValueError("names are texts")
        return Interpreter(name, (int(major), int(minor), int(patch)), int(mpy) & ABI_MASK, platform, machine)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as why:
        raise OperatorError(
            f"What answers is no MicroPython that can be used (it said {line[:32].hex()}): put MicroPython on the "
            "board first, https://micropython.org/download/."
        ) from why


def model_said(found: Interpreter) -> str | None:
    """The model that a board says it is; None: it says nothing that is known."""
    return next(
        (
            model
            for (platform, ending), model in _MODELS.items()
            if found.platform == platform and (not ending or found.machine.upper().endswith(ending))
        ),
        None,
    )


def model_of(found: Interpreter, wanted: str | None, known: list[str]) -> str:
    """The model that this board is. wanted: what the technician says it is. known: models with a pin map.

    Raises UsageError: nobody knows, or it is another one.
    """
    model = model_said(found)
    choice = ", ".join(known)
    if wanted is not None and wanted not in known:
        raise UsageError(f"The release has no pin map for {wanted!r}: --model is one of {choice}.")
    if model is None and wanted is None:
        raise UsageError(
            f"Which board is it? It says {output.foreign(found.platform)}, {output.foreign(found.machine)}: give "
            f"--model, one of {choice}."
        )
    if None not in (model, wanted) and model != wanted:
        raise UsageError(
            f"The board's model is {model} ({output.foreign(found.machine)}), not {wanted}: leave --model out."
        )
    chosen = wanted or model
    assert chosen is not None
    if chosen not in known:
        raise UsageError(f"The release has no pin map for a {chosen}, only for {choice}: build one that has.")
    return chosen


def require_fits(found: Interpreter, head: Head, model: str, port: str) -> None:
    """That the board runs the release with this head. Raises OperatorError, with the command that makes it so."""
    wanted = "any MicroPython"
    if head.interpreters is not None:
        first, last = head.interpreters
        wanted = f"MicroPython {dotted(first)} to {dotted(last)}"
    problem = problem_of(found, head)
    if problem is None and head.loader != release_index.LOADER:
        raise OperatorError(
            f"The release needs a loader with interface {head.loader}, and laterne writes interface "
            f"{release_index.LOADER}: use the laterne that has built it."
        )
    if problem is not None:
        version = "VERSION" if head.interpreters is None else f"v{dotted(head.interpreters[1])}"
        command = _COMMANDS.get(model, "see https://micropython.org/download/").format(port=port, version=version)
        raise OperatorError(
            f"The release is for {wanted} with bytecode ABI {head.abi}, and {problem}. Nothing was written. Put the "
            f"right one on with --interpreter FILE, or yourself: {command}"
        )


def problem_of(found: Interpreter, head: Head) -> str | None:
    """Why this interpreter cannot run the release with this head, in words."""
    if found.name != "micropython":
        return f"the board runs {output.foreign(found.name)}"
    if found.abi != head.abi:
        return f"it loads bytecode of ABI {found.abi}"
    if head.interpreters is not None and not head.interpreters[0] <= found.number <= head.interpreters[1]:
        return f"it is {found.dotted}"
    return None


def dotted(number: int) -> str:
    """A version as in the head of an index, for people."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
