"""What a command shows: results on stdout, progress and messages on stderr, progress only on a terminal."""

import base64
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from laterne_protocol import credential
from laterne_provisioning.registry import PENDING, Board
from laterne_provisioning.words import words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

MAX_FOREIGN = 64  # characters of a stranger's text that are shown
PIPE_COLUMNS = 200  # wide enough for every line of ours: a pipe has no width

_moving: "list[Status]" = []  # what moves on stderr now


def message(text: str) -> None:
    """A sentence on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def foreign(text: str) -> str:
    """A stranger's text in a form that steers no terminal: cut, and what is no visible character (controls, formats,
    changes of direction, line ends) as its escape."""
    cut = text if len(text) <= MAX_FOREIGN else text[:MAX_FOREIGN] + "..."
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in cut)


@cache
def _console() -> "Console":
    """The one console of stderr: what moves on it shares its lines."""
    from rich.console import Console  # a tenth of a command's time: only where something is shown richly

    return Console(stderr=True, highlight=False, markup=False)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that says what is under way, on a terminal; in a pipe it is quiet."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    console = _console()
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:

        def say(text: str) -> None:
            console.print(text)
            status.update("…")

        _moving.append(status)
        try:
            yield say
        finally:
            _moving.remove(status)


@contextmanager
def still() -> Iterator[None]:
    """Nothing moves on the terminal meanwhile: it would paint over a question, and whoever is asked would wait."""
    for status in _moving:
        status.stop()
    try:
        yield
    finally:
        for status in _moving:
            status.start()


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, whole) that draws how far something is, on a terminal; in a pipe it is quiet."""
    if not sys.stderr.isatty():
        yield lambda done, whole: None
        return
    from rich.progress import Progress

    with Progress(console=_console(), transient=True) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, whole: drawn.update(task, completed=done, total=whole)


def is_utf8() -> bool:
    """Whether stdout takes every character there is."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def print_json(document: object) -> None:
    """The one JSON document of a command."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=not is_utf8())
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_line(document: object) -> None:
    """One JSON document in one line, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=not is_utf8(), separators=(",", ":")) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    found = widths(columns, rows, console.width)
    gap = 2 if sum(found) + 2 * (len(found) - 1) <= console.width else 1
    shown = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for column, width in zip(columns, found, strict=True):
        shown.add_column(column, overflow="fold", width=width)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def widths(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """How wide each column may be, one place between two: where there is little room, texts are broken at their spaces
    first, then keys and digests anywhere, and names of columns last."""
    texts = [[name, *(row[number] for row in rows)] for number, name in enumerate(columns)]
    wanted = [max(1, *map(len, those)) for those in texts]
    for floors in (
        [max(len(word) for text in those for word in text.split() or [""]) for those in texts],
        [max(len(word) for word in name.split() or [""]) for name in columns],
        [1] * len(columns),
    ):
        while sum(wanted) + len(wanted) - 1 > room:
            wide = max(range(len(wanted)), key=lambda number: (wanted[number] > floors[number], wanted[number]))
            if wanted[wide] <= floors[wide]:
                break
            wanted[wide] -= 1
    return wanted


def jwk(key: bytes) -> dict[str, str]:
    """RFC 7518, 6.2: a P-256 key of 64 bytes as a JWK."""
    return {"kty": "EC", "crv": "P-256", "x": base64url(key[:32]), "y": base64url(key[32:])}


def base64url(data: bytes) -> str:
    """RFC 7515, 2: without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def board_document(board: Board) -> dict[str, object]:
    """A board as `--json` shows it (provisioning/README.md, "board list")."""
    place = board.place
    kid = credential.kid(board.sign_key)
    return {
        "id": board.id,
        "state": board.state,
        "kid": kid.hex(),
        "words": words(kid),
        "sign_key": jwk(board.sign_key),
        "agree_key": jwk(board.agree_key),
        "tier": credential.TIERS[board.tier],
        "model": foreign(board.model),
        "hardware": board.hardware.hex(),
        "post": None if place is None else place.post,
        "latitude": None if place is None or place.latitude is None else place.latitude / 1e7,
        "longitude": None if place is None or place.longitude is None else place.longitude / 1e7,
        "credential": base64url(board.credential),
        "credential_digest": board.credential_digest.hex(),
        "begun": moment(board.begun),
        "awaits": None if board.state != PENDING else "board" if board.delivered is None else "decision",
        "enrolled": moment(board.enrolled),
        "ended": moment(board.ended),
        "reason": board.reason,
        "replaced_by": board.replaced_by,
        "under_way": None if board.under_way is None else {"act": board.under_way[0], "step": board.under_way[1]},
        "former_keys": [
            {"kid": credential.kid(one.sign_key).hex(), "last_report": one.last, "until": moment(one.until)}
            for one in board.formers
        ],
        "last_report": board.last,
        "receipts": [
            {
                "act": done.act,
                "counter": done.counter,
                "last_report": done.last,
                "at": moment(done.at),
                "order": base64url(done.ordered),
                "receipt": base64url(done.body),
            }
            for done in board.receipts
        ],
        "posts": [
            {"post": hanging.place.post, "since": moment(hanging.since), "until": moment(hanging.until)}
            for hanging in board.hangings
        ],
    }


def moment(seconds: int | None) -> str | None:
    """RFC 3339 in UTC of Unix seconds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
