"""The gateway as a service under a booted systemd: installed by its own command, in its sandbox, killed and starved."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.booted import Booted
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GatewayProcess, Subscriber
from tests.gateway.wired import WiredLine
from tests.servers import Mosquitto

SERVICE = "laterne-gateway.service"
CONFIG = "/etc/laterne/gateway.toml"
# What is different from a street cabinet: the line is a PTY.
DROP_IN = "[Service]\nDeviceAllow=char-pts rw\n"


@dataclass
class Served:
    """A gateway that runs as a service, its board and its subscriber."""

    machine: Booted
    board: FakeBoard
    subscriber: Subscriber

    async def run(self, script: str) -> str:
        return await asyncio.to_thread(self.machine.run, script)

    async def until(self, script: str) -> str:
        return await asyncio.to_thread(self.machine.until, script)

    async def shown(self, what: str) -> str:
        return (await self.run(f"systemctl show --value -p {what} {SERVICE}")).strip()

    async def delivers(self) -> None:
        """New reports arrive."""
        self.board.close_reports(5)
        async with asyncio.timeout(60):
            await self.subscriber.has_all(self.board)


@contextlib.asynccontextmanager
async def served(tmp_path: Path, broker: Mosquitto) -> AsyncIterator[Served]:
    board = FakeBoard()
    line = WiredLine(tmp_path / "quay", [board], seed=1)
    files = tmp_path / "files"
    files.mkdir()
    subscriber = Subscriber(broker)
    listening = asyncio.create_task(subscriber.run())
    await subscriber.ready.wait()
    gateway = GatewayProcess(files, [board], [line], broker)  # writes the files; it is not this one that runs
    text = gateway.config.read_text().replace('path = "quay"', 'path = "/dev/ttyLINE"')
    gateway.config.write_text(text.replace('directory = "state"', 'directory = "/var/lib/laterne-gateway"'))
    port = (tmp_path / "quay").resolve()
    try:
        with Booted(tmp_path / "systemd", {"/dev/ttyLINE": port, "/files": files}) as machine:
            made = Served(machine, board, subscriber)
            await made.run(
                "set -e; laterne-gateway install; cd /files\n"
                "cp gateway.toml trust.cbor roster.cbor gateway.cbor /etc/laterne/\n"
                "install -o laterne -g laterne -m 600 state/agree.key /var/lib/laterne-gateway/\n"
                f"mkdir /etc/systemd/system/{SERVICE}.d\n"
                f"cat > /etc/systemd/system/{SERVICE}.d/pty.conf <<X\n{DROP_IN}X\n"
                "chmod 660 /dev/ttyLINE; chgrp dialout /dev/ttyLINE; systemctl daemon-reload\n"
            )
            yield made
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await line.close()


async def test_the_installed_service_delivers_from_its_sandbox_and_comes_back_whatever_kills_it(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with served(tmp_path, mosquitto) as it:
        await it.run(f"systemctl enable --now {SERVICE} || {{ journalctl -u {SERVICE} | tail -30; exit 1; }}")
        assert await it.shown("ActiveState") == "active"  # Type=notify: it has said that it is ready
        await it.delivers()
        assert "reports wait: 0 for mqtt" in await it.shown("StatusText")

        # The sandbox is one: what the process itself sees.
        pid = await it.shown("MainPID")
        seen = await it.run(f"cat /proc/{pid}/status")
        assert "NoNewPrivs:\t1" in seen
        assert "CapEff:\t0000000000000000" in seen
        assert "Seccomp:\t2" in seen
        await it.run(f"nsenter -t {pid} -m -- sh -c '! touch /etc/x && ! ls /root/. 2>/dev/null | grep . '")

        # Killed: it is back, and nothing is lost.
        await it.run(f"kill -KILL {pid}")
        await it.until(
            f'[ "$(systemctl show --value -p MainPID {SERVICE})" != {pid} ] && systemctl is-active {SERVICE}'
        )
        await it.delivers()

        # Hung: the watchdog ends it.
        await it.run(
            f"printf '[Service]\\nWatchdogSec=3\\nRestartSec=1\\n' > /etc/systemd/system/{SERVICE}.d/watchdog.conf; "
            f"systemctl daemon-reload; systemctl restart {SERVICE}"
        )
        pid = await it.shown("MainPID")
        await it.run(f"kill -STOP {pid}")
        await it.until(f"systemctl show --value -p NRestarts {SERVICE} | grep -v '^0'")
        await it.until(f"systemctl is-active {SERVICE}")
        assert await it.shown("MainPID") != pid
        await it.delivers()

        # Stopped by its manager: at once, cleanly, and told to the broker.
        await it.run(f"systemctl stop {SERVICE}")
        assert await it.shown("Result") == "success"
        assert json.loads(it.subscriber.statuses[-1])["state"] == "offline"


async def test_secrets_are_handed_over_by_systemd(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with served(tmp_path, mosquitto) as it:
        await it.run(
            "printf secret > /etc/laterne/credentials/broker.password; chmod 600 /etc/laterne/credentials/*\n"
            'cat > /tmp/mqtt <<X\nusername = "gw-1"\npassword_file = "credentials/broker.password"\nX\n'
            f"sed -i '/^.mqtt.$/r /tmp/mqtt' {CONFIG}\n"
            f"systemctl start {SERVICE} || {{ journalctl -u {SERVICE} | tail -30; cat {CONFIG}; exit 1; }}"
        )
        await it.delivers()
        # The service's user may not read the file itself.
        await it.run("runuser -u laterne -- cat /etc/laterne/credentials/broker.password && exit 1; true")
