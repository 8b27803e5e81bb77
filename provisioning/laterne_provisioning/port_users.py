"""Who has a serial port: the program that holds its lock.

Gateway, `laterne flash`, `board doctor`, mpremote and all that open a port exclusively by pyserial or serialx hold
flock(2) on it. The kernel's table of locks (proc(5), /proc/locks) names the process; whoever does not lock, as a
terminal or `cat`, is not seen here, and not kept out.
"""

import os
from pathlib import Path

from laterne_provisioning import output

MAX_TABLE_BYTES = 1 << 20
_LOCKS, _PROCESSES = Path("/proc/locks"), Path("/proc")
GATEWAY = "laterne-gateway"


def in_use(port: str) -> str:
    """A sentence for the person who wants the port: who has it, and what to do."""
    who = user_of(port)
    if who is None:
        return f"{port} is in use by another program, perhaps the gateway: stop that first."
    if GATEWAY in who:
        return (
            f"{port} is in use by {who}. It gives the port up by `laterne-gateway port release {port} --config FILE`, "
            "and takes it back by `port take`."
        )
    return f"{port} is in use by {who}: wait for it, or stop it first."


def user_of(port: str) -> str | None:
    """The program that has the port, as `laterne-gateway (process 812)`; None: nobody knows."""
    try:
        about = os.stat(port)
        with _LOCKS.open("rb") as file:
            table = file.read(MAX_TABLE_BYTES).decode(errors="replace")
    except OSError:
        return None
    where = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    for line in table.splitlines():
        # 7: FLOCK  ADVISORY  WRITE 812 00:05:337 0 EOF; who waits for a lock has "->" behind its number
        cells = line.split()
        if len(cells) > 5 and cells[1] == "FLOCK" and cells[5] == where and cells[4].isdigit():
            return f"{_name(cells[4])} (process {cells[4]})"
    return None


def _name(process: str) -> str:
    try:
        with (_PROCESSES / process / "cmdline").open("rb") as file:
            words = file.read(4096).decode(errors="replace").split("\0")
    except OSError:
        return "another program"
    typed = [os.path.basename(word) for word in words if word]
    if typed and typed[0].rstrip("0123456789.") == "python":
        typed = [word for word in typed[1:] if not word.startswith("-")]
    shown = " ".join(typed[:2]).replace("laterne_gateway", GATEWAY).replace("laterne_provisioning", "laterne")
    return output.foreign(shown) or "another program"
