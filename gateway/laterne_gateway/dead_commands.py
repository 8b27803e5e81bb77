"""`laterne-gateway dead list | retry | seen`: what platforms have refused for good; also while the gateway runs."""

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
        if action == "list":
            return _list(file, route, as_json=as_json)
        if action == "seen":
            return _seen(file, route, as_json=as_json)
        marked = _retry(file, route, identifiers)
    except (sqlite3.Error, DatabaseError) as why:
        print(f"{file}: {why}", file=sys.stderr)
        return WRONG
    print(json.dumps({"marked": marked}) if as_json else f"{marked} will be sent again by the running gateway")
    return DONE if marked else WRONG


def _list(file: Path, route: str | None, *, as_json: bool) -> int:
    with opened_beside(file) as db:
        told = [_told(one) for one in dead_letters.rows(db, route)]
        passed_over = dead_letters.passed_over(db, route)
    if as_json:
        print(json.dumps({"dead_letters": told, "passed_over": list(map(_loss, passed_over))}, indent=2))
        return DONE
    for one in told:
        again = ", to be sent again" if one["again"] else ""
        print(
            f"{one['id']}: {one['route']}: {one['board']} report {one['sequence']} {one['what']}: "
            f"{one['reason']}{again}"
        )
    for loss in passed_over:
        print(_loss_in_words(loss))
    more = ", and more was refused than is kept: `dead seen` ends that alarm" if passed_over else ""
    print(f"{len(told)} dead letters{more}", file=sys.stderr)
    return DONE


def _seen(file: Path, route: str | None, *, as_json: bool) -> int:
    """Shown first, then taken out: what was never printed is not gone."""
    with opened_beside(file, "rw") as db:
        shown = dead_letters.passed_over(db, route)
        if as_json:
            print(json.dumps({"passed_over": list(map(_loss, shown))}, indent=2), flush=True)
        else:
            print("\n".join(map(_loss_in_words, shown)) or "nothing was passed over", flush=True)
        db.execute("pragma synchronous = full")
        with db:
            dead_letters.seen(db, shown)
    return DONE


def _loss(loss: dead_letters.PassedOver) -> dict[str, object]:
    return {
        "route": loss.route,
        "board": loss.board,
        "first": loss.first,
        "last": loss.last,
        "reports": loss.reports,
        "reason": loss.reason,
        "noticed": None if loss.noticed_ms is None else rfc3339(loss.noticed_ms),
    }


def _loss_in_words(loss: dead_letters.PassedOver) -> str:
    return (
        f"{loss.route}: {loss.board} reports {loss.first} to {loss.last}: of {loss.reports} of them at most something "
        f"was refused and is not kept, the last time because: {loss.reason}"
    )


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


def _retry(file: Path, route: str | None, identifiers: list[int]) -> int:
    # The one write that is not the buffer's: one short transaction, for which its thread waits (BUSY_MS).
    with opened_beside(file, "rw") as db:
        db.execute("pragma synchronous = full")
        with db:
            return dead_letters.mark(db, route, identifiers)
