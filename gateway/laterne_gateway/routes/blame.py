"""Whether a platform refuses what one board says, or everything: who is to blame.

An answer alone does not tell. A platform that takes something else, whosever it is, and of a message that was begun
after this was refused, works: what it refuses again then is to blame, and becomes a dead letter. While it takes nothing
nobody is blamed, and everything waits. An answer that was under way when something was refused says nothing: it may be
older than the mistake in the platform's settings.

1. One board lies among others. These are taken, each minute, also when all that is next in a lane is the liar's, which
   feed.py reads past: so it is blamed.
2. Several boards lie. As 1.
3. The platform refuses everything. Nothing is taken: nobody is blamed, nothing is lost, an alarm says so.
4. A gateway has one board. Whatever is taken of it tells; if nothing is it waits as in 3, and nobody waits for it.
5. All but the liar are silent. It waits until one of them speaks: until then it is in nobody's way.
6. This process ends. What was blamed is a dead letter, on the disk; what was not is sent again, and found out again.

Of one board that is refused while nothing is taken only its own reports rest, since that may be 5. When it is more than
one, and it goes on for QUIET_S, it is taken for 3: the route pauses, longer each time, as when its platform is away.
That costs nobody more than the longest of these pauses should it be 5 after all.
"""

from laterne_gateway.clock import Clock
from laterne_gateway.health import Health

QUIET_S = 120.0  # a board closes a report each minute: of those that are well one was taken in that time
NEVER = -1


class Blame:
    """Of one route. subject: in the health."""

    def __init__(self, subject: str, clock: Clock, health: Health) -> None:
        self._subject = subject
        self._clock = clock
        self._health = health
        self.begun = 0  # messages with observations
        self._taken = NEVER  # the last of them that was taken
        self._taken_s = clock.monotonic_s()
        self._refused: set[str] = set()  # boards, since then

    def begin(self) -> int:
        """A message is sent: its number."""
        self.begun += 1
        return self.begun

    def take(self, number: int) -> None:
        """The platform has taken something of it."""
        if number > self._taken:
            self._taken, self._taken_s = number, self._clock.monotonic_s()
            self._refused.clear()
            self._health.clear(self._subject, "refusing")

    def is_told(self, refused_at: int) -> bool:
        """Whether something was taken that was begun after what was refused when so many had begun."""
        return NEVER < refused_at < self._taken

    def hold(self, board: str, why: str) -> bool:
        """An observation was refused alone, and it is not told why. Whether it is taken for the platform's doing."""
        self._refused.add(board)
        self._health.count(self._subject, "observations refused, and nothing taken since")
        self._health.alarm(
            self._subject,
            "refusing",
            f"the platform refuses observations and has taken none since ({why}): is it what they are, as of "
            f"{board}, or all of them? reports are kept and it is tried again",
        )
        return self.is_platform

    @property
    def is_platform(self) -> bool:
        """Several boards are refused, and nothing was taken for long."""
        return len(self._refused) > 1 and self._clock.monotonic_s() - self._taken_s >= QUIET_S
