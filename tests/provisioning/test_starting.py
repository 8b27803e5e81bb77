"""Each command in an interpreter of its own, as the operator starts it: most other tests use forks (forks.py)."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.provisioning import forks
from tests.provisioning.commands import WITHIN_S, laterne

COMMANDS = [
    "audit",
    "backup",
    "board",
    "campaign",
    "gateway",
    "grant",
    "init",
    "release",
    "restore",
    "roster",
    "trust",
    "verify",
]
_PROGRAM = "import sys; sys.argv[0] = 'laterne'; from laterne_provisioning.__main__ import main; main()"


def alone(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, timeout=WITHIN_S
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_starts_in_an_interpreter_of_its_own(command: str) -> None:
    done = alone(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"laterne {command}" in done.stdout
    assert done.stdout == laterne(command, "--help").out


@pytest.mark.parametrize("arguments", [["board", "list", "--authority", "."], ["trust", "rotate"], ["nothing"], []])
def test_a_fork_ends_as_an_interpreter_of_its_own_does(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forked, one = forks.run(arguments), alone(*arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (one.returncode, one.stdout, one.stderr)
