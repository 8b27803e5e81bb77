"""How the running gateway tells how it is: a socket in its directory that gives one JSON document to whoever connects.

A socket and not a file: a file would be written again and again, and wear the card.
"""

import asyncio
import json
import logging
import os
import socket
from pathlib import Path

from laterne_gateway import VERSION, wear
from laterne_gateway.buffer import Buffer
from laterne_gateway.clock import Clock
from laterne_gateway.config import Config
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_gateway.trusts import TrustKeeper

log = logging.getLogger("laterne")

SOCKET_NAME = "status.sock"
MAX_STATUS_BYTES = 4 * 1024 * 1024  # 256 boards with every counter there is
ANSWER_WITHIN_S = 5.0
DAY_S = 86_400.0
RATE_FROM_S = 600.0  # before this a start's own writes would be most of it


class StatusServer:
    def __init__(
        self, config: Config, buffer: Buffer, roster: RosterKeeper, trusts: TrustKeeper, health: Health, clock: Clock
    ) -> None:
        self._config = config
        self._buffer = buffer
        self._roster = roster
        self._trusts = trusts
        self._health = health
        self._clock = clock
        self._started_s = clock.monotonic_s()

    async def run(self) -> None:
        path = self._config.gateway.directory / SOCKET_NAME
        path.unlink(missing_ok=True)  # of a former process: the directory is locked, so nobody listens there
        try:
            server = await asyncio.start_unix_server(self._serve, reachable(path))
        except OSError as why:
            # No reason to stop delivering.
            self._health.alarm("status", "socket", f"{path}: {why}: `laterne-gateway status` will not see this process")
            return
        try:
            async with server:
                await server.serve_forever()
        finally:
            path.unlink(missing_ok=True)

    async def document(self) -> dict[str, object]:
        """{"gateway", "version", "running", "uptime_s", "roster_version", "trust", "buffer", "subjects"}.

        trust: {"version", "boards": how many of the roster hold which version, as they said last, "unknown" the rest}.
        """
        return {
            "gateway": self._config.gateway.id,
            "version": VERSION,
            "running": True,
            "uptime_s": round(self._clock.monotonic_s() - self._started_s, 1),
            "clock_credible": self._clock.utc_ms() is not None,
            "roster_version": self._roster.version,
            "trust": {
                "version": self._trusts.newest.version,
                "boards": self._trusts.boards_by_version(self._roster.names),
            },
            "buffer": {
                "waiting": {route: self._buffer.waiting(route) for route in self._buffer.lanes},
                "away": self._buffer.away or None,
                "commits": self._buffer.commits,
                **self._written(),
                **await self._buffer.tallies(),
            },
            "subjects": self._health.snapshot(),
        }

    def _written(self) -> dict[str, object]:
        """Bytes since the start, and for a day at the same rate: what wears the card (wear.py)."""
        written, uptime_s = wear.written_bytes(), self._clock.monotonic_s() - self._started_s
        if written is None:
            return {}
        a_day = written / uptime_s * DAY_S if uptime_s >= RATE_FROM_S else None
        return {"bytes written": written, "bytes written a day": None if a_day is None else round(a_day)}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(await self.document()).encode())
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await writer.drain()
        except (OSError, TimeoutError) as why:
            log.debug("status: nobody took the answer: %s", why)
        finally:
            writer.close()


def read(directory: Path) -> dict[str, object] | None:
    """What the gateway that runs in this directory says; None when none runs there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_WITHIN_S)
        data = bytearray()
        try:
            client.connect(reachable(directory / SOCKET_NAME))
            while (more := client.recv(65536)) and len(data) < MAX_STATUS_BYTES:
                data += more
        except (ConnectionError, FileNotFoundError, TimeoutError):
            return None
    found = json.loads(data) if data else None
    return found if isinstance(found, dict) else None


def reachable(path: Path) -> str:
    """The path as a socket takes it."""
    # A socket's path has at most 107 bytes (unix(7)); the way from here is often shorter.
    whole = str(path.absolute())
    relative = os.path.relpath(whole)
    return relative if len(relative) < len(whole) else whole
