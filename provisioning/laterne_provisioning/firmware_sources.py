"""The sources of a release: where they are, what version control says of them, what is compiled of them."""

import ast
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import laterne_protocol
from laterne_provisioning.errors import UsageError

PACKAGES = ("laterne_firmware", "laterne_protocol")
STARTED = ("boot.py", "main.py", "self_test.py")
_EPOCH = "SOURCE_DATE_EPOCH"  # reproducible-builds.org: the moment that stands for all moments of a build


@dataclass(frozen=True)
class Commit:
    """What version control says. name: the commit's. seconds: when it was made (Unix). changed: files unlike in it."""

    name: str
    seconds: int
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """What a release is built from.

    modules: {module: source} of firmware and protocol. started: boot.py, main.py and the self-test of `laterne flash`,
    which stay as they are. pins: {model: source} of the pin maps. commit: None without git.
    """

    folder: Path
    modules: dict[str, bytes]
    started: dict[str, bytes]
    pins: dict[str, bytes]
    commit: Commit | None

    @property
    def around(self) -> tuple[bytes, ...]:
        """What lies on a board beside the release and asks it by its names."""
        return (*self.started.values(), *self.pins.values())

    @property
    def version(self) -> str:
        """RELEASE of laterne_firmware, as boards tell it. Raises UsageError."""
        tree = ast.parse(self.modules["laterne_firmware.__init__"])
        for statement in tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="RELEASE")], value=ast.Constant(value=str(version))):
                    return version
        raise UsageError(f"{self.folder}/laterne_firmware/__init__.py names no RELEASE: write one there.")

    def moment(self) -> int | None:
        """Unix seconds that stand for this state of the sources; None if nobody says. Raises UsageError."""
        said = os.environ.get(_EPOCH)
        if said is not None:
            if not said.isdecimal():
                raise UsageError(f"{_EPOCH} is {said!r}: it counts seconds since 1970.")
            return int(said)
        return None if self.commit is None else self.commit.seconds


def read(folder: Path | None) -> Sources:
    """The sources in a checkout's firmware/, with the protocol beside it. Raises UsageError."""
    found = _firmware(folder)
    beside = found.parent / "protocol" / "laterne_protocol"
    protocol = beside if beside.is_dir() else Path(laterne_protocol.__path__[0])
    modules = {}
    try:
        for package in (found / PACKAGES[0], protocol):
            for path in sorted(package.rglob("*.py")):
                modules[".".join(path.relative_to(package.parent).with_suffix("").parts)] = path.read_bytes()
        started = {name: (found / name).read_bytes() for name in STARTED}
        pins = {path.stem: path.read_bytes() for path in sorted((found / "boards").glob("*.py"))}
    except OSError as why:
        raise UsageError(f"The firmware cannot be read: {why}.") from why
    return Sources(found, modules, started, pins, _commit(found, protocol))


def _firmware(folder: Path | None) -> Path:
    candidates = [folder] if folder is not None else [Path("firmware"), Path(__file__).parents[2] / "firmware"]
    for candidate in candidates:
        if (candidate / PACKAGES[0]).is_dir() and (candidate / "main.py").is_file():
            return candidate.resolve()
    raise UsageError(
        f"There is no firmware in {candidates[0]}: run from a checkout of laterne, or name its folder with "
        "--firmware DIR."
    )


def _commit(firmware: Path, protocol: Path) -> Commit | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(firmware), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        name, seconds = git("show", "--no-patch", "--format=%H %ct", "HEAD").split()
        # Also what is not tracked: every file in these folders gets into the release.
        status = git("status", "--porcelain", "--untracked-files=all", "--", str(firmware), str(protocol))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return Commit(name, int(seconds), tuple(sorted(line[3:] for line in status.splitlines() if line.endswith(".py"))))
