"""`laterne-gateway status`: how the running gateway is, in words or as JSON."""

import json
import sqlite3
from datetime import UTC, datetime
from typing import Any

from laterne_gateway import status
from laterne_gateway.config import Config
from laterne_gateway.database import FILE_NAME, DatabaseError, opened_beside

DONE, WRONG = 0, 1


def tell(config: Config, *, as_json: bool) -> int:
    """Prints it. Returns the exit code: 1 when no gateway runs or an alarm stands."""
    found: dict[str, Any] = status.read(config.gateway.directory) or {
        "gateway": config.gateway.id,
        "running": False,
        "buffer": {"waiting": _waiting_on_disk(config)},
        "subjects": {},
    }
    alarms = {subject: sentence for subject, about in found["subjects"].items() for sentence in about.get("alarms", ())}
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for line in _in_words(found):
            print(line)
    return DONE if found["running"] and not alarms else WRONG


def _in_words(found: dict[str, Any]) -> list[str]:
    if not found["running"]:
        waiting = ", ".join(f"{count} for {route}" for route, count in found["buffer"]["waiting"].items()) or "none"
        return [
            f"gateway {found['gateway']}: does not run (systemctl status laterne-gateway says why)",
            f"reports waiting on disk: {waiting}",
        ]
    words = [
        f"gateway {found['gateway']}: runs for {_lasting(found['uptime_s'])}, version {found['version']}, "
        f"roster version {found['roster_version']}"
    ]
    held = [
        f"{_counted(count, 'board')} at version {version}"
        for version, count in found["trust"]["boards"].items()
        if version != "unknown"
    ]
    if unheard := found["trust"]["boards"].get("unknown", 0):
        held.append(f"{_counted(unheard, 'board')} not heard yet")
    words.append(f"trust version {found['trust']['version']}: {', '.join(held) or 'no boards'}")
    for route, waiting in found["buffer"]["waiting"].items():
        words.append(f"route {route}: {_counted(waiting, 'report')} waiting")
    if found["buffer"].get("bytes written a day") is not None:
        words.append(f"written to the disk: {found['buffer']['bytes written a day'] / 2**20:.0f} MiB a day")
    if not found["clock_credible"]:
        words.append("clock: not set: boards get no time, reports carry no time of reception (check NTP)")
    for subject, about in found["subjects"].items():
        said = [_said(name, value) for name, value in {**about["values"], **about["counts"]}.items()]
        words.append(f"{subject}: {', '.join(said) or 'nothing yet'}")
        words += [f"{subject}: ALARM: {sentence}" for sentence in about["alarms"]]
    return words


def _said(name: str, value: Any) -> str:
    """A counter or a last value, as health has it by its name (health.py)."""
    if isinstance(value, bool):
        return name if value else f"not {name}"
    if value is None:
        return f"{name} unknown"
    if name.endswith("utc_ms"):
        moment = datetime.fromtimestamp(value // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"{name.removesuffix('utc_ms').rstrip(' _')} {moment}"
    if name.endswith(" s"):
        return f"{name.removesuffix(' s')} {value} s"
    return f"{name} {value}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _lasting(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _waiting_on_disk(config: Config) -> dict[str, int]:
    file = config.gateway.directory / FILE_NAME
    if not file.exists():
        return {}
    query = (
        "select route, (select count(*) from report "
        "where id > lane.delivered and (lane.upto is null or id <= lane.upto)) from lane"
    )
    waiting: dict[str, int] = {}
    try:
        with opened_beside(file) as connection:
            for route, count in connection.execute(query):
                waiting[route] = waiting.get(route, 0) + count
    except (sqlite3.Error, DatabaseError):
        return {}  # `check` says what is wrong with it
    return waiting
