"""Servers that tests run against: a real mosquitto on a free port of loopback, started and always ended.

Without mosquitto a test is skipped and says so; where CI is set nothing is
skipped.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

STARTS_WITHIN_S = 20.0  # measured: 20 ms; eight test runs may share two cores
WHERE = ("mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")


def free_port() -> int:
    """A port of loopback that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def mosquitto_program() -> str:
    """Where mosquitto is. Skips the test when it is not there, fails it in CI."""
    for name in WHERE:
        if found := shutil.which(name):
            return found
    reason = "mosquitto is not installed (Debian: apt-get install mosquitto); the tests against a real broker need it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Mosquitto:
    """A mosquitto process, from start() or in a `with`. It can be killed and started again on the same port; it keeps
    nothing, unless `extra` says so. login: the name and password of the only user that it lets in; None: anybody.
    """

    def __init__(self, directory: Path, extra: str = "", login: tuple[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.login = login
        self._program = mosquitto_program()
        self._directory = directory
        self._file = directory / "mosquitto.conf"
        directory.mkdir(parents=True, exist_ok=True)
        if login is not None:
            extra += f"allow_anonymous false\npassword_file {_password_file(directory, login)}\n"
        self._file.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            # A subscriber that is away for a moment must find everything: our tests count.
            f"max_queued_messages 0\n{'user root' if os.geteuid() == 0 else ''}\n{extra}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it accepts connections."""
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._file)], stdout=log, stderr=log)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto did not start: {(self._directory / 'mosquitto.log').read_text()[-500:]}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *why: object) -> None:
        self.stop()

    async def start_async(self) -> None:
        await asyncio.to_thread(self.start)

    def kill(self) -> None:
        """As a power cut: no goodbye to anybody."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        if number != signal.SIGKILL:
            self._process.send_signal(signal.SIGCONT)  # a paused one hears nothing else; a killed one must do no more
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _password_file(directory: Path, login: tuple[str, str]) -> Path:
    """As mosquitto_passwd makes it: PBKDF2 with SHA-512."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", login[1].encode(), salt, rounds)
    hashed = f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
    file = directory / "users"
    file.touch(mode=0o600)
    file.write_text(f"{login[0]}:{hashed}\n")
    return file
