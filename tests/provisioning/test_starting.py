"""Each command in an interpreter of its own, as the operator starts it: most other tests use forks (forks.py)."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.provisioning import forks
from tests.provisioning.commands import WITHIN_S, laterne

from laterne_provisioning.__main__ import PARTS

COMMANDS = sorted(PARTS)
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


@pytest.mark.parametrize("command", COMMANDS)
def test_the_overview_says_of_a_command_what_the_command_says_of_itself(command: str) -> None:
    said = " ".join(laterne(command, "--help").out.split())
    assert PARTS[command].help in said


def test_the_overview_names_every_command_and_calls_none() -> None:
    shown = laterne("--help").out
    for command in (*COMMANDS, "demo", "emulate"):
        assert f" {command} " in shown
    assert "No such command" in laterne("nothing", code=2).err
    assert "Usage: laterne init" in laterne("--", "init", code=2).err


def test_the_version_is_that_of_the_package() -> None:
    assert laterne("--version").out == f"laterne {version('laterne')}\n"


# What takes long to be imported, and the commands that have no use for it.
HEAVY = {"serialx", "aiomqtt", "securesystemslib.signer", "segno", "cyclonedx", "rich.table", "asyncio"}
NEEDS_LITTLE = [
    ["board", "list"],
    ["board", "show", "LE-0001"],
    ["trust", "export", "-o", "trust"],
    ["audit", "verify"],
]


@pytest.mark.parametrize("arguments", NEEDS_LITTLE)
def test_a_command_imports_nothing_heavy_that_it_has_no_use_for(arguments: list[str], authority: Path) -> None:
    program = _PROGRAM.replace("main()", "import atexit; atexit.register(lambda: print(*sys.modules)); main()")
    more = ["--authority", str(authority)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *more],
        capture_output=True, text=True, timeout=WITHIN_S, cwd=authority,
    )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "laterne_provisioning.authority" in loaded
    assert loaded & HEAVY == ({"rich.table"} if arguments == ["board", "list"] else set())
