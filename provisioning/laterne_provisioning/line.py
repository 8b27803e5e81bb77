"""The technician's end of a line: one question at a time, repeated until its answer comes or its time is over.

Frames and messages are protocol/README.md, 2 and 3. The port is opened exclusively: a gateway that serves the
line keeps us out, and we keep it out.
"""

import errno
import secrets
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from laterne_protocol import frame, messages
from laterne_protocol.errors import MessageError
from laterne_provisioning import port_users
from laterne_provisioning.errors import OperatorError, UsageError

BAUD = 115_200
READ_BYTES = 4096
# How long one read may wait: only a bound, an answer ends it at once.
READ_WITHIN_S = 0.25

Answer = TypeVar("Answer", messages.Identity, messages.Enrolment)


class Question(Protocol):
    """A message that can be sent."""

    def to_bytes(self) -> bytes: ...


class Refused(OperatorError):
    """The board has answered that it will not. reason: a key of messages.REFUSALS."""

    def __init__(self, port: str, reason: int) -> None:
        super().__init__(f"The board on {port} refuses: {messages.REFUSALS.get(reason, f'reason {reason}')}.")
        self.reason = reason


class Line:
    """A serial port with one board behind it. Use it in a `with`. Raises UsageError: it cannot be opened."""

    def __init__(self, port: str) -> None:
        self.port = port
        self._decoder = frame.FrameDecoder()
        self._received = 0
        self._number = secrets.randbelow(256)  # so that an answer to a command before this one is not taken for ours
        import serialx  # here and not above: most commands never speak to a board

        self._serial = serialx.serial_for_url(port, BAUD, exclusive=True, read_timeout=READ_WITHIN_S)
        try:
            self._serial.open()
        except OSError as why:
            self._serial.close()
            raise UsageError(why_not(port, why)) from why

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._serial.close()

    def ask(
        self,
        question: Callable[[int], Question],
        answer: type[Answer],
        again_after_s: float,
        within_s: float,
        ready: Callable[[Answer], bool] = lambda _: True,
    ) -> Answer:
        """The board's answer. question: makes the message with the number it is given.

        The same message goes out again every again_after_s, at most for within_s. ready: whether an answer is the
        one that is waited for; if not, the board is asked again, as when it says that it is busy.
        Raises Refused; OperatorError: no answer, or the port is gone.
        """
        self._number = (self._number + 1) % 256
        asked = question(self._number).to_bytes()
        # The delimiter ahead ends whatever noise has gathered at the board.
        packet = frame.DELIMITER + frame.Frame(frame.MESSAGE, frame.ANY_BOARD, frame.GATEWAY, asked).to_bytes()
        end = time.monotonic() + within_s
        busy = False
        while (now := time.monotonic()) < end:
            try:
                self._serial.write(packet, timeout=again_after_s)
                found = self._answer(answer, min(end, now + again_after_s))
            except OSError as why:
                raise OperatorError(f"{self.port} has gone away ({why}): plug the board in again and repeat.") from why
            if isinstance(found, messages.Refusal) and found.reason != messages.NOT_READY:
                raise Refused(self.port, found.reason)
            if found is not None:
                if not isinstance(found, messages.Refusal) and ready(found):
                    return found
                busy = True
                time.sleep(max(0.0, min(end, now + again_after_s) - time.monotonic()))
        raise OperatorError(self._why_silent(busy, within_s))

    def _answer(self, wanted: type[Answer], end: float) -> Answer | messages.Refusal | None:
        while time.monotonic() < end:
            data = self._serial.read(READ_BYTES)
            self._received += len(data)
            for received in self._decoder.feed(data):
                if received.kind != frame.MESSAGE or received.destination != frame.GATEWAY:
                    continue
                try:
                    message = messages.message_of(received.payload)
                except MessageError:
                    continue  # damaged before the frame was closed, or not for us: the question goes out again
                if message.number == self._number and isinstance(message, (wanted, messages.Refusal)):
                    return message
        return None

    def _why_silent(self, busy: bool, within_s: float) -> str:
        if busy:
            return f"The board on {self.port} has been busy for {within_s:.0f} s: repeat the command later."
        if self._received:
            return (
                f"Something on {self.port} sends ({self._received} bytes) but gives no answer: is it the board's line "
                f"(not its USB console), at {BAUD} baud, and is its firmware laterne's?"
            )
        return (
            f"No board answers on {self.port} (asked for {within_s:.0f} s): is it powered, is it this port, "
            "are TX and RX crossed?"
        )


def why_not(port: str, why: OSError) -> str:
    if why.errno == errno.ENOENT:
        return f"There is no port {port}: is the adapter plugged in? `ls /dev/serial/by-id` shows what is there."
    if why.errno == errno.EBUSY:
        return port_users.in_use(port)
    if why.errno == errno.EACCES:
        return f"You may not open {port}: join the group that owns it (on Debian: dialout) and log in again."
    if why.errno in (errno.ENOTTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL):
        return f"{port} is no serial port: name the one the board hangs on."
    return f"{port} cannot be opened: {why.strerror or why}. Check the adapter."
