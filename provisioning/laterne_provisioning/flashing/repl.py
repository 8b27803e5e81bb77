"""The raw REPL of a board's USB port, by mpremote's transport.

Only blank boards, and boards that are not enrolled, have one: an enrolled board lets no Ctrl-C in (firmware/README.md,
"Who gets in by USB?"). The port is opened exclusively. What mpremote prints about its troubles is not shown.
"""

import os
import struct
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from laterne_provisioning import line, output, port_users
from laterne_provisioning.errors import OperatorError, UsageError

# A board that starts lets nobody in until its loader has read its slot: 200 KB, about 2 s on an RP2040.
ATTEMPTS = 4
ATTEMPT_S = 2.0
QUIET_S = 0.1  # then nothing of an earlier attempt is on its way any more
ANSWER_WITHIN_S = 20.0  # between two bytes: the longest is a flash erase of 0.4 s, or the hash of some files
RESET_WITHIN_S = 1.0  # after _RESET: its pause, and then the port vanishes, or an ESP32's ROM says something
BACK_WITHIN_S = 15.0  # a port after a reset: USB is there again after about 1 s, and udev has its turn
LOOK_AGAIN_S = 0.1
MAX_TRACEBACK = 300
# Of the answer to one program, or before the REPL is there: the longest list of files is a quarter of it.
MAX_ANSWER_BYTES = 1 << 18
MAX_ANSWER_S = 300.0

# The pause lets out what acknowledges the program before the port vanishes. Who opens the port meanwhile, as restart()
# does, must not stop the reset by a Ctrl-C.
_RESET = """
import machine,micropython,time
micropython.kbd_intr(-1)
time.sleep_ms(100)
machine.reset()
"""


class NoRepl(OperatorError):
    """Whoever is on the port gives no REPL."""


class BoardGone(OperatorError):
    """The board has no power any more, or was unplugged, or reset itself."""


class BoardFailed(OperatorError):
    """A program failed on the board. last: the last line of its traceback."""

    def __init__(self, what: str, last: str) -> None:
        super().__init__(f"{what}: {last}")
        self.last = last


