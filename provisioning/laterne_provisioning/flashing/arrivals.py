"""Boards that are plugged in one after the other: which ports are new.

A port that vanishes for a moment is a board that resets; one that was away for longer is another board, or the same
one by intention.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

GONE_AFTER_S = 3.0  # USB is there again 1 s after a reset, and udev has its turn
LOOK_AGAIN_S = 0.2


class Arrivals:
    """Use it in a `with`. look: the ports that are there now; those of the first look are new, too. clock: seconds."""

    def __init__(self, look: Callable[[], Sequence[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._found: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        self._ended = threading.Event()
        # A thread: a board that is changed while another one is being flashed is seen, too.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def next(self, within_s: float | None) -> str | None:
        """The next port that is new; None: none came for so long. Raises what `look` raises."""
        try:
            found = self._found.get(timeout=within_s)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def _run(self) -> None:
        seen: dict[str, float] = {}  # port: when it was there last, monotonic
        while True:
            try:
                present = self._look()
            except Exception as why:
                self._found.put(why)
                return
            now_s = self._clock()
            for port in [port for port, last_s in seen.items() if now_s - last_s > GONE_AFTER_S]:
                del seen[port]
            for port in present:
                if port not in seen:
                    self._found.put(port)
                seen[port] = now_s
            if self._ended.wait(LOOK_AGAIN_S):
                return
