"""Kill a command at the n-th time it brings something to the disk, gives a file its name or speaks to SQLite.

The command kills itself, with SIGKILL, just before the operation: nothing of it is cleaned up.
"""

import signal
import subprocess
import sys

from tests.provisioning.commands import WITHIN_S

_PROGRAM = """
import os, signal, sqlite3, sys
left = int(sys.argv[1])

def cut(operation):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*arguments, **options)
    return counted

for name in ("write", "fsync", "link", "replace", "rename", "unlink", "mkdir"):
    setattr(os, name, cut(getattr(os, name)))

class Connection(sqlite3.Connection):
    execute = cut(sqlite3.Connection.execute)

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
sys.argv = ["laterne", *sys.argv[2:]]
from laterne_provisioning.__main__ import main
main()
"""


def killed_at(cut: int, *arguments: object) -> bool:
    """Whether the command finished because it has fewer operations than that. Else it was killed at the cut-th."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(cut), *map(str, arguments)], capture_output=True, timeout=WITHIN_S
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0