class Repl:
    """The board on a port, its program interrupted. Use it in a `with`. Raises UsageError, NoRepl."""

    def __init__(self, port: str) -> None:
        self.port = port
        self._transport: Any = None
        self._left_bytes, self._until_s = 0, 0.0
        try:
            self._connect()
        except BoardGone:
            # A board that starts and is interrupted twice resets itself: when in doubt it is enrolled (main.py).
            self._connect_again()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, program: str) -> bytes:
        """What this program prints. Raises BoardFailed: it ended with an exception; BoardGone."""
        from mpremote.transport import TransportError, TransportExecError  # type: ignore[import-untyped]  # it brings no types

        self._bound()
        try:
            printed, failed = self._transport.exec_raw(program, timeout=ANSWER_WITHIN_S)
        except (OSError, TransportError, TransportExecError, struct.error) as why:
            raise self._gone(why) from why
        if failed:
            lines = failed.decode(errors="replace").strip().splitlines()
            raise BoardFailed(f"The board on {self.port} has failed", output.foreign(lines[-1] if lines else "?"))
        return bytes(printed)

    def reset(self) -> None:
        """Reset the board and let it run. The port is closed."""
        self.leave(_RESET)

    def leave(self, program: str) -> None:
        """Run what takes the board off its port. The port is closed. Raises BoardGone."""
        from mpremote.transport import TransportError

        try:
            self._transport.exec_raw_no_follow(program)
            # Whoever opens the port next must not meet the board as it was before.
            self._transport.serial.timeout = RESET_WITHIN_S
            self._transport.serial.read(1)
        except OSError:
            pass  # a port that vanishes is what this looks like from here
        except (TransportError, struct.error) as why:
            raise self._gone(why) from why
        finally:
            self.close()

    def restart(self) -> None:
        """Reset the board and interrupt it again. Raises BoardGone, NoRepl."""
        self.reset()
        self._connect_again()

    def _connect_again(self) -> None:
        """Wait for the port that vanishes in a reset. Raises BoardGone, NoRepl."""
        end = time.monotonic() + BACK_WITHIN_S
        while True:
            time.sleep(LOOK_AGAIN_S)
            try:
                self._connect()
            except (UsageError, BoardGone) as why:  # it is not there yet, goes just now, or udev has not been there
                if time.monotonic() > end:
                    raise BoardGone(
                        f"{self.port} has not come back after a reset: plug the board in again and repeat the command."
                    ) from why
            else:
                return

    def close(self) -> None:
        if self._transport is None:
            return
        transport, self._transport = self._transport, None
        try:
            transport.close()
        except OSError:  # of a port that has gone; closing it is all that is left
            transport.serial.close()

    def _connect(self) -> None:
        try:
            from mpremote import transport_serial  # type: ignore[import-untyped]  # it brings no types
            from mpremote.transport import TransportError
        except ImportError as why:
            raise UsageError(f"Flashing needs mpremote ({why}): pip install laterne.") from why
        # It would print its troubles where our JSON goes. Redirecting stdout is for the whole process: not in threads.
        transport_serial.print = _unsaid
        _require_port(self.port)
        try:
            self._transport = transport_serial.SerialTransport(self.port, line.BAUD, timeout=ATTEMPT_S)
        except TransportError as why:
            raise UsageError(port_users.in_use(self.port)) from why
        self._transport.serial.read = partial(self._read, self._transport.serial.read)
        self._bound()
        for _ in range(ATTEMPTS):
            try:
                self._transport.enter_raw_repl(soft_reset=False, timeout_overall=ATTEMPT_S)
                # A board that starts answers each attempt, ours and those of a command that was killed, as soon
                # as it listens: what is left of these would be taken for the answer to a program.
                self._transport.serial.timeout = QUIET_S
                while self._transport.serial.read(line.READ_BYTES):
                    pass
                self._transport.enter_raw_repl(soft_reset=False, timeout_overall=ATTEMPT_S)
                self._transport.serial.timeout = ANSWER_WITHIN_S
                return
            except TransportError:
                continue  # it starts just now, or lets nobody in
            except OSError as why:
                self.close()
                raise BoardGone(f"{self.port} has gone away ({why}): plug the board in and repeat.") from why
        self.close()
        raise NoRepl(
            f"What is on {self.port} gives no REPL: an enrolled board that runs laterne lets nobody in by USB. Update "
            "it with `laterne campaign`. To begin anew, the operator writes the order that decommissions it "
            "(`laterne board decommission ID -o FILE`), and you repeat with --order FILE. If the board is new: is "
            "there MicroPython on it, and is this its USB port?"
        )

    def _bound(self) -> None:
        self._left_bytes, self._until_s = MAX_ANSWER_BYTES, time.monotonic() + MAX_ANSWER_S

    def _read(self, read: Callable[[int], bytes], size: int = 1) -> bytes:
        """In the place of the port's. mpremote reads as long as something comes, and keeps it all."""
        data = read(size)
        self._left_bytes -= len(data)
        if self._left_bytes < 0 or time.monotonic() > self._until_s:
            self.close()
            raise NoRepl(
                f"What is on {self.port} talks without an end: is it a board, and is this its USB port? If it is, "
                "unplug it, plug it in and repeat the command."
            )
        return data

    def _gone(self, why: Exception) -> BoardGone:
        self.close()
        return BoardGone(
            f"The board on {self.port} has gone away ({str(why)[:MAX_TRACEBACK]}): plug it in again and give the same "
            "command; what is written stays."
        )


def _unsaid(*_: object) -> None:
    """In place of a print()."""


def _require_port(port: str) -> None:
    """mpremote does not tell why a port cannot be opened. Raises UsageError."""
    try:
        found = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as why:
        raise UsageError(line.why_not(port, why)) from why
    try:
        if not os.isatty(found):
            raise UsageError(f"{port} is no serial port: name the one that the board's USB is.")
    finally:
        os.close(found)
