"""The processes that are boards' processors: copies of one that has the interpreter loaded (terminal.py).

A life begins in 2 ms. All boards of this process share that one, from the first board on until it ends.
"""

import atexit
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from enum import Enum
from pathlib import Path

from laterne_emulator import interpreter, records
from laterne_emulator.terminal import WAIT

_TERMINAL = Path(__file__).parent / "terminal.py"


class CtrlC(Enum):
    """What became of one."""

    TAKEN = "the program that runs will be interrupted"
    CHARACTER = "none may be interrupted: it is a character like others"
    LATER = "a flash operation begins or ends: ask again"


class Processor:
    """One life. pidfd: readable when it is over; closed by wait()."""

    def __init__(self, origin: "_Origin", pid: int, shared: mmap.mmap) -> None:
        self._origin = origin
        self._pid = pid
        self._shared = shared
        self.pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        """SIGKILL; nothing happens to one that has ended."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def interrupt(self) -> CtrlC:
        """Ctrl-C. The process is stopped while we look: what was true still is when the signal comes (terminal.py).

        The interpreter has a handler for SIGINT while Ctrl-C is its interrupt character (py/mphal.h), and only then.
        """
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
            try:
                return self._interrupt_stopped()
            finally:
                signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)
        except ProcessLookupError:
            return CtrlC.CHARACTER

    def _interrupt_stopped(self) -> CtrlC:
        while (status := self._status())["State"][0] not in "TZX":
            os.sched_yield()
        where = self._shared[records.WHERE]
        if where == records.STARTING or not int(status["SigCgt"], 16) >> (signal.SIGINT - 1) & 1:
            return CtrlC.CHARACTER
        if where == records.EDGE:
            return CtrlC.LATER
        if where == records.WITHIN:
            self._shared[records.WANTED] = 1
            return CtrlC.TAKEN
        signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)
        return CtrlC.TAKEN

    def _status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def wait(self) -> int:
        """Its exit status, once; negative: the signal that ended it. It has ended, or will at once."""
        os.close(self.pidfd)
        self._shared.close()
        return self._origin.ask(WAIT + b"%d" % self._pid)


class _Origin:
    """The process that forks. Asked by one thread at a time; each answer comes within a millisecond."""

    def __init__(self) -> None:
        self._asked = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_TERMINAL), str(interpreter.wheel_folder())],
            stdin=theirs.fileno(),
            env=interpreter.environment(),
            cwd="/",
        )
        theirs.close()

    def ask(self, request: bytes, handed: "tuple[int, ...]" = ()) -> int:
        with self._asked:
            socket.send_fds(self._requests, [request], handed)
            return int(self._requests.recv(64))

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


_origins: list[_Origin] = []
_beginning = threading.Lock()


def start(arguments: list[str], terminal: int, channel: int, uart: int) -> Processor:
    """A life of a board: these are its descriptors 0 to 2, 3 and 4. They may be closed when this returns.

    Raises interpreter.EmulatorUnusable.
    """
    with _beginning:
        if not _origins:
            made = _Origin()
            _origins.append(made)
            atexit.register(made.close)
    request = "\0".join(arguments).encode("utf-8", "surrogateescape")
    memory = os.memfd_create("laterne-board")
    try:
        os.ftruncate(memory, mmap.PAGESIZE)
        shared = mmap.mmap(memory, mmap.PAGESIZE)
        return Processor(_origins[0], _origins[0].ask(request, (terminal, channel, uart, memory)), shared)
    finally:
        os.close(memory)
