"""What the service manager is told: ready, how it goes, alive, stopping (sd_notify(3), systemd 252 = Debian 12).

Alive is no timer: a loop that turns proves nothing about boards or disk. The ping goes out only when every part of the
data path has made progress since a bound that is longer than anything it may wait for: a line has made a round or knows
that its adapter is away, the disk has answered. A broker that is away makes no part late: restarting would not help it,
and would cost the boards their sessions. If the loop itself hangs, nobody is there to send the ping.

Without a service manager (NOTIFY_SOCKET is not set) nothing is sent, and everything else is the same.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Self

from laterne_gateway.health import Health

log = logging.getLogger("laterne")

SILENT_AT_MOST_S = 30.0  # a round of 32 dead boards takes 20 s (bus.py), a commit on a tired card some seconds
LAG_AT_MOST_S = 5.0  # of the event loop; more, and boards' questions time out one after the other
ASK_EVERY_S = 10.0
PING_EVERY_S = 5.0  # when the service manager names no interval
READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


class ServiceManager:
    """The socket of the one that started us. address: NOTIFY_SOCKET, "" when there is none."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address  # abstract: unix(7)
        self.watchdog_s = watchdog_s

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> Self:
        """The one that the environment names. A watchdog that is meant for another process is none of ours."""
        address, interval = environment.get("NOTIFY_SOCKET", ""), environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(pid or os.getpid())) == str(pid or os.getpid())
        return cls(address, int(interval) / 1e6 if interval.isdigit() and meant else None)

    def tell(self, *lines: str) -> None:
        """Sends; a service manager that does not listen is no reason to stop serving boards."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto("\n".join(lines).encode(), self._address)
        except OSError as why:
            log.debug("the service manager did not take %s: %s", lines[0], why)

    async def ask_for_time(self, status: Callable[[], str]) -> None:
        """A repair of a large buffer, or a disk that is away, may take longer than a start is given. For ever."""
        while True:
            self.tell(f"STATUS={status()}", f"EXTEND_TIMEOUT_USEC={round(4e6 * ASK_EVERY_S)}")
            await asyncio.sleep(ASK_EVERY_S)


async def keep_alive(
    manager: ServiceManager, health: Health, disk_turned_s: Callable[[], float], status: Callable[[], str]
) -> None:
    """Tells the service manager that we are alive, as often as it wants, as long as it is true. For ever.

    disk_turned_s: when the thread that writes to the disk last came round (time.monotonic). status: a line for people.
    """
    every_s = min(PING_EVERY_S, manager.watchdog_s / 2) if manager.watchdog_s else PING_EVERY_S
    said: list[str] = []
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(every_s)
        lag_s = time.monotonic() - began_s - every_s
        health.note("gateway", "loop lag s", round(max(0.0, lag_s), 3))
        silent = health.silent(SILENT_AT_MOST_S)
        if time.monotonic() - disk_turned_s() > SILENT_AT_MOST_S:
            silent.append("the disk")
        if lag_s > LAG_AT_MOST_S:
            silent.append(f"the event loop, {lag_s:.0f} s late,")
        if not silent:
            # READY again: if the first was lost, the start would pass for failed.
            manager.tell(READY, ALIVE, f"STATUS={status()}")
        elif silent != said:
            log.error("no progress: %s: unless it comes back the service manager starts us again", ", ".join(silent))
        said = silent
