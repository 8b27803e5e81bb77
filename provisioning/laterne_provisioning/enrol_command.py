"""`laterne board enrol`: one board or a table of them, with the authority or away from it with a grant."""

import time
from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import board_commands, grant_commands, keys, output
from laterne_provisioning import enrol as enrolment
from laterne_provisioning.errors import UsageError
from laterne_provisioning.line import Line
from laterne_provisioning.options import (
    GrantOption,
    JournalOption,
    JsonOption,
    LatitudeOption,
    LongitudeOption,
    MaybeAuthorityOption,
    PassphraseOption,
    PendingOption,
    PinOption,
    PostOption,
    TechnicianKeyOption,
)
from laterne_provisioning.placing import place_of


def enrol(
    authority: MaybeAuthorityOption = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="The board's line, such as /dev/ttyUSB0.")] = None,
    board_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="What the board is called from now on.")
    ] = None,
    post: PostOption = None,
    latitude: LatitudeOption = None,
    longitude: LongitudeOption = None,
    pending: PendingOption = False,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Many boards: id,port,post,latitude,longitude.")
    ] = None,
    port_from: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Ports for rows of FILE without one: '/dev/ttyUSB*'.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="How many boards of FILE at a time.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done with FILE.")] = False,
    grant: GrantOption = None,
    technician_key: TechnicianKeyOption = None,
    journal: JournalOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the board on PORT its id and its credential. If it is interrupted, give the same command again."""
    place = place_of(post, latitude, longitude)
    if table is not None:
        if (port, board_id, place) != (None, None, None):
            raise UsageError("--port, --id and a place belong to one board: leave them out with --csv.")
    elif port is None or board_id is None:
        raise UsageError("Which board? Give --port and --id, or --csv FILE for many.")
    elif port_from or dry_run:
        raise UsageError("--port-from and --dry-run belong to --csv.")
    else:
        enrolment.check_ids(board_id, place)
    if grant is not None or technician_key is not None or journal is not None:
        if grant is None or technician_key is None:
            raise UsageError("Away from the authority it takes --grant and --technician-key.")
        if authority is not None or pending or port_from or dry_run:
            raise UsageError("--authority, --pending, --port-from and --dry-run do not go with --grant.")
        grant_commands.enrol(grant, technician_key, journal, port, board_id, place, table, passphrase_file, as_json)
        return
    if authority is None:
        raise UsageError("Whose board is it to be? Give --authority DIR, or away from it --grant FILE.")
    opened = authorities.open_authority(authority)
    key = opened.signing_key("enrolment", keys.Secrets(passphrase_file, pin_file))
    if table is not None:
        board_commands.enrol_csv(opened, table, port_from or [], key, jobs, pending, dry_run, as_json)
        return
    assert port is not None
    assert board_id is not None
    key.open()
    with opened.registry() as registry, Line(port) as line, output.progress() as say:
        done = enrolment.enrol(line, opened, registry, key, board_id, place, int(time.time()), say, pending)
    if as_json:
        output.print_json(output.board_document(done.board) | {"already": done.already})
        return
    document = output.board_document(done.board)
    waits = ", and waits for `laterne board accept`" if document["awaits"] == "decision" else ""
    typer.echo(f"{board_id} is {document['state']}{' already' if done.already else ''}{waits}.")
    typer.echo(f"Key {document['kid']}, in words {document['words']}; {document['model']}, key in {document['tier']}.")
