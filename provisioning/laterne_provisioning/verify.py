"""`laterne verify`: reports from files or a broker, through the verifier, to people or programs.

Nothing here judges a report: that is verifier.py. The exit code is 1 if anything was refused, is missing, if
a board was overtaken under its key, or if nothing was verified at all.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import known_boards, output, report_files, subscriber
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.verdicts import Source, Tally, document, print_tables, show_line, show_news, show_nothing
from laterne_provisioning.verifier import Verifier


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
        tally = Tally(verifier, show_line if json_lines else show_nothing if as_json else show_news(), kept)
        if broker is None:
            for path in paths or []:
                _read(path, tally)
        else:
            who = subscriber.Credentials(ca_file, certificate, key, user, password_file)
            where = subscriber.broker_of(broker, who)
            asyncio.run(_listen(where, topic, tally, seconds, count, json_lines))
    if json_lines:
        output.print_line({"event": "summary"} | document(tally))
    elif as_json:
        output.print_json(document(tally))
    else:
        print_tables(tally)
    if tally.passed_over:
        output.message(
            f"{tally.passed_over} messages came faster than they could be checked: nobody has looked at them. "
            "See who floods the broker; what its archive has kept can be verified from FILEs."
        )
    if tally.verified + tally.repeated == 0:
        output.message(
            "No report was verified."
            if broker is None or tally.seen
            else "No report came. Boards close one each minute: listen longer, and see whether the gateway delivers "
            "(laterne-gateway status)."
        )
    if count is not None and tally.seen < count:
        raise OperatorError(f"{tally.seen} of {count} reports came: wait longer, or see whether the gateway delivers.")
    if not tally.is_good():
        raise typer.Exit(1)


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
def _saved(path: Path | None) -> Iterator[report_files.Kept | None]:
    if path is None:
        yield None
        return
    try:
        kept = report_files.Kept(path)
    except OSError as why:
        raise UsageError(f"{path} cannot be made: {why.strerror}. Name a new file.") from why
    with contextlib.closing(kept):
        yield kept


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
        until = "" if seconds is None else f" for {seconds:g} s"
        say(f"Listening to {topic}{until}; stop with Ctrl-C. Boards close a report each minute.")
        if json_lines:
            output.print_line({"event": "subscribed", "broker": str(broker), "topic": topic})
        if seconds is not None:
            loop.call_later(seconds, stop.set)

    def on_message(named: str, body: bytes) -> None:
        if stop.is_set():
            return
        board = subscriber.board_of(named)
        source = Source(f"{broker} {board or output.foreign(named)}", time.time_ns() // 1_000_000)
        tally.take(body, board or "", source)  # "": the topic is none of any board of ours
        if count is not None and tally.seen >= count:
            stop.set()

    def on_passed_over() -> None:
        if not tally.passed_over:
            output.message("Messages come faster than they can be checked: some are passed over.")
        tally.passed_over += 1

    with output.progress() as say:
        say(f"Connecting to {broker}")
        listening = asyncio.create_task(
            subscriber.listen(broker, topic, on_subscribed, on_message, on_passed_over, output.message)
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((listening, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if listening.done():
            listening.result()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
