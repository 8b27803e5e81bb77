"""`laterne board rotate|decommission`: what is typed for orders.py and errands.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import output
from laterne_provisioning.access import Access, AuthorityOption, JsonOption, TenantOption, with_access

if TYPE_CHECKING:
    from laterne_provisioning import errands

# errands.py brings asyncio and the MQTT client: it is imported by the commands that need it when they run.

PATIENCE_S = 600.0  # a gateway asks a board for as long

IdArgument = Annotated[str, typer.Argument(metavar="ID")]
GatewayOption = Annotated[
    str | None, typer.Option("--gateway", metavar="ID", help="Where it hangs. [default: whose roster has it]")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the board.")]
RosterOption = Annotated[
    Path | None, typer.Option("--roster", metavar="FILE", help="Write the gateway's next roster there.")
]


@with_access
def rotate(
    board: IdArgument,
    authority: AuthorityOption,
    access: Access,
    gateway: GatewayOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = PATIENCE_S,
    roster_file: RosterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a board in service new keys, over its gateway. Interrupted, give the same command again: it goes on."""
    from laterne_provisioning import errands, orders

    errand = _errand(board, authority, access, gateway, tenant, timeout, roster_file)
    row, gateway_id = errands.carry_out(errand, lambda desk: orders.begin_rotation(desk, board))
    document = output.board_document(row)
    if as_json:
        output.print_json(document)
        return
    last = row.formers[-1].last
    typer.echo(f"{board} has new keys: {document['kid']}, in words {document['words']}.")
    typer.echo(f"Its former key has signed its reports up to {last}.")
    _say_roster(roster_file, gateway_id, "until then the reports that the new key signs wait on the board")


@with_access
def decommission(
    board: IdArgument,
    authority: AuthorityOption,
    access: Access,
    reason: Annotated[str, typer.Option(help="Stands in the rosters.")],
    give_up: Annotated[
        bool, typer.Option("--give-up-backlog", help="Reports that its gateway does not have may be lost.")
    ] = False,
    gateway: GatewayOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = PATIENCE_S,
    roster_file: RosterOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a board: it signs a receipt, erases its keys and never signs again. No way leads back."""
    from laterne_provisioning import errands, orders

    errand = _errand(board, authority, access, gateway, tenant, timeout, roster_file)
    row, gateway_id = errands.carry_out(errand, lambda desk: orders.begin_decommission(desk, board, reason, give_up))
    if as_json:
        output.print_json(output.board_document(row))
        return
    typer.echo(f"{board} is decommissioned. Its last report is {row.last}; the receipt is in the registry.")
    _say_roster(roster_file, gateway_id, "until then its gateway goes on asking for it")


def _errand(
    board: str,
    authority: Path,
    access: Access,
    gateway: str | None,
    tenant: str | None,
    timeout: float,
    roster_file: Path | None,
) -> "errands.Errand":
    from laterne_provisioning import downlink, errands

    opened = authorities.open_authority(authority)
    seconds = downlink.seconds_of(timeout)
    return errands.Errand(board, opened, access.secrets, access.broker, gateway, tenant, seconds, roster_file)


def _say_roster(roster_file: Path | None, gateway: str, meanwhile: str) -> None:
    if roster_file is not None:
        typer.echo(f"The next roster of {gateway} is in {roster_file}: bring it to the gateway; {meanwhile}.")
    else:
        typer.echo(f"Export the roster of {gateway} now; {meanwhile}.")
