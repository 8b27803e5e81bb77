"""`laterne verify`: reports from files or a broker, through the verifier, to people or programs.

Nothing here judges a report: that is verifier.py. The exit code is 1 if anything was refused, is missing, or if
nothing was verified at all.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from laterne_protocol import channels, credential, report
from laterne_provisioning import authority as authorities
from laterne_provisioning import files, known_boards, output, report_files, subscriber
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.verifier import Account, Refused, Verified, Verifier

MAX_REFUSED_SHOWN = 1000  # a flood of forged reports is counted, not kept


@dataclass
class Source:
    """Where a report came from: "FILE, byte N" or the broker's topic."""

    text: str
    arrival_ms: int | None = None


@dataclass
class Tally:
    """What the run has come to so far."""

    verifier: Verifier
    show: Callable[[bytes, Source, Verified | Refused], None]
    save: BinaryIO | None
    verified: int = 0
    refused: int = 0
    repeated: int = 0
    readings: int = 0
    refusals: list[tuple[Refused, Source, int]] = field(default_factory=list)

    def take(self, body: bytes, addressed: str | None, source: Source) -> None:
        """Check one report, count it, show it, keep it."""
        verdict = self.verifier.check(body, addressed)
        if isinstance(verdict, Refused):
            self.refused += 1
            if len(self.refusals) < MAX_REFUSED_SHOWN:
                self.refusals.append((verdict, source, len(body)))
        elif verdict.repeated:
            self.repeated += 1
        else:
            self.verified += 1
            self.readings += len(verdict.readings)
            if self.save is not None:
                self.save.write(body)
                self.save.flush()
        self.show(body, source, verdict)

    @property
    def seen(self) -> int:
        """Reports looked at."""
        return self.verified + self.refused + self.repeated

    def is_good(self) -> bool:
        """Nothing refused, nothing missing, something verified."""
        missing = any(account.missing for account in self.verifier.accounts())
        return self.verified > 0 and self.refused == 0 and not missing


