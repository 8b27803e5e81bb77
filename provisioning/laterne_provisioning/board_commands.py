"""`laterne board list|show|accept|reject|revoke|replace` and `enrol --csv`: typed for decisions.py, batch.py."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential
from laterne_provisioning import authority as authorities
from laterne_provisioning import batch, decisions, label_commands, output
from laterne_provisioning.errors import STOPPED, OperatorError, UsageError
from laterne_provisioning.keys import SigningKey
from laterne_provisioning.options import AuthorityOption, JsonOption
from laterne_provisioning.registry import Board, Registry
from laterne_provisioning.words import words

IdArgument = Annotated[str, typer.Argument(metavar="ID")]


def list_boards(authority: AuthorityOption, as_json: JsonOption = False) -> None:
    """All boards of the authority."""
    with authorities.open_authority(authority).registry() as registry:
        boards = registry.boards()
    if as_json:
        output.print_json([output.board_document(board) for board in boards])
        return
    documents = [output.board_document(board) for board in boards]
    columns = ("id", "state", "post", "kid", "tier", "model", "enrolled")
    output.print_table(columns, [[str(document[name] or "") for name in columns] for document in documents])


def show(
    board_id: IdArgument,
    authority: AuthorityOption,
    qr: Annotated[bool, typer.Option("--qr", help="Also the code that stands on its label.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Everything about one board."""
    if qr and as_json:
        raise UsageError("--qr is for people and --json for programs: give one of them.")
    with authorities.open_authority(authority).registry() as registry:
        board = registry.board(board_id)
    if board is None:
        raise OperatorError(f"{board_id} is not in the registry: see `laterne board list`.")
    document = output.board_document(board)
    if as_json:
        output.print_json(document)
        return
    for name, value in document.items():
        for shown in value if isinstance(value, list) else [value]:
            if isinstance(shown, dict):
                left_out = ("kty", "crv", "order", "receipt")  # for programs
                known = {part: one for part, one in shown.items() if part not in left_out and one is not None}
                shown = "  ".join(f"{part} {one}" for part, one in known.items())
            typer.echo(f"{name:18}{'' if shown is None else shown}")
    if qr:
        label_commands.draw(board)


