"""`laterne board label`, and the code that `laterne board show --qr` draws."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import files, labels, output
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.options import AuthorityOption
from laterne_provisioning.registry import Board


def label(
    board_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Which boards, in this order.")],
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A .pdf, .png or .svg.")],
) -> None:
    """A label with a QR code and the key in words; of several boards A4 sheets of 21 labels, 63.5 x 38.1 mm."""
    suffix = labels.suffix_of(out)
    if len(board_ids) > labels.MAX_LABELS:
        raise UsageError(f"{len(board_ids)} labels are more than {labels.MAX_LABELS}: name fewer at once.")
    with authorities.open_authority(authority).registry() as registry:
        known = {board.id: board for board in registry.boards()}
    for board_id in board_ids:
        if board_id not in known:
            raise OperatorError(f"{board_id} is not in the registry: see `laterne board list`.")
    body = labels.file([labels.label(known[board_id]) for board_id in board_ids], suffix)
    try:
        files.write_public(out, body)
    except OSError as why:
        raise UsageError(f"{out} cannot be written: {why.strerror}.") from why
    typer.echo(f"{len(board_ids)} {'label is' if len(board_ids) == 1 else 'labels are'} in {out}.")


def draw(board: Board) -> None:
    """Draw the board's code on stdout, half a character a module; on a terminal that has no blocks, by its colours."""
    code = labels.code(board)
    width = code.symbol_size()[0] * (1 if output.is_utf8() else 2)  # with the quiet zone
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < width:
        typer.echo(f"(no QR code: it takes {width} columns; `laterne board label` writes it to a file)")
    elif output.is_utf8():
        code.terminal(compact=True)
    elif sys.stdout.isatty():
        code.terminal()
    else:
        typer.echo("(no QR code: this output takes no UTF-8)")
