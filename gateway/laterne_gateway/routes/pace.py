"""How fast a backlog may leave: a token bucket, so that an outage's end is not an outage of the link or the broker."""

import asyncio

from laterne_gateway.clock import Clock


class Pace:
    """a_second: how many may go in a second, on average; at most a second's worth at once."""

    def __init__(self, a_second: int, clock: Clock) -> None:
        self._a_second = a_second
        self._clock = clock
        self._tokens = float(a_second)
        self._at_s = clock.monotonic_s()

    async def next(self, count: int = 1) -> None:
        """Returns when another one may go, or so many together. One waits at a time."""
        # More together than a second has are let go when the bucket is full; those after them wait for it.
        await asyncio.sleep(max(0.0, min(count, self._a_second) - self._filled()) / self._a_second)
        self._filled()
        self._tokens -= count

    def _filled(self) -> float:
        now_s = self._clock.monotonic_s()
        self._tokens = min(float(self._a_second), self._tokens + (now_s - self._at_s) * self._a_second)
        self._at_s = now_s
        return self._tokens
