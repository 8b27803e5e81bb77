"""What a route is: one way to one platform, with its own lanes in the buffer, its own pace and its own health.

Routes share nothing but the buffer's rows: a row goes when every route has it. So one that is slow, or whose platform
is away, holds back no other; it only keeps rows on the disk for longer.
"""

from typing import Protocol

# When a route takes a report for delivered (facts/urban_platform.md, 7).
SENT = "sent"  # a broker has acknowledged it (PUBACK); what the platform behind it did with it nobody says
ACCEPTED = "accepted"  # the platform itself has answered that it took it
STORED = "stored"  # it was read back from the platform
LEVELS = (SENT, ACCEPTED, STORED)


class Route(Protocol):
    """name: of its lanes in the buffer, and in `status`. kind: which platform it speaks to. level: one of LEVELS."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def level(self) -> str: ...

    async def run(self) -> None:
        """Delivers for ever. A platform that is away or refuses is no reason to end: it is told in the health."""
