"""The settings of the routes beside the one to the broker: the [[route]] tables of the configuration."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from laterne_gateway.config import MqttSettings
    from laterne_gateway.config_table import Table

SENSORTHINGS, CIVITAS = "sensorthings", "civitas"
KINDS = (SENSORTHINGS, CIVITAS)
MQTT_NAME = "mqtt"  # of the route to the broker: its lanes have that name
DEFAULT_ROWS, MIN_ROWS, MAX_ROWS = 100, 1, 1000  # FROST's maintainers advise 50 to 100
DEFAULT_PARALLEL, MAX_PARALLEL = 4, 32
DEFAULT_ANSWER_WITHIN_S, MAX_ANSWER_WITHIN_S = 60, 600
DEFAULT_BACKLOG_A_SECOND, MAX_BACKLOG_A_SECOND = 2000, 100_000  # observations: a day of 32 boards in minutes
DEFAULT_MAX_BYTES, MIN_MAX_BYTES, MAX_MAX_BYTES = 8000, 1000, 60_000  # FROST takes 8,092
DEFAULT_TOPIC = "sensors/sta"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2


@dataclass(frozen=True)
class SensorThingsSettings:
    """A SensorThings 1.1 server. level: ACCEPTED or STORED (routes/route.py). rows: observations in a request.

    parallel: requests at a time. prefix: of references, or None. secret_file: a password with username, a key with
    header, else a bearer token. backlog_a_second: observations that an outage left behind, in a second.
    """

    name: str
    url: str
    level: str = "accepted"
    username: str | None = None
    header: str | None = None
    secret_file: Path | None = None
    ca_file: Path | None = None
    prefix: str | None = None
    rows: int = DEFAULT_ROWS
    parallel: int = DEFAULT_PARALLEL
    answer_within_s: int = DEFAULT_ANSWER_WITHIN_S
    backlog_a_second: int = DEFAULT_BACKLOG_A_SECOND

    @property
    def to(self) -> tuple[object, ...]:
        """Where observations end up: what two routes must not have in common."""
        return self.url.rstrip("/"), self.prefix


@dataclass(frozen=True)
class CivitasSettings:
    """A broker that CIVITAS/CORE listens to. max_bytes: of a message's payload."""

    name: str
    mqtt: "MqttSettings"
    topic: str = DEFAULT_TOPIC
    prefix: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    @property
    def to(self) -> tuple[object, ...]:
        """As of SensorThingsSettings."""
        return self.mqtt.host, self.mqtt.port, self.topic, self.prefix


RouteSettings = SensorThingsSettings | CivitasSettings


def sensorthings_of(table: "Table", name: str) -> SensorThingsSettings:
    """What a [[route]] of this kind says; problems are noted in the table."""
    remedy = 'write the service with its version, "https://host/FROST-Server/v1.1"'
    url = table.text("url", remedy)
    if url:
        try:
            parts = urlsplit(url)
            wrong = parts.scheme not in ("http", "https") or not parts.hostname or bool(parts.query or parts.fragment)
            named = bool(parts.username or parts.password)
        except ValueError:
            wrong, named = True, False
        if wrong:
            table.problem("url", f"is not a server's address: {remedy}")
        elif named:
            table.problem("url", "holds a name or password: use username and secret_file")
    settings = SensorThingsSettings(
        name,
        url,
        table.choice("level", "accepted", ("accepted", "stored")),
        table.optional_text("username", "give a name, or leave it out"),
        table.optional_text("header", 'give the header that holds the key, such as "X-Api-Key", or leave it out'),
        table.optional_path("secret_file", "give the file that holds the password, key or token"),
        table.optional_path("ca_file", "give the file of the authorities that the server's certificate comes from"),
        table.optional_text("prefix", "give what begins every reference, or leave it out: the tenant and /"),
        table.integer("rows", DEFAULT_ROWS, MIN_ROWS, MAX_ROWS),
        table.integer("parallel", DEFAULT_PARALLEL, 1, MAX_PARALLEL),
        table.integer("answer_within_s", DEFAULT_ANSWER_WITHIN_S, 1, MAX_ANSWER_WITHIN_S),
        table.integer("backlog_a_second", DEFAULT_BACKLOG_A_SECOND, 1, MAX_BACKLOG_A_SECOND),
    )
    if settings.username is not None and settings.header is not None:
        table.problem("header", "and username exclude each other: remove one")
    if settings.header is not None and not _TOKEN.fullmatch(settings.header):
        table.problem("header", 'is not the name of a header: give "X-Api-Key", and the key itself in secret_file')
    for setting in ("username", "header"):
        if getattr(settings, setting) is not None and settings.secret_file is None:
            table.problem(setting, "needs a secret_file: add it, or remove this")
    if settings.ca_file is not None and not url.startswith("https:"):
        table.problem("ca_file", 'is of no use without TLS: begin the url with "https://"')
    table.end(
        "name, kind, url, level, username, header, secret_file, ca_file, prefix, rows, parallel, answer_within_s, "
        "backlog_a_second"
    )
    return settings