def accept(
    authority: AuthorityOption,
    board: Annotated[str | None, typer.Argument(metavar="ID")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All that wait for a second person.")] = False,
    compared: Annotated[
        str | None, typer.Option("--words", metavar="WORDS", help="The words on the board: they must be its key's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The words have been compared: ask nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let pending boards be served, after comparing the words of their keys with those on the boards."""
    if (board is not None) == everyone:
        raise UsageError("Which boards? Give one ID, or --all.")
    if compared is not None and everyone:
        raise UsageError("--words are those of one board: name it.")
    opened = authorities.open_authority(authority)
    with opened.registry() as registry:
        chosen = [board] if board is not None else [row.id for row in decisions.waiting(registry)]
        if board is not None and compared is not None:
            _require_words(registry.board(board), compared)
        elif not yes:
            _ask([row for row in decisions.waiting(registry) if row.id in chosen])
        accepted = [one for one in chosen if decisions.accept(opened, registry, one, int(time.time()))]
        rows = [row for row in (registry.board(one) for one in chosen) if row is not None]
    if as_json:
        output.print_json([output.board_document(row) for row in rows])
        return
    for one in chosen:
        typer.echo(f"{one} is {'enrolled' if one in accepted else 'enrolled already'}.")
    typer.echo("Export the rosters anew: until then no gateway serves them." if accepted else "Nothing was to be done.")


def reject(
    board: IdArgument,
    authority: AuthorityOption,
    reason: Annotated[str, typer.Option(help="Stands in the rosters.")] = "rejected",
    as_json: JsonOption = False,
) -> None:
    """Never let a pending board be served. Its id is used up."""
    opened = authorities.open_authority(authority)
    with opened.registry() as registry:
        new = decisions.reject(opened, registry, board, reason, int(time.time()))
        _tell(registry, [board], as_json, f"{board} is {'rejected' if new else 'rejected already'}.")


def revoke(
    board: IdArgument,
    authority: AuthorityOption,
    reason: Annotated[str, typer.Option(help="Stands in the rosters.")],
    as_json: JsonOption = False,
) -> None:
    """End a board whose key may be in wrong hands. Gateways refuse it as soon as they have the next roster."""
    opened = authorities.open_authority(authority)
    with opened.registry() as registry:
        new = decisions.revoke(opened, registry, board, reason, int(time.time()))
        said = "revoked. Export the rosters of all gateways now" if new else "revoked already"
        _tell(registry, [board], as_json, f"{board} is {said}.")


def replace(
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    authority: AuthorityOption,
    as_json: JsonOption = False,
) -> None:
    """The board NEW takes the post of OLD, and OLD ends. The post keeps its history."""
    opened = authorities.open_authority(authority)
    with opened.registry() as registry:
        place = decisions.replace(opened, registry, old, new, int(time.time()))
        where = "" if place is None else f" at {place.post}"
        _tell(registry, [old, new], as_json, f"{new} has replaced {old}{where}. Export the rosters anew.")


def enrol_csv(
    opened: authorities.Authority,
    table: Path,
    patterns: Sequence[str],
    key: SigningKey,
    jobs: int,
    pending: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`laterne board enrol --csv`: the rows, and what each has come to. Exit code 1 if one failed."""
    rows = batch.rows_of(table)
    if not patterns and any(row.port is None for row in rows):
        raise UsageError(f"Rows of {table} name no port: add them, or give --port-from PATTERN.")
    ports = batch.ports_of(patterns)
    if not dry_run:
        key.open()
    results: dict[str, batch.Result] = {}
    with output.progress() as say:
        for done in batch.enrol_rows(opened, rows, ports, None if dry_run else key, jobs, pending):
            results[done.row.board] = done
            say(f"{len(results)} of {len(rows)}: {done.row.board} {done.result}. {done.said}")
    tell_rows([results[row.board] for row in rows], dry_run, as_json)


def tell_rows(ordered: Sequence[batch.Result], everything: bool, as_json: bool) -> None:
    """What the rows of a table have come to; without `everything` only those that failed. Exit code 1 if one did."""
    count = {name: sum(done.result == name for done in ordered) for name in batch.RESULTS}
    if as_json:
        documents = [
            {"id": done.row.board, "port": done.row.port, "result": done.result, "said": done.said} for done in ordered
        ]
        output.print_json({**count, "rows": documents})
    else:
        shown = [done for done in ordered if everything or done.result == batch.FAILED]
        if shown:
            output.print_table(
                ("line", "board", "port", "", "said"),
                [[str(d.row.number), d.row.board, d.row.port or "", d.result, d.said] for d in shown],
            )
        typer.echo(", ".join(f"{number} {name}" for name, number in count.items() if number) + ".")
    if count[batch.FAILED]:
        output.message("Give the same command again for those that failed; what is done stays done.")
        raise typer.Exit(1)


def _tell(registry: Registry, boards: Sequence[str], as_json: bool, text: str) -> None:
    if not as_json:
        typer.echo(text)
        return
    rows = [row for row in (registry.board(board) for board in boards) if row is not None]
    documents = [output.board_document(row) for row in rows]
    output.print_json(documents if len(documents) > 1 else documents[0])


def _require_words(board: Board | None, compared: str) -> None:
    if board is None:
        return  # accepting says so
    own = words(credential.kid(board.sign_key))
    if "-".join(compared.lower().replace("-", " ").split()) != own:
        raise OperatorError(
            f"The words of {board.id} are {own}, not these: it is another board than the one you hold. "
            f"Reject it if you cannot tell why: `laterne board reject {board.id}`."
        )


def _ask(boards: Sequence[Board]) -> None:
    if not boards:
        return
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask at: give --words WORDS, or --yes when they have been compared.")
    for board in boards:
        output.message(f"{board.id}: {words(credential.kid(board.sign_key))}")
    try:
        agreed = typer.confirm("Do the boards show these words?", err=True)
    except typer.Abort as why:
        raise typer.Exit(STOPPED) from why
    if not agreed:
        raise OperatorError("Nothing is accepted: reject the boards that show other words.")
