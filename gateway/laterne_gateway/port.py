"""A serial port of this machine, opened and closed in threads of its own, because its driver may hang in either.

Some USB drivers keep an open() for more than 30 s, and one whose adapter has crashed for ever; close() waits for what
has not been sent. Nothing can end such a call. So none is made in the event loop, nor in the few threads of the loop,
which all parts share. There is one call at a time for a port, whatever is wanted meanwhile: however often it is tried
again, one thread hangs; when the driver lets go, the port is brought to what is wanted then. The process ends without
such threads.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from serialx import SerialException, serial_for_url

# Linux gives a USB device 5 s for each control transfer; the watchdog gives a line 30 (service.py).
OPEN_WITHIN_S = 10.0
CLOSED_WITHIN_S = 2.0  # a whole burst of an update at 9,600 baud takes 1 s

T = TypeVar("T")


class DriverHangs(Exception):
    """It has not answered for OPEN_WITHIN_S, and is waited for."""


class Port:
    def __init__(self, path: Path, baud: int) -> None:
        self._path = path
        self._baud = baud
        self._is_wanted = False
        self._descriptor: int | None = None
        self._refused: Exception | None = None
        self._work: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """A descriptor that does not block, of a port that no other program has (flock), with low latency if it can.

        Raises OSError (EBUSY: another program has it), SerialException, ValueError; DriverHangs: then the next open()
        waits on for the same answer, and close() tells that it is not wanted any more.
        """
        self._is_wanted, self._refused = True, None
        if not await self._settled(OPEN_WITHIN_S):
            raise DriverHangs(f"{self._path}: its driver has not answered for {OPEN_WITHIN_S:.0f} s")
        if self._refused is not None:
            raise self._refused
        assert self._descriptor is not None
        return self._descriptor

    async def close(self) -> None:
        """Returns at the latest after CLOSED_WITHIN_S; if the driver hangs in it, the next open() waits for that."""
        self._is_wanted = False
        await self._settled(CLOSED_WITHIN_S)

    @property
    def hangs(self) -> bool:
        """Whether its driver has not answered yet."""
        return self._work is not None and not self._work.done()

    async def _settled(self, within_s: float) -> bool:
        if self._work is None or not self.hangs:
            self._work = asyncio.create_task(self._settle())
        done, _ = await asyncio.wait((self._work,), timeout=within_s)  # never cancels it
        if done:
            self._work.result()
        return bool(done)

    async def _settle(self) -> None:
        """Until it is as it is wanted. What is wanted may change at each await."""
        while self._is_wanted != (self._descriptor is not None):
            if self._descriptor is None:
                try:
                    self._descriptor = await in_a_thread(partial(_opened, self._path, self._baud))
                except (OSError, SerialException, ValueError) as why:
                    self._refused, self._is_wanted = why, False
            else:
                descriptor, self._descriptor = self._descriptor, None
                # The adapter may be gone; the descriptor is free all the same (close(2)).
                with contextlib.suppress(OSError):
                    await in_a_thread(partial(os.close, descriptor))


def _opened(path: Path, baud: int) -> int:
    port = serial_for_url(str(path), baud, exclusive=True)
    port.open()
    try:
        # Ours: serialx would close its own once more when it is collected, whoever has the number by then.
        return os.dup(port.fileno())
    finally:
        port.close()


async def in_a_thread(call: Callable[[], T]) -> T:
    """What it returns or raises, from a thread of its own that nobody waits for when the process ends."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            tell = partial(answered.set_result, call())
        except Exception as why:
            tell = partial(answered.set_exception, why)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there any more
            loop.call_soon_threadsafe(lambda: None if answered.done() else tell())

    threading.Thread(target=work, name="port", daemon=True).start()
    return await answered
