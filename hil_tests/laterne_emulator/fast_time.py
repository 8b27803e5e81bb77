"""An event loop whose time runs fast: what waits a second in the street waits 20 ms in a test.

Only the time that the loop spends waiting counts, times `speed`. What the loop computes itself takes no time, so a
slow or busy machine makes nobody late who lives in this loop; what lives outside (a broker, a disk) has `speed` times
less time than it thinks.
"""

import asyncio
import selectors
import time
from collections.abc import Mapping
from typing import Any

SPEED = 50.0  # a pause of a route (1 s) costs 20 ms; a broker has 400 ms for what it may take 20 s


class _FastSelector(selectors.BaseSelector):
    """Waits a part of the time that it is asked for, and counts the whole."""

    def __init__(self, speed: float) -> None:
        self._inner = selectors.DefaultSelector()
        self._speed = speed
        self.now_s = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began_s = time.monotonic()
        found = self._inner.select(None if timeout is None else timeout / self._speed)
        passed_s = (time.monotonic() - began_s) * self._speed
        # Not more than was asked for: a process that did not get the processor is not late by minutes.
        self.now_s += passed_s if timeout is None else min(passed_s, max(0.0, timeout))
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()


class FastLoop(asyncio.SelectorEventLoop):
    """`with asyncio.Runner(loop_factory=FastLoop) as runner: runner.run(...)`. time() is what passed, times speed."""

    def __init__(self, speed: float = SPEED) -> None:
        self._fast = _FastSelector(speed)
        super().__init__(self._fast)

    def time(self) -> float:
        return self._fast.now_s
