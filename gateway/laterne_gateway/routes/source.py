"""What routes that translate have in common: whose reports they read, and where they keep what is refused."""

import asyncio
import logging

from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock
from laterne_gateway.config import GatewaySettings
from laterne_gateway.dates import Dates
from laterne_gateway.dead_letters import DeadLetter, DeadLetters
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.route_settings import RouteSettings
from laterne_gateway.routes.observations import Observation
from laterne_gateway.writer import AGAIN_S, StoreError

log = logging.getLogger("laterne")

# Each is a Datastream on the platform and a queue in our memory, and a board may sign 65,536. A report holds 64
# columns, and a post full of sensors has some dozen.
MAX_CHANNELS_A_BOARD = 256
NAMED = 5  # boards in an alarm


class Source:
    """Of one route, as long as that runs. subject: in the health. prefix: of references. began_s: monotonic."""

    def __init__(
        self,
        gateway: GatewaySettings,
        settings: RouteSettings,
        buffer: Buffer,
        roster: RosterKeeper,
        clock: Clock,
        health: Health,
        dates: Dates,
    ) -> None:
        self.gateway = gateway
        self.name = settings.name
        self.subject = f"route {settings.name}"
        self.prefix = f"{gateway.tenant}/" if settings.prefix is None else settings.prefix
        self.buffer = buffer
        self.roster = roster
        self.clock = clock
        self.health = health
        self.dates = dates
        self.dead = DeadLetters(settings.name, buffer, clock)
        self.began_s = clock.monotonic_s()
        self._channels: dict[str, set[int]] = {}  # by board

    def within_bounds(self, board: str, observations: list[Observation]) -> list[Observation]:
        """Those of channels that a board may have; others are counted and passed over."""
        known = self._channels.setdefault(board, set())
        for one in observations:
            if len(known) < MAX_CHANNELS_A_BOARD:
                known.add(one.channel)
        kept = [one for one in observations if one.channel in known]
        if len(kept) < len(observations):
            self.health.count(
                self.subject,
                "observations passed over: too many channels of their board",
                len(observations) - len(kept),
            )
            self.health.alarm(
                board,
                "channels",
                f"it has more than {MAX_CHANNELS_A_BOARD} channels: {self.name} takes no further ones",
            )
        return kept

    async def bury(self, letter: DeadLetter) -> bool:
        """Keeps a dead letter, however long the disk is away. False: there are too many; an alarm stands."""
        while True:
            try:
                kept = await self.dead.put(letter, len(self.buffer.chains.keys() & set(self.roster.names)))
            except StoreError as why:
                log.debug("%s: a dead letter is not on the disk yet: %s", self.subject, why)
                await asyncio.sleep(AGAIN_S)
                continue
            if kept is None:
                self.health.count(self.subject, "passed over: their board has its share of the dead letters")
                await self.state_passed_over()
                return True
            if kept:
                self.health.count(self.subject, "dead letters")
                self.health.clear(self.subject, "dead letters full")
                self.health.alarm(
                    self.subject,
                    "dead letters",
                    f"the platform refuses observations for good, such as {letter.board} report {letter.sequence} "
                    f"({letter.reason[:120]}): see `laterne-gateway dead list`, then `dead retry`",
                )
            else:
                self.health.alarm(
                    self.subject,
                    "dead letters full",
                    "no more dead letters are kept: what the platform refuses waits, and before long all that follows "
                    "of its boards; when it refuses something of every board the route stops: correct the platform, "
                    "then `laterne-gateway dead retry` makes room",
                )
            return kept

    async def state_passed_over(self) -> None:
        """An alarm stands while the disk says that something was passed over, also over restarts."""
        boards = [f"{one.board} from report {one.first} on" for one in await self.dead.passed_over()]
        if not boards:
            self.health.clear(self.subject, "passed over", "what was passed over has been seen")
            return
        more = f" and {len(boards) - NAMED} more" if len(boards) > NAMED else ""
        self.health.alarm(
            self.subject,
            "passed over",
            f"the platform has refused more than is kept of {', '.join(boards[:NAMED])}{more}: which reports, and why, "
            "says `laterne-gateway dead list`; `dead seen` ends this",
        )
