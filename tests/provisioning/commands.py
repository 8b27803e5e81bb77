"""`laterne` as an operator runs it: no terminal, what it printed, how it ended."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.provisioning import forks
from tests.provisioning.fake_board import FakeBoard

LATERNE = [sys.executable, "-m", "laterne_provisioning"]  # for tests that speak with it while it runs
WITHIN_S = float(forks.WITHIN_S)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def laterne(*arguments: object, code: int | None = 0, stdin: str | None = None) -> Ended:
    """Run it. code: how it must end; None for any way. It never may end in a traceback, nor take WITHIN_S."""
    done = forks.run([*map(str, arguments)], stdin or "")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode != -signal.SIGALRM, f"still running after {WITHIN_S} s: {arguments}"
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def running(
    *arguments: object, command: Sequence[str] = tuple(LATERNE), terminal: int | None = None, quiet: bool = False
) -> "Iterator[subprocess.Popen[str]]":
    """`laterne` while it runs, ended when the test is, however that ends: one that fails while it waits for something
    must neither wait for the command nor leave it behind.

    terminal: a descriptor; the command has a session of its own with it. quiet: what it says is not kept.
    """
    pipe = subprocess.DEVNULL if quiet else subprocess.PIPE
    out = pipe if terminal is None else terminal
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stdin=terminal,
        stdout=out,
        stderr=out,
        text=True,
        start_new_session=terminal is not None,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def killed_at(cut: int, *arguments: object) -> bool:
    """Whether the command finished because it has fewer operations than that (killed.py). Else it was killed at the
    cut-th."""
    done = forks.run([*map(str, arguments)], cut=cut)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def enrol(board: FakeBoard, board_id: str, authority: Path, *more: object, code: int = 0) -> Ended:
    """`laterne board enrol` of a fake board."""
    return laterne("board", "enrol", "--port", board.port, "--id", board_id, "--authority", authority, *more, code=code)