def verify(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Reports, a CBOR sequence.")] = None,
    broker: Annotated[str | None, typer.Option(metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT.")] = None,
    authority: Annotated[Path | None, typer.Option(metavar="DIR", help="Whose boards these are.")] = None,
    roster: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Instead: rosters, with --trust.")] = None,
    trust: Annotated[Path | None, typer.Option(metavar="FILE", help="The trust file that the rosters need.")] = None,
    received_by: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"],
            help="UTC. You know that all of FILE had come by then: boards revoked later are believed.",
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many reports.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep what is verified, as a new file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document at the end.")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="One JSON line for each report, at once.")] = False,
    topic: Annotated[str, typer.Option(metavar="FILTER", help="What to subscribe to.")] = subscriber.TOPIC,
    ca_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Who may sign the broker's certificate.")] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="FILE", help="Our own certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    user: Annotated[str | None, typer.Option(help="For a broker that wants a name.")] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The password: first line.")] = None,
) -> None:
    """Who signed what, and what is missing. Needs public data only; exit code 1 if anything is wrong."""
    if bool(paths) == (broker is not None):
        raise UsageError("Give either FILEs or --broker URL: what is to be verified?")
    if broker is None and (seconds is not None or count is not None):
        raise UsageError("--seconds and --count belong to --broker: a file ends by itself.")
    if as_json and json_lines:
        raise UsageError("--json and --json-lines contradict each other: give one of them.")
    if received_by is not None and (broker is not None or authority is None):
        raise UsageError(
            "--received-by belongs to FILEs and an --authority: only its registry knows when a board ended."
        )
    verifier = _verifier(authority, roster, trust, received_by)
    with _saved(save) as kept:
        tally = Tally(verifier, _show_line if json_lines else _show_nothing if as_json else _show_refused, kept)
        if broker is None:
            for path in paths or []:
                _read(path, tally)
        else:
            who = subscriber.Credentials(ca_file, certificate, key, user, password_file)
            where = subscriber.broker_of(broker, who)
            asyncio.run(_listen(where, topic, tally, seconds, count, json_lines))
    if json_lines:
        output.print_line({"event": "summary"} | _document(tally))
    elif as_json:
        output.print_json(_document(tally))
    else:
        _print_tables(tally)
    if tally.verified + tally.repeated == 0:
        output.message("No report was verified.")
    if count is not None and tally.seen < count:
        raise OperatorError(f"{tally.seen} of {count} reports came: wait longer, or see whether the gateway delivers.")
    if not tally.is_good():
        raise typer.Exit(1)


def key_documents(authority: authorities.Authority) -> list[dict[str, str]]:
    """The keys of an authority as `init --json` shows them."""
    return [
        {"role": place.role, "kid": credential.kid(place.public).hex(), "uri": place.uri} for place in authority.places
    ]


def _verifier(
    authority: Path | None, roster: list[Path] | None, trust: Path | None, received_by: datetime | None
) -> Verifier:
    if authority is not None:
        if roster or trust is not None:
            raise UsageError("--authority and --roster/--trust contradict each other: give one or the other.")
        by = None if received_by is None else int(received_by.replace(tzinfo=UTC).timestamp())
        return Verifier(known_boards.of_authority(authorities.open_authority(authority), by))
    if not roster or trust is None:
        raise UsageError("Whose signatures count? Give --authority DIR, or --roster FILE and --trust FILE.")
    return Verifier(*known_boards.of_rosters(roster, trust))


@contextlib.contextmanager
def _saved(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("xb")
    except OSError as why:
        raise UsageError(f"{path} cannot be made: {why.strerror}. Name a new file.") from why
    with file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    files.sync_directory(path.parent)


def _read(path: Path, tally: Tally) -> None:
    try:
        with path.open("rb") as file:
            for piece in report_files.pieces(file.read):
                end = piece.start + len(piece.body)
                tally.take(piece.body, None, Source(f"{path}, bytes {piece.start} to {end - 1}"))
    except OSError as why:
        raise UsageError(f"{path} cannot be read: {why.strerror}.") from why


async def _listen(
    broker: subscriber.Broker,
    topic: str,
    tally: Tally,
    seconds: float | None,
    count: int | None,
    json_lines: bool,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Being stopped is the normal end of listening: the summary follows.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def on_subscribed() -> None:
        if json_lines:
            output.print_line({"event": "subscribed", "broker": str(broker), "topic": topic})
        if seconds is not None:
            loop.call_later(seconds, stop.set)

    def on_message(board: str, body: bytes) -> None:
        if stop.is_set():
            return
        tally.take(body, board, Source(f"{broker} {board}", time.time_ns() // 1_000_000))
        if count is not None and tally.seen >= count:
            stop.set()

    with output.progress() as say:
        say(f"Listening to {topic} at {broker}; stop with Ctrl-C")
        listening = asyncio.create_task(subscriber.listen(broker, topic, on_subscribed, on_message, output.message))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((listening, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if listening.done():
            listening.result()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


def _show_nothing(body: bytes, source: Source, verdict: Verified | Refused) -> None:
    """Tables and documents come at the end."""


def _show_refused(body: bytes, source: Source, verdict: Verified | Refused) -> None:
    # While one listens, what is wrong is said at once; for files the table says it.
    if isinstance(verdict, Refused) and source.arrival_ms is not None:
        output.message(f"{_named(verdict)}, report {_shown(verdict.sequence)}: refused: {verdict.reason}")


def _show_line(body: bytes, source: Source, verdict: Verified | Refused) -> None:
    line: dict[str, object] = {
        "event": "report",
        "ok": isinstance(verdict, Verified),
        "board": verdict.board,
        "sequence": verdict.sequence,
        "bytes": len(body),
        "arrival_ms": source.arrival_ms,
        "source": source.text,
    }
    if isinstance(verdict, Refused):
        output.print_line(line | {"claims": verdict.claims, "reason": verdict.reason})
        return
    last = {reading.channel: reading for reading in verdict.readings if reading.value is not None}
    output.print_line(
        line
        | {
            "boot": verdict.boot,
            "closed_utc_ms": verdict.closed_utc_ms,
            "readings": len(verdict.readings),
            "repeated": verdict.repeated,
            "lost": [list(gap) for gap in verdict.lost],
            "last": {channels.describe(number)[0]: _value(last[number].value or 0, number) for number in sorted(last)},
            "reason": None,
        }
    )


def _value(integer: int, channel: int) -> dict[str, object]:
    _, unit, exponent = channels.describe(channel)
    value = integer * 10**exponent if exponent >= 0 else round(integer * 10.0**exponent, -exponent)
    return {"value": value, "unit": unit}


def _document(tally: Tally) -> dict[str, object]:
    return {
        "ok": tally.is_good(),
        "reports_verified": tally.verified,
        "reports_refused": tally.refused,
        "reports_repeated": tally.repeated,
        "readings": tally.readings,
        "boards": [_account_document(account) for account in tally.verifier.accounts()],
        "refused": [
            {
                "board": refused.board,
                "claims": refused.claims,
                "sequence": refused.sequence,
                "reason": refused.reason,
                "source": source.text,
                "bytes": size,
            }
            for refused, source, size in tally.refusals
        ],
    }


def _account_document(account: Account) -> dict[str, object]:
    return {
        "board": account.board,
        "kid": account.kid.hex(),
        "reports": account.reports,
        "readings": account.readings,
        "repeated": account.repeated,
        "refused": account.refused,
        "first": account.first,
        "last": account.last,
        "missing": [list(between) for between in account.missing],
        "lost": [list(gap) for gap in account.lost],
    }


def _print_tables(tally: Tally) -> None:
    columns = ("board", "signed by key", "reports", "readings", "sequences", "missing", "stated lost", "refused")
    output.print_table(columns, [_account_row(account) for account in tally.verifier.accounts()])
    if tally.refusals:
        sys.stdout.write("\n")
        output.print_table(
            ("refused: board", "sequence", "reason", "where"),
            [
                [_named(refused), _shown(refused.sequence), refused.reason, source.text]
                for refused, source, _ in tally.refusals
            ],
        )
    more = tally.refused - len(tally.refusals)
    if more:
        sys.stdout.write(f"and {more} more refused\n")
    sys.stdout.write(
        f"\n{tally.verified} reports verified with {tally.readings} readings, {tally.repeated} repeated, "
        f"{tally.refused} refused\n"
    )
    sys.stdout.flush()


def _account_row(account: Account) -> list[str]:
    return [
        account.board,
        account.kid.hex(),
        str(account.reports),
        str(account.readings),
        "" if account.first is None else f"{account.first} to {account.last}",
        ", ".join(_between(first, last) for first, last in account.missing),
        ", ".join(
            f"{_between(first, last)} ({report.REASONS.get(reason, reason)})" for first, last, reason in account.lost
        ),
        str(account.refused or ""),
    ]


def _between(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _named(refused: Refused) -> str:
    if refused.board is None:
        return "unknown"
    if refused.claims is None:
        return refused.board
    return f"{refused.board}, claims to be {refused.claims}" if refused.claims != refused.board else refused.board


def _shown(sequence: int | None) -> str:
    return "unreadable" if sequence is None else str(sequence)
