"""Checks the firmware against what `machine` really has on each port: 0 errors with the stubs of rp2 and of esp32.

    .venv/bin/python firmware/check_types.py

The stubs of two ports have the same file names, so they cannot share an environment: each gets a folder of its own in
build/stubs/, installed from requirements.lock with its hashes. Exit code 1 when there are errors.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUBS = HERE.parent / "build" / "stubs"
PORTS = ("rp2", "esp32")


def locked(names: list[str]) -> str:
    """The requirements of these packages as requirements.lock has them, hashes included."""
    entries = (HERE.parent / "requirements.lock").read_text().replace("\\\n", "").splitlines()
    found = [line for name in names for line in entries if line.startswith(f"{name}==")]
    if len(found) != len(names):
        raise SystemExit(f"requirements.lock lacks one of {', '.join(names)}: run make lock")
    return "\n".join(found) + "\n"


def stubs(port: str) -> Path:
    """The folder with the stubs of a port, installed if it is not there."""
    folder = STUBS / port
    requirements = locked([f"micropython-{port}-stubs", "micropython-stdlib-stubs"])
    record = folder / "requirements.txt"
    if not record.exists() or record.read_text() != requirements:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = STUBS / f"{port}.txt"
        wanted.write_text(requirements)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--upgrade"]
        subprocess.run([*pip, "--target", str(folder), "-r", str(wanted)], check=True)
        record.write_text(requirements)
    return folder


def check(port: str) -> int:
    """Runs basedpyright; its exit code."""
    folder = str(stubs(port))
    settings = json.loads((HERE / "pyrightconfig.json").read_text())
    for name in ("include", "extraPaths"):
        settings[name] = [str((HERE / path).resolve()) for path in settings[name]]
    settings |= {"typeshedPath": folder, "stubPath": folder}
    project = STUBS / f"{port}.json"
    project.write_text(json.dumps(settings))
    print(f"{port}: ", end="", flush=True)
    return subprocess.run([str(Path(sys.executable).with_name("basedpyright")), "-p", str(project)]).returncode


if __name__ == "__main__":
    sys.exit(max(check(port) for port in PORTS))
