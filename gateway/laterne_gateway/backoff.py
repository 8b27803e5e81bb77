"""How long to wait before the next attempt: exponential with full jitter.

wait = random(0, min(cap, base x 2**n)). A fixed pause would bring a whole city's gateways back in the same second
(facts/gateway.md, 8). The exponent is forgotten only after a stable time, so that a connection that comes and goes
does not start at the bottom each time.
"""

import random
from collections.abc import Callable

MAX_EXPONENT = 20  # 2**20 x any base is above every cap


class Backoff:
    """base_s: the first upper bound. cap_s: the last. floor_s: the shortest wait. stable_s: how long is stable."""

    def __init__(
        self,
        base_s: float,
        cap_s: float,
        *,
        floor_s: float = 0.0,
        stable_s: float = 60.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._floor_s = floor_s
        self._stable_s = stable_s
        self._uniform = uniform
        self._failures = 0

    def failed(self, lasted_s: float = 0.0) -> float:
        """Seconds to wait. lasted_s: how long it had gone well before it failed."""
        if lasted_s >= self._stable_s:
            self._failures = 0
        bound = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, MAX_EXPONENT))
        self._failures += 1
        return max(self._floor_s, self._uniform(0.0, bound))

    def reset(self) -> None:
        self._failures = 0
