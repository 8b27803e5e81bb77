"""A real SensorThings 1.1 server on loopback: django-ogc-sensorthings with SQLite, in the environment of its own.

For the demo and for tests. `is_strict`: the database refuses a second observation of a Datastream with the same time,
as administrators of such servers may ask it to; else the server takes both.
"""

import os
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from textwrap import dedent

from laterne_emulator.processes import dying_with_us

PYTHON_VARIABLE = "LATERNE_SENSORTHINGS_PYTHON"  # names the interpreter that has the server
CHECKOUT = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S = 60.0  # measured: 2 s on an idle machine
PATH = "/sensorthings/v1.1"
STRICT = (
    "create unique index one_of_a_time "
    "on sensorthings_v1_1_django_backend_observation (datastream_id, phenomenon_time_begin)"
)

SETTINGS = """\
from uuid import UUID
SECRET_KEY = "for tests, on loopback"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "site_urls"
INSTALLED_APPS = [
    "sensorthings.versions.v1_1",
    "sensorthings.versions.v1_1.backends.django",
    "sensorthings.versions.v1_1.extensions.dataarray",
]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": {database!r},
        # Requests wait for each other; else one that reads before it writes fails with "database is locked".
        "OPTIONS": {{"timeout": 60, "transaction_mode": "IMMEDIATE"}},
    }}
}}
SENSORTHINGS_V1_1_SERVICE_URL = "http://127.0.0.1:{port}/sensorthings"
SENSORTHINGS_V1_1_BACKEND_ADAPTER = "sensorthings.versions.v1_1.backends.django.adapter.DjangoBackendAdapter"
SENSORTHINGS_V1_1_ID_TYPE = UUID
SENSORTHINGS_V1_1_ID_DELIMITER = "'"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
URLS = """\
from django.urls import include, path
urlpatterns = [path("sensorthings/", include("sensorthings.versions.v1_1.urls"))]
"""
APPLICATION = """\
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""


class NoServer(RuntimeError):
    """The server cannot be started; the sentence says what to do."""


def interpreter() -> Path:
    """The Python that has the server. Raises NoServer."""
    python = Path(os.environ.get(PYTHON_VARIABLE) or CHECKOUT / ".sensorthings" / "bin" / "python")
    if not python.exists():
        raise NoServer(
            f"{python} is not there: `make .sensorthings/.ready` makes the server's environment in a checkout; "
            f"elsewhere install django-ogc-sensorthings and uvicorn in one, and name its Python in {PYTHON_VARIABLE}"
        )
    return python


class SensorThingsServer:
    """Its files are in `directory`, which keeps its database from start to start."""

    def __init__(self, directory: Path, *, is_strict: bool = False) -> None:
        self._python = interpreter()
        self._directory = directory
        self.is_strict = is_strict
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self.database = directory / "sensorthings.sqlite3"
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Writes its files and makes its tables, 2 s; a database that is there is kept."""
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = SETTINGS.format(database=str(self.database), port=self.port)
        for name, text in (("site_settings", settings), ("site_urls", URLS), ("site_asgi", APPLICATION)):
            (self._directory / f"{name}.py").write_text(dedent(text))
        if self.database.exists():
            return
        made = subprocess.run(
            [self._python, "-m", "django", "migrate", "--verbosity", "0"],
            cwd=self._directory,
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise NoServer(f"the SensorThings server's tables were not made: {made.stderr[-800:]}")
        connection = sqlite3.connect(self.database)
        # Nobody's data: a test machine's disk need not sync each request.
        connection.execute("pragma journal_mode = wal")
        if self.is_strict:
            connection.execute(STRICT)
        connection.commit()
        connection.close()

    def start(self, *, ends_with_thread: bool = False) -> None:
        """Returns when it accepts connections. Raises NoServer.

        ends_with_thread: it does not outlive the thread that calls this, not even when that is killed.
        """
        log = self._directory / "server.log"
        with log.open("ab") as out:
            command = [str(self._python), "-m", "uvicorn", "site_asgi:application", "--host", "127.0.0.1"]
            command += ["--port", str(self.port), "--lifespan", "off", "--log-level", "warning"]
            self._process = subprocess.Popen(
                dying_with_us(command) if ends_with_thread else command,
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise NoServer(f"the SensorThings server did not start: {log.read_text()[-800:]}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a power cut: what it has answered is in its database."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(self._directory)}
