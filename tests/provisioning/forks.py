"""`laterne` in a fork of one process that has imported it: what an operator's command does, without the half second
of processor time in which each new interpreter reads the same modules again.

One server for each process of pytest; it has no threads, imports, and forks. A fork has the caller's directory and
environment, its own stdin, stdout and stderr, runs main() and ends as an interpreter ends. That each command also
starts in an interpreter of its own is said by test_starting.py, and by all tests that start commands.LATERNE.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.provisioning.killed import kill_before

import laterne_provisioning
from laterne_provisioning.__main__ import main

WITHIN_S = 60
_MAX_REQUEST_BYTES = 131_072  # arguments and environment; a packet between two sockets takes somewhat more
_ROOT = Path(__file__).parents[2]


def run(arguments: list[str], stdin: str = "", cut: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run `laterne` with these arguments. cut: killed before its cut-th operation (killed.py); 0: never.

    The return code is negative for a signal, as in `subprocess`; it is -SIGALRM after WITHIN_S.
    """
    wanted = {"arguments": arguments, "cut": cut, "directory": os.getcwd(), "environment": dict(os.environ)}
    answer, told = os.pipe()
    with (
        open(answer) as ended,
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        try:
            socket.send_fds(
                _server(), [json.dumps(wanted).encode()], [given.fileno(), out.fileno(), err.fileno(), told]
            )
        finally:
            os.close(told)
        code = int(ended.read())  # nothing: the server has died, which its stderr says
        # The fork had the same open files, and so the same position in them.
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # Not "-m": typer would call the command by the name of this module.
        program = f"from tests.provisioning import forks; forks.serve({theirs.fileno()})"
        server = subprocess.Popen(
            [sys.executable, "-c", program], pass_fds=[theirs.fileno()], cwd=_ROOT, stdin=subprocess.DEVNULL
        )

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait(WITHIN_S)

    return ours


def serve(descriptor: int) -> None:
    """The server: a fork for each request on this socket, until its other end is closed."""
    requests = socket.socket(fileno=descriptor)
    for module in pkgutil.walk_packages(laterne_provisioning.__path__, "laterne_provisioning."):
        importlib.import_module(module.name)  # also what a command would import when it needs it
    sys.argv = ["laterne", "board", "list", "--authority", os.devnull]  # libraries import more at their first use
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who was started with SIG_IGN cannot wait for anybody
    waiting = 0
    while True:
        request, files, _, _ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, 4)
        while waiting and os.waitpid(-1, os.WNOHANG)[0]:
            waiting -= 1  # those that have told how their command ended
        if not request:
            return  # pytest has ended
        if os.fork() == 0:
            requests.close()
            _wait_for(json.loads(request), *files)
            return
        waiting += 1
        for file in files:
            os.close(file)


def _wait_for(wanted: "dict[str, object]", stdin: int, stdout: int, stderr: int, told: int) -> None:
    command = os.fork()
    if command == 0:
        os.close(told)
        for number, file in enumerate((stdin, stdout, stderr)):
            os.dup2(file, number)
            os.close(file)
        _become(**wanted)  # type: ignore[arg-type]  # as run() has written it
        return
    _, status = os.waitpid(command, 0)
    os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(arguments: list[str], cut: int, directory: str, environment: dict[str, str]) -> None:
    signal.alarm(WITHIN_S)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["laterne", *arguments]
    if cut:
        kill_before(cut)
    main()
