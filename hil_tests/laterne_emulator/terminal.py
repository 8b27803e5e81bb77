"""The program of which every board's process is a copy: it has the interpreter loaded, and forks for each life.

    python -I -S terminal.py FOLDER_OF_THE_WHEEL

A request on descriptor 0, a SEQPACKET socket, is the interpreter's arguments, with the board's terminal, its channel,
its end of the UART and the memory that it shares with its supervisor (records.py) as descriptors; the answer is the
number of the new process. `w` and a number waits for the end of one: its status. There is one thread, so what runs
between fork and the interpreter may be Python. In a session of its own a board gets no signals of our terminal.

SIGUSR1 is a board's Ctrl-C. This port's own way, SIGINT, leaves whatever C function is running, littlefs in the middle
of a block, too; on a board Ctrl-C only notes that an interrupt is wanted, and bytecode looks at its jumps (py/vm.c).
"""

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sys

CONTROL_FD, UART_FD = 3, 4  # in a board's process
WAIT = b"w"
_MOST_BYTES = 65536
_STATE_WORDS = 64  # of mp_state_ctx, whose first part is the thread's


def main() -> int:
    os.setsid()  # a Ctrl-C for the supervisor is none for us; we end when it does
    sys.path.insert(0, sys.argv[1])
    import micropython_run  # type: ignore[import-not-found]  # the wheel's extension: the whole unix port

    port = ctypes.CDLL(micropython_run.__file__)
    pending = _pending(port)
    _ctrl_c_is_sigusr1(port)
    requests = socket.socket(fileno=0)
    while True:
        request, handed, _, _ = socket.recv_fds(requests, _MOST_BYTES, 4)
        if not request:
            return 0
        if request.startswith(WAIT):
            _, status = os.waitpid(int(request[1:]), 0)
            requests.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        process = os.fork()
        if not process:
            arguments = request.decode("utf-8", "surrogateescape").split("\0")
            os._exit(_become(handed, micropython_run.run_main, arguments, pending))
        for end in handed:
            os.close(end)
        requests.send(b"%d" % process)


def _pending(port: ctypes.CDLL) -> "tuple[int, int]":
    # The address of mp_pending_exception, and what an interrupt puts there: the one word of the state that it changes.
    state = (ctypes.c_uint64 * _STATE_WORDS).in_dll(port, "mp_state_ctx")
    before = list(state)
    port.mp_sched_keyboard_interrupt()
    ((number, interrupt),) = [(n, new) for n, (old, new) in enumerate(zip(before, state, strict=True)) if old != new]
    state[number] = 0
    return ctypes.addressof(state) + 8 * number, interrupt


def _ctrl_c_is_sigusr1(port: ctypes.CDLL) -> None:
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGUSR1, ctypes.cast(port.mp_sched_keyboard_interrupt, ctypes.c_void_p))
    libc.siginterrupt(signal.SIGUSR1, 1)  # whoever waits for input looks, too


def _become(handed: "list[int]", run_main: object, arguments: "list[str]", pending: "tuple[int, int]") -> int:
    shared = mmap.mmap(handed.pop(), mmap.PAGESIZE)
    numbers = (ctypes.addressof(ctypes.c_char.from_buffer(shared)), *pending)
    # Out of the way first: the numbers that they shall have may be theirs already.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 64) for end in handed]
    for number, end in zip((0, CONTROL_FD, UART_FD), high, strict=True):
        os.dup2(end, number)
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.closerange(UART_FD + 1, high[-1] + 64)
    os.setsid()
    return int(run_main([*arguments, *map(str, numbers)]))  # type: ignore[operator]  # the extension has no types


if __name__ == "__main__":
    sys.exit(main())
