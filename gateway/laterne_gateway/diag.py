"""`laterne-gateway diag`: one file for whoever is asked for help, with what they would ask for, and no secret.

What goes in is named here, one by one; nothing is collected by a pattern. Keys, passwords and reports stay: of
the files that the configuration names only the public ones (trust, roster, credential) are copied. The configuration
itself holds paths of secrets and never a secret, but somebody may have noted one in a comment, so it goes without its
comments; of the unit only the properties that are named here, so nothing of its environment.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from laterne_gateway import VERSION, check, status
from laterne_gateway.config import Config, ConfigError, parse, read
from laterne_gateway.install import UNIT_NAME
from laterne_protocol import cose, trust
from laterne_protocol.errors import WireError

DONE, WRONG = 0, 1
LINES = 5000  # of the journal: some days of a quiet gateway, 1 MiB
COMMAND_WITHIN_S = 30.0
MAX_FILE_BYTES = 1_048_576
UNIT = (
    "ActiveState",
    "SubState",
    "Result",
    "StatusText",
    "NRestarts",
    "ExecMainStartTimestamp",
    "ExecMainCode",
    "ExecMainStatus",
    "WatchdogTimestamp",
    "MemoryCurrent",
    "MemoryMax",
    "CPUUsageNSec",
    "FragmentPath",
    "DropInPaths",
)
LIBRARIES = ("aiomqtt", "cbor2", "cryptography", "paho-mqtt", "serialx")


def diag(config: Config, output: Path) -> int:
    """Writes a .tar.gz. Returns the exit code; what could not be had stands in its place in the file."""
    members: dict[str, Callable[[], str]] = {
        "status.json": lambda: json.dumps(status.read(config.gateway.directory), indent=2),
        "gateway.json": lambda: _configuration(config.file),
        "check.txt": lambda: _check(config),
        "machine.txt": lambda: "\n".join(_machine(config)),
        "journal.txt": lambda: _said_by("journalctl", "--unit", UNIT_NAME, "--lines", str(LINES), "--no-pager"),
        "unit.txt": lambda: _said_by(
            "systemctl", "show", UNIT_NAME, "--no-pager", *(f"--property={one}" for one in UNIT)
        ),
    }
    public = {"trust.cbor": config.gateway.trust, "roster.cbor": config.gateway.roster}
    public["gateway.cbor"] = config.gateway.credential
    folder = f"laterne-diag-{config.gateway.id}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    try:
        with output.open("xb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, made in members.items():
                _add(archive, f"{folder}/{name}", _or_why(made).encode())
            for name, path in public.items():
                _add(archive, f"{folder}/{name}", _bytes(path))
    except FileExistsError:
        print(f"{output}: is there already: name a new file", file=sys.stderr)
        return WRONG
    except OSError as why:
        print(f"{output}: cannot be written: {why.strerror}", file=sys.stderr)
        with contextlib.suppress(OSError):
            output.unlink(missing_ok=True)  # half of one is of no use, and would be in the way of the next
        return WRONG
    print(f"{output}: written; it holds ids, places and addresses, and no key, password or reading")
    return DONE


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(content))


def _or_why(made: Callable[[], str]) -> str:
    # One part that fails must not cost the others: that something cannot be had is what somebody wants to know.
    try:
        return made()
    except Exception as why:
        return f"could not be had: {type(why).__name__}: {why}\n"


def _bytes(path: Path) -> bytes:
    """A signed object, and nothing else: a setting may name a key by mistake."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError as why:
        return f"could not be had: {why}\n".encode()
    return data if _is_signed(data) else f"left out: {path} is nothing that an authority has signed\n".encode()


def _is_signed(data: bytes) -> bool:
    try:
        cose.parse(data, MAX_FILE_BYTES)
    except WireError:
        with contextlib.suppress(WireError):  # a trust: several together
            return bool(trust.signed_of(data))
        return False
    return True


def _configuration(file: Path) -> str:
    """As it stands there, if it is one: of settings that we do not know nobody can say that they are no secrets."""
    try:
        raw = read(file)
        parse(file, raw)
    except ConfigError as why:
        return "left out, it cannot be used:\n" + "\n".join(why.problems) + "\n"
    return json.dumps(tomllib.loads(raw.decode()), indent=2)


def _check(config: Config) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        check.check(config)
    return said.getvalue()


def _said_by(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False)
    return done.stdout + done.stderr


def _machine(config: Config) -> Iterator[str]:
    yield f"laterne {VERSION}, Python {platform.python_version()}, {platform.platform()}"
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name} {importlib.metadata.version(name)}"
    yield f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"
    for path in ("/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/sys/class/thermal/thermal_zone0/temp"):
        with contextlib.suppress(OSError):
            yield f"{path}:\n{Path(path).read_text(encoding='ascii')[:2000]}"
    if config.gateway.directory.is_dir():
        disk = os.statvfs(config.gateway.directory)
        yield f"{config.gateway.directory}: {disk.f_bavail * disk.f_frsize // 2**20} MiB free"
        for file in sorted(config.gateway.directory.iterdir()):
            yield f"{file.name}: {file.lstat().st_size} bytes"
    yield "ports: " + ", ".join(str(path) for path in sorted(Path("/dev/serial/by-id").glob("*")))
