"""Options that several commands have, each worded once. Those of a broker are in access.py."""

from pathlib import Path
from typing import Annotated

import typer

AuthorityOption = Annotated[Path, typer.Option("--authority", metavar="DIR", help="The authority's directory.")]
MaybeAuthorityOption = Annotated[
    Path | None, typer.Option("--authority", metavar="DIR", help="The authority's directory.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="The keys' passphrase: first line of FILE.")
]
PinOption = Annotated[
    Path | None, typer.Option("--pin-file", metavar="FILE", help="The token's PIN: first line of FILE.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

# Of whoever enrols a board.
PostOption = Annotated[str | None, typer.Option("--post", help="The id of the post it hangs on.")]
LatitudeOption = Annotated[float | None, typer.Option("--latitude", help="WGS 84, degrees.", min=-90, max=90)]
LongitudeOption = Annotated[float | None, typer.Option("--longitude", help="WGS 84, degrees.", min=-180, max=180)]
PendingOption = Annotated[bool, typer.Option("--pending", help="A second person has to accept the board.")]
GrantOption = Annotated[
    Path | None, typer.Option("--grant", metavar="FILE", help="Away from the authority: what `grant issue` wrote.")
]
TechnicianKeyOption = Annotated[
    Path | None,
    typer.Option("--technician-key", metavar="FILE", help="With --grant: the key that it was issued for."),
]
JournalOption = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="With --grant: what is done. [default: beside the grant]"),
]
