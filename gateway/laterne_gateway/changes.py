"""What a changed configuration means for a process that runs on: compared here, made true in running.py.

While it runs these can change: lines (each by its name), the settings of the broker and of each route, the buffer's
bounds, metrics, what is logged. These need a restart, because what is on the disk, at the broker and in every part
hangs on them: all of [gateway], and which routes there are. The files that [gateway] names are another matter: trust,
roster and credential are read again each time (agent.py).
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from laterne_gateway.config import Config, MqttSettings
from laterne_gateway.route_settings import MQTT_NAME, RouteSettings


@dataclass(frozen=True)
class Changes:
    """in_force: the configuration that counts now: the new one, but for what needs a restart.

    lines, routes: names of those to end, and of those to begin then; one with new settings is in both.
    restart: the settings that count only after a restart, as they stand in the file. said: all others, for the log.
    """

    in_force: Config
    lines_end: tuple[str, ...]
    lines_begin: tuple[str, ...]
    routes_anew: tuple[str, ...]
    buffer: bool
    metrics: bool
    log: bool
    restart: tuple[str, ...]
    said: tuple[str, ...]


def compare(former: Config, new: Config) -> Changes:
    """former: what is in force. new: what the file says now."""
    said: list[str] = []
    had, has = ({line.name: line for line in one.lines} for one in (former, new))
    gone = [name for name in had if name not in has]
    fresh = [name for name in has if name not in had]
    other = [name for name in has if name in had and has[name] != had[name]]
    said += [f"line {name} is gone" for name in gone]
    said += [f"line {name} is new" for name in fresh]
    said += [f"line {name} has other settings" for name in other]

    routes_had, routes_have = ({route.name: route for route in one.routes} for one in (former, new))
    routes = tuple(routes_have.get(name, route) for name, route in routes_had.items())
    anew = [MQTT_NAME] if new.mqtt != former.mqtt else []
    anew += [route.name for route in routes if route != routes_had[route.name]]
    said += [f"route {name} has other settings" for name in anew]

    restart = [
        f"[gateway] {one.name}"
        for one in fields(former.gateway)
        if getattr(former.gateway, one.name) != getattr(new.gateway, one.name)
    ]
    restart += [f"[[route]] {name}, which is new" for name in routes_have if name not in routes_had]
    restart += [f"[[route]] {name}, which is gone" for name in routes_had if name not in routes_have]

    buffer, metrics = new.buffer != former.buffer, new.metrics_port != former.metrics_port
    log = new.log_level != former.log_level
    said += [
        f"{table} has other settings"
        for table, is_so in (("[buffer]", buffer), ("[metrics]", metrics), ("[log]", log))
        if is_so
    ]
    return Changes(
        replace(new, gateway=former.gateway, routes=routes),
        tuple(gone + other),
        tuple(name for name in has if name in fresh or name in other),
        tuple(anew),
        buffer,
        metrics,
        log,
        tuple(restart),
        tuple(said),
    )


def state_of_files(settings: MqttSettings | RouteSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """What tells whether a file that a route names (secret, certificate) is another one now; None: it is not there."""
    found: list[tuple[int, int, int] | None] = []
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, MqttSettings):
            found += state_of_files(value)
        elif isinstance(value, Path):
            try:
                stat = value.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append(None)
    return tuple(found)
