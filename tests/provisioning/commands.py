"""`laterne` as a process, as an operator runs it: no terminal, what it printed, how it ended."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.provisioning.fake_board import FakeBoard

LATERNE = [sys.executable, "-m", "laterne_provisioning"]
WITHIN_S = 60.0


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def laterne(*arguments: object, code: int | None = 0, stdin: str | None = None) -> Ended:
    """Run it. code: how it must end; None for any way. It never may end in a traceback."""
    done = subprocess.run(
        [*LATERNE, *map(str, arguments)], capture_output=True, text=True, timeout=WITHIN_S, input=stdin or ""
    )
    assert "Traceback" not in done.stderr, done.stderr
    if code is not None:
        assert done.returncode == code, done.stdout + done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def enrol(board: FakeBoard, board_id: str, authority: Path, *more: object, code: int = 0) -> Ended:
    """`laterne board enrol` of a fake board."""
    return laterne("board", "enrol", "--port", board.port, "--id", board_id, "--authority", authority, *more, code=code)
