"""How often this service has ended soon after its start: a gateway that cannot live rests before it tries again.

The service manager starts it again for ever, 5 s after each end; its own backoff came with systemd 254, and Debian 12
has 252. But a release that dies at its start dies at hundreds of gateways, and all of them would come to the city's
broker every few seconds. So the count is kept from start to start, in the service's runtime directory: in memory, it
wears no card, and a reboot or `systemctl restart` begins anew. What waits there is only a process: boards keep theirs.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Self

FREE = 3  # starts in a row without a rest: a power supply that shakes, somebody who tries something
BASE_S, CAP_S = 10.0, 300.0  # as at a broker that is away (routes/mqtt)
STABLE_S = 600.0  # who has lived so long did not end soon
FILE_NAME = "starts"
MAX_BYTES = 8


class Starts:
    """directory: of the service while it runs, kept by automatic restarts; None: nobody starts us again."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None if directory is None else directory / FILE_NAME
        self._count = 0  # starts before this one that have ended soon

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The directory that the service manager names (RuntimeDirectory=, systemd.exec(5))."""
        named = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return cls(Path(named) if named else None)

    def begin(self) -> float:
        """Counts this start. Seconds to rest before it; half of them by chance, so that not all come back at once."""
        if self._file is None:
            return 0.0
        with contextlib.suppress(OSError, ValueError):  # the first one, or what is no number: as if there were none
            self._count = max(0, int(self._file.read_bytes()[:MAX_BYTES]))
        with contextlib.suppress(OSError):
            self._file.write_text(str(self._count + 1))
        if self._count < FREE:
            return 0.0
        most_s = min(CAP_S, BASE_S * 2.0 ** min(self._count - FREE, 16))
        return most_s / 2 + random.uniform(0.0, most_s / 2)

    def in_words(self, pause_s: float) -> str:
        return f"has ended {self._count} times in a row soon after its start: rests {pause_s:.0f} s (see the log why)"

    async def settle(self) -> None:
        """For ever; after STABLE_S this start counts as a good one."""
        await asyncio.sleep(STABLE_S)
        self.ended_well()
        await asyncio.Event().wait()

    def ended_well(self) -> None:
        """It was told to end, or has lived for long: the next start is the first."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)
