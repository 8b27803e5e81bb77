"""The gateway as a service under a booted systemd: installed by its own command, in its sandbox, killed and starved."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.booted import Booted
from tests.gateway.board_sessions import Bucket
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import GatewayProcess
from tests.gateway.subscriber import Subscriber, subscribed
from tests.gateway.wired import WiredLine
from tests.readmes.commands import commands
from tests.servers import Mosquitto

from laterne_gateway.starts import FREE

SERVICE = "laterne-gateway.service"
CONFIG = "/etc/laterne/gateway.toml"
INSTALL = "laterne-gateway install"


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

    async def start(self, drop_in: str = "") -> None:
        """drop_in: more lines for the unit's [Service]."""
        if drop_in:
            file = f"/etc/systemd/system/{SERVICE}.d/test.conf"
            await self.run(f"printf '[Service]\\n{drop_in}\\n' > {file}; systemctl daemon-reload")
        await self.run(f"systemctl start {SERVICE} || {{ journalctl -u {SERVICE} | tail -30; exit 1; }}")

    async def restarted(self, before: str) -> None:
        """It runs again, as another process than this one."""
        await self.until(
            f'[ "$(systemctl show --value -p MainPID {SERVICE})" != {before} ] && systemctl is-active {SERVICE}'
        )

    async def delivers(self) -> None:
        """New reports arrive."""
        self.board.close_reports(5)
        async with asyncio.timeout(60):
            await self.subscriber.has_all(self.board)


@contextlib.asynccontextmanager
async def served(tmp_path: Path, broker: Mosquitto, install: str = INSTALL) -> AsyncIterator[Served]:
    """install: how it is, if not by the program of this checkout."""
    board = FakeBoard()
    # A gateway that was killed comes back without a session: real boards let it wait if that comes often.
    board.sessions.replace_after_s, board.sessions.bucket = 0.0, Bucket(size=100.0)
    line = WiredLine(tmp_path / "quay", [board], seed=1)
    files = tmp_path / "files"
    files.mkdir()
    gateway = GatewayProcess(files, [board], [line], broker)  # writes the files; it is not this one that runs
    text = gateway.config.read_text().replace('path = "quay"', 'path = "/dev/ttyLINE"')
    gateway.config.write_text(text.replace('directory = "state"', 'directory = "/var/lib/laterne-gateway"'))
    port = (tmp_path / "quay").resolve()
    try:
        async with subscribed(broker) as subscriber:
            with Booted(tmp_path / "systemd", {"/dev/ttyLINE": port, "/files": files}) as machine:
                made = Served(machine, board, subscriber)
                await asyncio.to_thread(machine.run if install == INSTALL else machine.installed, install)
                await made.run(
                    "set -e; cd /files\n"
                    "cp gateway.toml trust.cbor roster.cbor gateway.cbor /etc/laterne/\n"
                    "install -o laterne -g laterne -m 600 state/agree.key /var/lib/laterne-gateway/\n"
                    f"mkdir /etc/systemd/system/{SERVICE}.d\n"
                    "chmod 660 /dev/ttyLINE; chgrp dialout /dev/ttyLINE; systemctl daemon-reload\n"
                )
                yield made
    finally:
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

        # A device of another kind is none for it, whoever it belongs to.
        if Path("/sys/fs/cgroup/devices").is_dir():  # of version 1: else they may not be enforced in such a machine
            await it.run(
                "mknod /dev/ttyOTHER c 10 200; chmod 666 /dev/ttyOTHER\n"
                f'printf \'[[line]]\\nname = "other"\\npath = "/dev/ttyOTHER"\\n\' >> {CONFIG}\n'
                f"systemctl reload {SERVICE}"
            )
            await it.until(f"journalctl -u {SERVICE} | grep 'ttyOTHER: Operation not permitted: .*DeviceAllow'")

        # Killed: it is back, and nothing is lost.
        await it.run(f"kill -KILL {pid}")
        await it.restarted(pid)
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


