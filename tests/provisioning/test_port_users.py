"""Who has a port is told by name, for whoever wants it."""

import fcntl
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laterne_provisioning import port_users
from laterne_provisioning.doctor.console import Console
from laterne_provisioning.errors import UsageError
from laterne_provisioning.flashing.repl import Repl
from laterne_provisioning.line import Line

HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY), fcntl.LOCK_EX)
print(1, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port() -> Iterator[str]:
    board, device = pty.openpty()
    try:
        yield os.ttyname(device)
    finally:
        os.close(board)
        os.close(device)


@contextmanager
def program(folder: Path, name: str, port: str) -> Iterator[int]:
    """A program of this name that holds the port; its number."""
    (folder / name).write_text(HOLD)
    command = [sys.executable, str(folder / name), port]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_the_gateway_is_named_with_the_command_that_frees_the_port(tmp_path: Path, port: str) -> None:
    with program(tmp_path, "laterne-gateway", port) as number:
        said = port_users.in_use(port)
    assert f"in use by laterne-gateway {os.path.basename(port)} (process {number})" in said
    assert f"laterne-gateway port release {port}" in said


def test_another_program_is_named(tmp_path: Path, port: str) -> None:
    with program(tmp_path, "mpremote", port) as number:
        assert f"in use by mpremote {os.path.basename(port)} (process {number}): wait" in port_users.in_use(port)


@pytest.mark.parametrize("opened", [Repl, Console, Line], ids=["flash", "doctor and watch", "enrol"])
def test_whoever_comes_second_is_told_who_has_the_port(
    tmp_path: Path, port: str, opened: Callable[[str], object]
) -> None:
    with (
        program(tmp_path, "laterne-gateway", port) as number,
        pytest.raises(UsageError, match=rf"in use by laterne-gateway .*\(process {number}\).*port release"),
    ):
        opened(port)
    first = Console(port)
    with first, pytest.raises(UsageError, match=rf"process {os.getpid()}"):
        opened(port)


def test_nobody_is_named_who_is_not_there(port: str) -> None:
    assert port_users.user_of(port) is None
    assert port_users.user_of(port + "9") is None
    other = os.open(__file__, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert port_users.user_of(port) is None, "the lock of another file is none of this port"
    finally:
        os.close(other)
