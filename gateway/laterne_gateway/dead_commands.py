"""`laterne-gateway dead list | retry`: what platforms have refused for good. Both work while the gateway runs."""

import json
import sqlite3
import sys
from pathlib import Path

from laterne_gateway import dead_letters
from laterne_gateway.clock import rfc3339
from laterne_gateway.config import Config
from laterne_gateway.database import FILE_NAME, DatabaseError, opened_beside

DONE, WRONG = 0, 1


def run(config: Config, action: str, route: str | None, identifiers: list[int], *, as_json: bool) -> int:
    """Returns the exit code: 1 when there is no database, or nothing to send again."""
    names = config.route_names[1:]
    if route is not None and route not in names:
        print(f"{route}: is not a route of {config.file}: name one of {', '.join(names) or 'none'}", file=sys.stderr)
        return WRONG
    file = config.gateway.directory / FILE_NAME
    if not file.exists():
        print(f"{file}: is not there: the gateway has not run yet, or this is another's configuration", file=sys.stderr)
        return WRONG
    try:
        found = _list(file, route) if action == "list" else None
        marked = _retry(file, route, identifiers) if action == "retry" else 0
    except (sqlite3.Error, DatabaseError) as why:
        print(f"{file}: {why}", file=sys.stderr)
        return WRONG
    if found is None:
        print(json.dumps({"marked": marked}) if as_json else f"{marked} will be sent again by the running gateway")
        return DONE if marked else WRONG
    told = [_told(one) for one in found]
    if as_json:
        print(json.dumps(told, indent=2))
        return DONE
    for one in told:
        again = ", to be sent again" if one["again"] else ""
        print(
            f"{one['id']}: {one['route']}: {one['board']} report {one['sequence']} {one['what']}: "
            f"{one['reason']}{again}"
        )
    print(f"{len(told)} dead letters", file=sys.stderr)
    return DONE


def _told(letter: dead_letters.DeadLetter) -> dict[str, object]:
    whole = letter.place == dead_letters.WHOLE_REPORT
    return {
        "id": letter.id,
        "route": letter.route,
        "board": letter.board,
        "sequence": letter.sequence,
        "what": letter.place,
        "reason": letter.reason,
        "noticed": None if letter.noticed_ms is None else rfc3339(letter.noticed_ms),
        "again": letter.again,
        "body": letter.body.hex() if whole else _read(letter.body),
    }


def _read(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # the card has changed it: it is shown as it is
        return body.hex()


def _list(file: Path, route: str | None) -> list[dead_letters.DeadLetter]:
    with opened_beside(file) as db:
        return dead_letters.rows(db, route)


def _retry(file: Path, route: str | None, identifiers: list[int]) -> int:
    # The one write that is not the buffer's: one short transaction, for which its thread waits (BUSY_MS).
    with opened_beside(file, "rw") as db:
        db.execute("pragma synchronous = full")
        with db:
            return dead_letters.mark(db, route, identifiers)
