"""200 boards with the real firmware, from one CSV: stopped twice on the way, and nobody can tell afterwards."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

LATERNE = [sys.executable, "-m", "laterne_provisioning"]
GROUPS = (29, 29, 29, 29, 28, 28, 28)  # one `laterne emulate` runs 32 boards at most
BOARDS = sum(GROUPS)
WITHIN_S = 120.0


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[list[str]]:
    """The lines of 200 emulated boards that are running."""
    with ExitStack() as stack:
        commands = []
        for number, boards in enumerate(GROUPS):
            arguments = [*LATERNE, "emulate", str(tmp_path / f"e{number}"), "--boards", str(boards)]
            command = stack.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True))
            stack.callback(command.terminate)
            commands.append(command)
        found = []
        for command, boards in zip(commands, GROUPS, strict=True):
            assert command.stdout is not None
            for _ in range(boards):
                line = command.stdout.readline()  # board-01: uart PATH, usb PATH
                assert ": uart " in line
                found.append(line.partition(": uart ")[2].partition(", usb ")[0])
        yield found


def laterne(*arguments: object) -> Any:
    done = subprocess.run([*LATERNE, *map(str, arguments), "--json"], capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def stopped_at(count: int, how: signal.Signals, arguments: list[str]) -> int:
    """Stop the command when it has told of so many boards on its terminal. Its exit code."""
    master, slave = pty.openpty()
    with subprocess.Popen([*LATERNE, *arguments], stdout=subprocess.DEVNULL, stderr=slave) as command:
        os.close(slave)
        shown = b""
        try:
            while f"{count} of {BOARDS}: ".encode() not in shown:
                shown += os.read(master, 4096)
            command.send_signal(how)
            with contextlib.suppress(OSError):  # the terminal is closed: the command has ended
                while os.read(master, 4096):
                    pass
            return command.wait(WITHIN_S)
        finally:
            command.kill()  # a test that fails does not wait for it
            os.close(master)


def test_200_boards_are_enrolled_from_a_csv_stopped_twice_with_the_same_result(
    ports: list[str], tmp_path: Path
) -> None:
    authority, table = tmp_path / "authority", tmp_path / "boards.csv"
    laterne("init", authority, "--no-passphrase")
    rows = [f"LE-{number:04},{port},P-{number}" for number, port in enumerate(ports, 1)]
    table.write_text("\n".join(["id,port,post", *rows]) + "\n")
    arguments = ["board", "enrol", "--csv", str(table), "--authority", str(authority), "--jobs", "8"]
    given: dict[str, str] = {}
    for count, how, code in ((60, signal.SIGKILL, -signal.SIGKILL), (130, signal.SIGINT, 130)):
        assert stopped_at(count, how, arguments) == code
        listed = laterne("board", "list", "--authority", authority)
        assert len(listed) < BOARDS
        for row in listed:
            assert given.setdefault(row["id"], row["credential"]) == row["credential"]
    done = laterne(*arguments)
    assert (done["failed"], done["enrolled"] + done["already"]) == (0, BOARDS)
    assert done["already"] >= 120
    listed = laterne("board", "list", "--authority", authority)
    assert [(row["id"], row["state"], row["post"]) for row in listed] == [
        (f"LE-{number:04}", "enrolled", f"P-{number}") for number in range(1, BOARDS + 1)
    ]
    assert len({row["kid"] for row in listed}) == BOARDS
    assert given.items() <= {row["id"]: row["credential"] for row in listed}.items()
    # The boards themselves say the same: each is asked again, through its own line.
    for row, port in list(zip(listed, ports, strict=True))[:: BOARDS // 4]:
        asked = laterne("board", "enrol", "--port", port, "--id", row["id"], "--authority", authority)
        assert (asked["already"], asked["credential"]) == (True, row["credential"])
