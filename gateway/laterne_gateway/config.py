"""The configuration: one TOML file, read whole and judged whole before anything starts.

Every problem is a sentence that names file, line, setting and remedy; all of them are reported at once. A setting we
do not know is a problem too: a misspelt one would otherwise be silently left at its default. Secrets are paths here,
never values. Nothing of what the paths name is opened here; `check` and `run` do that.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from laterne_gateway.config_table import Absent, Source, Table
from laterne_gateway.route_settings import (
    CIVITAS,
    DEFAULT_MAX_BYTES,
    DEFAULT_TOPIC,
    KINDS,
    MAX_MAX_BYTES,
    MIN_MAX_BYTES,
    MQTT_NAME,
    CivitasSettings,
    RouteSettings,
    sensorthings_of,
)
from laterne_gateway.toml_lines import line_of

MAX_CONFIG_BYTES = 262_144  # 32 boards on each of 256 lines stay far below
MIN_BAUD, MAX_BAUD = 1200, 4_000_000  # slowest line that still carries a report a minute; fastest common adapter
DEFAULT_BAUD = 115_200
DEFAULT_IN_FLIGHT = 20  # mosquitto's max_inflight_messages
MAX_IN_FLIGHT = 1000  # a report is at most 960 bytes: at most 1 MiB unacknowledged in memory
DEFAULT_BACKLOG_A_SECOND, MAX_BACKLOG_A_SECOND = 200, 100_000  # a day without a broker, 32 boards: four minutes
DEFAULT_MAX_MIB, MIN_MAX_MIB, MAX_MAX_MIB = 1024, 16, 1_048_576  # a million reports of 700 bytes; 12 more than reserved
MAX_MAX_DAYS = 3660
MAX_GATHER_S = 60  # a minute's reports at once; a board's backlog holds many minutes
REFUSE, DROP_OLDEST = "refuse", "drop oldest"
LOG_LEVELS = ("warning", "info", "debug")
DEFAULT_LOG_LEVEL = "info"
DEFAULT_METRICS_PORT = 9110  # in the range that Prometheus exporters use; any free one does
KEY_NAME = "agree.key"  # in the gateway's directory unless another file is named
MQTT_PORT, MQTTS_PORT = 1883, 8883  # IANA


class ConfigError(Exception):
    """The configuration cannot be used. problems: a sentence each, with file, line, setting and remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class GatewaySettings:
    """Who this gateway is and where its files are.

    directory: its state. trust, roster, credential: signed by the authority. key: for shaking hands with boards.
    """

    id: str
    tenant: str
    directory: Path
    trust: Path
    roster: Path
    credential: Path
    key: Path


@dataclass(frozen=True)
class LineSettings:
    """A serial line. boards: bus addresses 1..32; empty: one board is there, whatever its address."""

    name: str
    path: Path
    baud: int
    boards: tuple[int, ...]


@dataclass(frozen=True)
class MqttSettings:
    """The broker. in_flight: messages that may wait for their PUBACK at a time.

    backlog_a_second: how many of the reports that an outage left behind are sent in a second.
    """

    host: str
    port: int
    tls: bool
    username: str | None
    password_file: Path | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    in_flight: int
    backlog_a_second: int = DEFAULT_BACKLOG_A_SECOND


@dataclass(frozen=True)
class BufferSettings:
    """The bounds of the buffer. max_mib: what its tables may take. max_days: how long a report may wait, or None.

    when_full: REFUSE, then nothing is acknowledged and boards keep their reports, or DROP_OLDEST. gather_s: how long a
    commit waits for company, to spare the card; with 0 no longer than a slow disk itself brings about.
    """

    max_mib: int = DEFAULT_MAX_MIB
    max_days: int | None = None
    when_full: str = REFUSE
    gather_s: int = 0


@dataclass(frozen=True)
class Config:
    """metrics_port: on loopback; None: no metrics. log_level: one of LOG_LEVELS."""

    file: Path
    gateway: GatewaySettings
    lines: tuple[LineSettings, ...]
    mqtt: MqttSettings
    buffer: BufferSettings = BufferSettings()
    metrics_port: int | None = None
    routes: tuple[RouteSettings, ...] = ()  # beside the one to the broker
    log_level: str = DEFAULT_LOG_LEVEL

    @property
    def route_names(self) -> tuple[str, ...]:
        return (MQTT_NAME, *(route.name for route in self.routes))


def load(file: Path) -> Config:
    """The configuration in a file. Raises ConfigError."""
    return parse(file, read(file))


