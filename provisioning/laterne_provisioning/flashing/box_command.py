"""`laterne flash --batch`: a box of boards, told board by board and at the end."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from laterne_protocol import credential
from laterne_provisioning import authority as authorities
from laterne_provisioning import batch, files, keys, label_commands, labels, output, releases
from laterne_provisioning.batch import ALREADY, ENROLLED, FAILED
from laterne_provisioning.errors import UsageError
from laterne_provisioning.flashing import box, ports
from laterne_provisioning.flashing.arrivals import Arrivals
from laterne_provisioning.flashing.box import Box, Result, Way
from laterne_provisioning.line import Line
from laterne_provisioning.words import words


@dataclass(frozen=True)
class Options:
    """What was typed. first, number: ids that are counted; or table. wait_s: for the next board, None: for ever."""

    first: str | None
    number: int | None
    table: Path | None
    line: str
    port_from: str | None
    label: Path | None
    wait_s: float | None
    as_json: bool


def flash_box(authority: authorities.Authority, way: Way, secrets: keys.Secrets, options: Options) -> None:
    """Exit code 1 when a board has failed or a row is open."""
    releases.require_ours(way.release)
    releases.require_signed(way.release, authority.trusted)
    rows = _rows(options)
    if options.label is not None:
        labels.require_possible(options.label, len(rows))
    line_of = box.lines_for(options.port_from, options.line)
    if "*" not in options.line:
        with Line(options.line):
            pass  # what is wrong with it is told before anything is written
    key = authority.signing_key("enrolment", secrets)
    key.open()
    results: list[Result] = []
    with authority.registry() as registry:
        todo = Box(authority, registry, key, rows, line_of)
        try:
            with Arrivals(looking(options)) as arrivals, output.progress() as say:
                while rest := todo.open():
                    say(f"{len(rows) - len(rest)} of {len(rows)} are done: plug in the next board")
                    port = arrivals.next(options.wait_s)
                    if port is None:
                        break
                    result = todo.take(port, way, say)
                    results.append(result)
                    _tell(result)
                    _write_labels(todo, options.label)
        finally:  # also after Ctrl-C, and when labels cannot be written: what was done is told
            _tell_all(todo, results, options)
            _write_labels(todo, options.label)
        if todo.open() or any(result.result == FAILED for result in results):
            raise typer.Exit(1)


def _rows(options: Options) -> list[batch.Row]:
    if (options.table is None) == (options.first is None):
        raise UsageError("Which boards? With --batch give either --csv FILE, or --id FIRST and --count N.")
    if options.table is not None:
        rows = batch.rows_of(options.table)
        if any(row.port is not None for row in rows):
            raise UsageError(f"{options.table} names ports: with --batch rows go to boards as they are plugged in.")
        return rows
    if options.number is None:
        raise UsageError("How many boards are in the box? Give --count N with --id.")
    assert options.first is not None
    return box.counted(options.first, options.number)


def looking(options: Options) -> Callable[[], Sequence[str]]:
    """Which ports have boards to be taken, asked again and again. What is left alone is told, once."""
    pattern = options.port_from
    if pattern is not None:
        return lambda: sorted(glob.glob(pattern))
    line = os.path.realpath(options.line)
    left: set[str] = set()

    def boards() -> list[str]:
        found = [port for port in ports.found() if os.path.realpath(port.device) != line]
        for port in found:
            if not port.is_board and port.device not in left:
                left.add(port.device)
                output.message(
                    f"{port.device} ({output.foreign(port.what)}) is left alone: it does not say that it is a board. "
                    f"If it is one, name it: --port-from '{port.device}'."
                )
        return [port.device for port in found if port.is_board]

    return boards


def _tell(result: Result) -> None:
    board = "" if result.board is None else f" {result.board.id}"
    output.message(f"{result.port}:{board} {result.result}. {result.said}")


def _write_labels(todo: Box, path: Path | None) -> None:
    boards = todo.boards()
    if path is None or not boards:
        return
    body = labels.file([labels.label(board) for board in boards], labels.suffix_of(path))
    try:
        files.write_public(path, body)
    except OSError as why:
        raise UsageError(f"{path} cannot be written: {why.strerror}. The boards are done: write labels later.") from why


def _tell_all(todo: Box, results: Sequence[Result], options: Options) -> None:
    rest = [row.board for row in todo.open()]
    if options.as_json:
        document: dict[str, object] = {
            kind: sum(result.result == kind for result in results) for kind in (ENROLLED, ALREADY, FAILED)
        }
        document["open"] = rest
        document["label"] = None if options.label is None else str(options.label)
        document["rows"] = [
            {
                "port": result.port,
                "id": None if result.board is None else result.board.id,
                "result": result.result,
                "said": result.said,
                "written": result.written,
            }
            for result in results
        ]
        output.print_json(document)
        return
    for result in results:
        if result.result == ENROLLED and result.board is not None:
            label_commands.draw(result.board)
            kid = credential.kid(result.board.sign_key)
            typer.echo(f"{result.board.id}  {words(kid)}  {kid.hex()}")
    shown = [["" if one.board is None else one.board.id, one.port, one.result, one.said] for one in results]
    if shown:
        output.print_table(("id", "port", "result", ""), shown)
    else:
        typer.echo("No board has come.")
    typer.echo(f"{len(todo.boards())} boards of the box are done, {len(rest)} are open.")
    if rest:
        typer.echo("Give the same command again for the others.")
