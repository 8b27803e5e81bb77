"""`laterne backup` and `laterne restore`."""

from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import backup as backups
from laterne_provisioning import files, output
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption


def backup(
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A new file, 0600.")],
    include_plain_keys: Annotated[
        bool, typer.Option("--include-plain-keys", help="Also keys that no passphrase protects.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole authority in one file. Private keys stay encrypted; keep the passphrase elsewhere."""
    opened = authorities.open_authority(authority)
    if out.exists() or not out.parent.is_dir():
        raise UsageError(f"{out} is there already, or its directory is not: choose a new file.")
    if out.resolve().is_relative_to(opened.directory):
        raise UsageError(f"{out} is in the authority itself: choose another place, best another medium.")
    packed = backups.pack(opened, out, include_plain_keys)
    try:
        files.write_private(out, packed.body)
    except FileExistsError as why:
        raise UsageError(f"{out} is there already: choose a new file.") from why
    except OSError as why:
        raise UsageError(f"{out} cannot be written: {why.strerror}.") from why
    if as_json:
        output.print_json(
            {"file": str(out), "bytes": len(packed.body), "members": packed.members, "elsewhere": packed.elsewhere}
        )
        return
    typer.echo(f"{opened.name} is in {out}: {len(packed.members)} files, {len(packed.body)} bytes.")
    for uri in packed.elsewhere:
        typer.echo(f"Not in it, because it is not in the directory: {uri}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Made by `laterne backup`.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty.")],
    roster_version_at_least: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1 << 52,
            metavar="N",
            help="No roster gets a lower version. [default: a jump of more than 10,000 over those in the backup]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring an authority back. What was done after the backup was made is not in it: see provisioning/README.md."""
    done = backups.restore(file, directory, roster_version_at_least)
    if as_json:
        output.print_json(
            {
                "directory": str(done.authority.directory),
                "name": done.authority.name,
                "made": done.made,
                "roster_version_at_least": done.floor,
                "wrong": done.wrong,
            }
        )
    else:
        typer.echo(f"{done.authority.name} is back in {done.authority.directory}, as it was on {done.made}.")
        typer.echo(f"The next roster of each gateway has the version {done.floor} or a higher one.")
        typer.echo("Revoke again what was revoked after that, before a roster is exported; enrolments since are lost.")
    if done.wrong:
        raise OperatorError(
            f"It is restored as it was, and its audit log shows {len(done.wrong)} things that are wrong, the first: "
            f"{done.wrong[0]} See `laterne audit verify`."
        )
