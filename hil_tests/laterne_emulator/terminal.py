"""The program that becomes a board's process: it takes the terminal on descriptor 0 for its own.

    python -I -S terminal.py FOLDER_OF_THE_WHEEL micropython-arguments...

A new session with a controlling terminal is what makes Ctrl-C a SIGINT for the board and for nothing else.
Doing it here, after the exec, is safe in a supervisor with threads; `preexec_fn` is not.
"""

import fcntl
import os
import sys
import termios


def main() -> int:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.path.insert(0, sys.argv[1])
    from micropython_run import run_main  # type: ignore[import-not-found]  # the wheel's extension: the whole unix port

    return int(run_main(["micropython", *sys.argv[2:]]))


if __name__ == "__main__":
    sys.exit(main())