def read(file: Path) -> bytes:
    """What stands in it. Raises ConfigError."""
    try:
        return file.read_bytes()
    except OSError as why:
        raise ConfigError([f"{file}: cannot be read ({why.strerror}): name the configuration with --config"]) from why


def parse(file: Path, raw: bytes) -> Config:
    """The configuration in these bytes, as if they stood in this file. Raises ConfigError."""
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError([f"{file}: {len(raw)} bytes, at most {MAX_CONFIG_BYTES} are read: is it the right file?"])
    try:
        text = raw.decode()
        found = tomllib.loads(text)
    except UnicodeDecodeError as why:
        raise ConfigError([f"{file}: not UTF-8 text (byte {why.start}): save it as UTF-8"]) from why
    except RecursionError as why:
        raise ConfigError([f"{file}: brackets in brackets without an end: remove them"]) from why
    except ValueError as why:  # TOMLDecodeError, or a number that is too long to be read
        at = re.search(r"at line (\d+)", str(why))  # else "at end of document"
        line = int(at[1]) if at else len(text.splitlines())
        raise ConfigError([f"{file}:{line}: not TOML: {why}: correct that line"]) from why
    return _Reader(file, text).config(found)


class _Reader(Source):
    """Takes the tables out one by one."""

    def config(self, found: dict[str, object]) -> Config:
        gateway = self._gateway(self._table(found, "gateway"))
        lines = self._lines(found.pop("line", None))
        mqtt = self._mqtt(self._table(found, "mqtt"))
        buffer = BufferSettings()
        if "buffer" in found:
            buffer = self._buffer(self._table(found, "buffer"))
        port = self._metrics(self._table(found, "metrics")) if "metrics" in found else None
        routes = self._routes(found.pop("route", []))
        log_level = self._log(self._table(found, "log")) if "log" in found else DEFAULT_LOG_LEVEL
        for name in found:
            line = line_of(self.text, name, None, None) or line_of(self.text, "", None, name)
            self.problems.append(
                f"{self.file}:{line or 1}: {name}: is not a setting: remove it, or correct its name "
                "([gateway], [[line]], [mqtt], [buffer], [metrics], [[route]], [log])"
            )
        if self.problems:
            raise ConfigError(self.problems)
        return Config(self.file, gateway, lines, mqtt, buffer, port, routes, log_level)

    def _table(self, found: dict[str, object], name: str) -> Table:
        value = found.pop(name, None)
        if not isinstance(value, dict):
            self.problems.append(f"{self.file}: [{name}]: is missing: see laterne-gateway.example.toml")
            return Absent(self, name, None, {})
        return Table(self, name, None, value)

    def _gateway(self, table: Table) -> GatewaySettings:
        name = table.name("id", "give the gateway's id as in `laterne roster export --gateway ID`")
        tenant = table.name("tenant", 'give the part of the topic that is yours, such as "cityname"')
        directory = table.path("directory", "give the directory for the gateway's database")
        settings = GatewaySettings(
            name,
            tenant,
            directory,
            table.path("trust", "give the file of the authority's public keys, trust.cbor"),
            table.path("roster", "give the file that `laterne roster export` wrote"),
            table.path("credential", "give the file that `laterne gateway enrol` wrote for this gateway's key"),
            table.optional_path("key", "give the file that `laterne-gateway key` makes") or directory / KEY_NAME,
        )
        table.end("id, tenant, directory, trust, roster, credential, key")
        return settings

    def _lines(self, value: object) -> tuple[LineSettings, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            self.problems.append(f"{self.file}: [[line]]: is missing: add one for each serial line, with name and path")
            return ()
        lines: list[LineSettings] = []
        for index, item in enumerate(value):
            table = Table(self, "line", index, item)
            line = LineSettings(
                table.name("name", "give the line a short name for the log"),
                table.path("path", "give the port, such as /dev/serial/by-id/..."),
                table.integer("baud", DEFAULT_BAUD, MIN_BAUD, MAX_BAUD),
                table.addresses("boards"),
            )
            table.end("name, path, baud, boards")
            for former in lines:
                if line.name and former.name == line.name:
                    table.problem("name", f'"{line.name}" stands twice: give each line its own name')
                if former.path == line.path:
                    table.problem("path", f'line "{former.name}" has this port already: give each line its own port')
            lines.append(line)
        return tuple(lines)

    def _routes(self, value: object) -> tuple[RouteSettings, ...]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.problems.append(f"{self.file}: [route]: write [[route]], once for each platform beside the broker")
            return ()
        routes: list[RouteSettings] = []
        for index, item in enumerate(value):
            table = Table(self, "route", index, item)
            name = table.name("name", "give the route a short name; what it has delivered is kept under it")
            if name in (MQTT_NAME, *(former.name for former in routes)):
                table.problem("name", f'"{name}" is another route\'s: give each its own')
            kind = table.choice("kind", "", KINDS)
            if not kind:
                continue
            route = self._civitas(table, name) if kind == CIVITAS else sensorthings_of(table, name)
            for former in routes:
                if former.to == route.to:
                    table.problem(
                        "url",
                        f'leads where route "{former.name}" does: the platform would have everything twice; '
                        "remove one of them, or give one a prefix of its own",
                    )
            routes.append(route)
        return tuple(routes)

    def _civitas(self, table: Table, name: str) -> CivitasSettings:
        topic = table.optional_text("topic", "give the topic of the platform's data source, or leave it out")
        if topic is not None and (set(topic) & set("+#\0") or topic.startswith("$")):
            table.problem("topic", "is not a topic that can be published to: the default is " + DEFAULT_TOPIC)
        prefix = table.optional_text("prefix", "give what begins every reference, or leave it out: the tenant and /")
        max_bytes = table.integer("max_bytes", DEFAULT_MAX_BYTES, MIN_MAX_BYTES, MAX_MAX_BYTES)
        mqtt = self._mqtt(table, "name, kind, topic, prefix, max_bytes, ")
        return CivitasSettings(name, mqtt, topic or DEFAULT_TOPIC, prefix, max_bytes)

    def _mqtt(self, table: Table, more: str = "") -> MqttSettings:
        host, port, tls = self._url(table)
        settings = MqttSettings(
            host,
            port,
            tls,
            table.optional_text("username", "give a name, or leave it out"),
            table.optional_path("password_file", "give the file that holds the password"),
            table.optional_path("ca_file", "give the file of the authorities that the broker's certificate comes from"),
            table.optional_path("certificate_file", "give the file of the gateway's certificate"),
            table.optional_path("key_file", "give the file of the certificate's private key"),
            table.integer("in_flight", DEFAULT_IN_FLIGHT, 1, MAX_IN_FLIGHT),
            table.integer("backlog_a_second", DEFAULT_BACKLOG_A_SECOND, 1, MAX_BACKLOG_A_SECOND),
        )
        if settings.password_file and not settings.username:
            table.problem("password_file", "needs a username: add it, or remove the password")
        if (settings.certificate_file is None) != (settings.key_file is None):
            table.problem(None, "certificate_file and key_file belong together: give both or neither")
        if not tls:
            for setting in ("ca_file", "certificate_file"):
                if getattr(settings, setting) is not None:
                    table.problem(setting, 'is of no use without TLS: begin the url with "mqtts://"')
        table.end(
            more + "url, username, password_file, ca_file, certificate_file, key_file, in_flight, backlog_a_second"
        )
        return settings

    def _buffer(self, table: Table) -> BufferSettings:
        settings = BufferSettings(
            table.integer("max_mib", DEFAULT_MAX_MIB, MIN_MAX_MIB, MAX_MAX_MIB),
            table.integer("max_days", 0, 1, MAX_MAX_DAYS) if table.has("max_days") else None,
            table.choice("when_full", REFUSE, (REFUSE, DROP_OLDEST)),
            table.integer("gather_s", 0, 0, MAX_GATHER_S),
        )
        table.end("max_mib, max_days, when_full, gather_s")
        return settings

    def _metrics(self, table: Table) -> int:
        port = table.integer("port", DEFAULT_METRICS_PORT, 1, 65535)
        table.end("port")
        return port

    def _log(self, table: Table) -> str:
        level = table.choice("level", DEFAULT_LOG_LEVEL, LOG_LEVELS)
        table.end("level")
        return level

    def _url(self, table: Table) -> tuple[str, int, bool]:
        remedy = 'write "mqtts://host:8883", or "mqtt://host:1883" without TLS'
        url = table.text("url", remedy)
        if not url:
            return "", 0, False
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host is None or parts.scheme not in ("mqtt", "mqtts") or parts.path not in ("", "/") or parts.query:
            table.problem("url", f"is not a broker's address: {remedy}")
            return "", 0, False
        if parts.username or parts.password:
            table.problem("url", "holds a name or password: use username and password_file")
        tls = parts.scheme == "mqtts"
        return host, port or (MQTTS_PORT if tls else MQTT_PORT), tls
