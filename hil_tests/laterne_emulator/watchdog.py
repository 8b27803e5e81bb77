"""The watchdog of an emulated board: once started it bites unless it is fed, also across a soft reset."""

import asyncio
from collections.abc import Callable


class Watchdog:
    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite = bite
        self._timeout_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._timer is not None

    def start(self, timeout_ms: int) -> None:
        self._timeout_s = timeout_ms / 1000
        self._wind()

    def feed(self) -> None:
        if self._timer:
            self._wind()

    def reset(self) -> None:
        """Power-on, hard reset or a bite: the watchdog is off until the firmware starts it. Not a soft reset."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _wind(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._bite)
