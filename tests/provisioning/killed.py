"""Kill a command at the n-th time it brings something to the disk, gives a file its name or speaks to SQLite.

The command kills itself, with SIGKILL, just before the operation: nothing of it is cleaned up.
"""

import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

_OPERATIONS = ("write", "fsync", "link", "replace", "rename", "unlink", "mkdir")


def kill_before(cut: int) -> None:
    """From now on this process counts its operations, and kills itself just before the cut-th; 1 is the next."""
    left = cut

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **options)

        return count

    for name in _OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))

    class Connection(sqlite3.Connection):
        execute = counted(sqlite3.Connection.execute)

    connect = sqlite3.connect

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Connection, **options)

    setattr(sqlite3, "connect", connected)  # noqa: B010 - mypy does not let a function of a module be assigned