async def test_what_the_readme_says_to_an_operator_makes_a_service_that_delivers(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """README.md, each command with sudo: a wheel of this checkout is built and installed, and the checkout is gone."""
    commands_of_root = [command.text for command in commands(Path("README.md")) if command.program == "sudo"]
    assert len(commands_of_root) == 2
    async with served(tmp_path, mosquitto, "\n".join(commands_of_root)) as it:
        program = "/opt/laterne/bin/laterne-gateway"
        assert f"ExecStart={program} run" in await it.run(f"systemctl cat {SERVICE}")
        assert "WRONG" not in await it.run(f"{program} check --config {CONFIG}")
        await it.run(f"systemctl enable --now {SERVICE} || {{ journalctl -u {SERVICE} | tail -30; exit 1; }}")
        await it.delivers()


async def test_installing_again_and_taking_away_leave_what_runs_and_what_is_kept(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    state = "/var/lib/laterne-gateway"
    async with served(tmp_path, mosquitto) as it:
        # The user was made anew since: what is there is another's, and again the service's when it starts.
        await it.run(f"chown -R 4242:4242 {state}; laterne-gateway install")
        await it.run(f"systemctl enable --now {SERVICE}")
        await it.delivers()
        pid = await it.shown("MainPID")
        assert f"systemctl restart {SERVICE}" in await it.run("laterne-gateway install")
        assert await it.shown("MainPID") == pid
        assert "kept: /etc/laterne" in await it.run("laterne-gateway uninstall; laterne-gateway uninstall")
        await it.run(f"! systemctl is-active {SERVICE} && ! systemctl is-enabled {SERVICE}")
        assert json.loads(it.subscriber.statuses[-1])["state"] == "offline"
        assert f"systemctl enable --now {SERVICE}" in await it.run("laterne-gateway install")
        await it.start()
        await it.delivers()
        assert it.subscriber.repeated == 0, "it went on where it was"


async def test_secrets_are_handed_over_by_systemd(tmp_path: Path) -> None:
    secret = "/etc/laterne/credentials/broker.password"
    with Mosquitto(tmp_path / "strict", login=("gw-1", "secret")) as strict:
        async with served(tmp_path, strict) as it:
            await it.run(
                f"printf another > {secret}; chmod 600 {secret}\n"
                'cat > /tmp/mqtt <<X\nusername = "gw-1"\npassword_file = "credentials/broker.password"\nX\n'
                f"sed -i '/^.mqtt.$/r /tmp/mqtt' {CONFIG}\n"
                f"systemctl start {SERVICE} || {{ journalctl -u {SERVICE} | tail -30; cat {CONFIG}; exit 1; }}"
            )
            await it.until(f"journalctl -u {SERVICE} | grep 'no broker at .*: Not authorized'")
            await it.run(f"printf secret > {secret}; systemctl restart {SERVICE}")
            await it.delivers()
            # The service's user may not read the file itself.
            await it.run(f"runuser -u laterne -- cat {secret} && exit 1; true")


async def test_starved_of_memory_it_is_killed_and_started_again_and_nothing_is_lost(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with served(tmp_path, mosquitto) as it:
        await it.start("RestartSec=1")
        await it.delivers()
        pid = await it.shown("MainPID")
        assert await it.shown("MemoryMax") == str(160 << 20)
        # No limit below what is used: version 1 of the cgroups takes none. Some of that is pages of files, which go
        # first: so the limit follows what is used, until there is nothing left to give up.
        tighter = (
            f"systemctl set-property --runtime {SERVICE} "
            f"MemoryMax=$(systemctl show --value -p MemoryCurrent {SERVICE}); true"
        )
        async with asyncio.timeout(60):
            while await it.shown("MainPID") == pid:
                it.board.close_reports(50)  # what it needs for them it does not get
                await it.run(tighter)
        await it.run(f"systemctl set-property --runtime {SERVICE} MemoryMax=160M")
        await it.restarted(pid)
        await it.delivers()
        assert await it.shown("NRestarts") != "0"


async def test_a_full_disk_is_no_reason_to_be_killed_and_over_when_there_is_space(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    state = "/var/lib/laterne-gateway"
    async with served(tmp_path, mosquitto) as it:
        await it.run(
            f"cp -a {state} /tmp/state; mount -t tmpfs -o size=24m,mode=700,uid=laterne,gid=laterne tmpfs {state}\n"
            f"cp -a /tmp/state/. {state}/"
        )
        await it.start("WatchdogSec=3")
        await it.delivers()
        pid = await it.shown("MainPID")
        await it.run(f"dd if=/dev/zero of={state}/fill bs=64k 2>/dev/null; true")
        acknowledged = it.board.acknowledged
        it.board.close_reports(50)
        status = f"laterne-gateway status --config {CONFIG}"
        await it.until(f"{status} | grep 'ALARM: the disk is full'")
        await it.run(f"! {status}")  # an alarm stands: exit 1
        # Longer than the watchdog would wait for a process that hangs.
        await it.until(
            f"{status} --json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)[\"uptime_s\"] < 8)'"
        )
        assert it.board.acknowledged < acknowledged + 50, "no report is let go that is not on the disk"
        assert (await it.shown("MainPID"), await it.shown("ActiveState")) == (pid, "active")
        await it.run(f"rm {state}/fill")
        await it.delivers()
        assert await it.shown("MainPID") == pid


async def test_one_that_dies_at_once_again_and_again_is_started_for_ever_and_rests_in_between(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with served(tmp_path, mosquitto) as it:
        await it.start("RestartSec=100ms")
        # Else systemd gives up after five starts in ten seconds, and nobody is there who would call reset-failed.
        assert (await it.shown("Restart"), await it.shown("StartLimitIntervalUSec")) == ("always", "0")
        for _ in range(FREE):
            pid = await it.shown("MainPID")
            await it.run(f"kill -KILL {pid}")
            await it.until(f'case "$(systemctl show --value -p MainPID {SERVICE})" in 0|{pid}) exit 1; esac')
            await it.until(
                f"systemctl show --value -p StatusText {SERVICE} | grep -E 'lines open|soon after its start'"
            )
        assert f"has ended {FREE} times in a row soon after its start" in await it.shown("StatusText")
        assert await it.shown("ActiveState") == "activating"
        # Who restarts it by hand need not wait.
        await it.run(f"systemctl restart {SERVICE}")
        await it.delivers()


async def test_systemctl_reload_takes_what_has_changed_and_what_is_wrong_harms_nobody(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    async with served(tmp_path, mosquitto) as it:
        await it.start("RestartSec=100ms")
        await it.delivers()
        pid = await it.shown("MainPID")
        await it.run(f"printf '[buffer]\\nwhen_full = \"burn\"\\n' >> {CONFIG}; systemctl reload {SERVICE}")
        await it.until(f"journalctl -u {SERVICE} | grep 'when_full: is not one of refuse, drop oldest'")
        # Whoever asks sees both: the mistake, and how the service is.
        said = await it.run(f"laterne-gateway status --config {CONFIG} 2>&1; [ $? = 1 ]")
        assert f"{CONFIG}:" in said.splitlines()[0]
        assert "configuration: ALARM: " in said
        assert "roster version" in said
        # Also after a power cut.
        await it.run(f"kill -KILL {pid}")
        await it.restarted(pid)
        await it.delivers()
        pid = await it.shown("MainPID")
        await it.run(
            f"sed -i s/burn/refuse/ {CONFIG}; printf 'gather_s = 1\\n' >> {CONFIG}; systemctl reload {SERVICE}"
        )
        await it.until(f"journalctl -u {SERVICE} | grep '.buffer. has other settings'")
        await it.delivers()
        assert await it.shown("MainPID") == pid


@pytest.mark.parametrize("ci", [False, True])
def test_who_is_not_root_is_told_what_is_left_out_and_in_ci_nothing_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "true" if ci else "")
    outcome = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(outcome, match="needs root and Debian's systemd-container"), Booted(tmp_path, {}):
        raise AssertionError("it has booted")
