"""`laterne board rotate|decommission`: what is typed for orders.py and errands.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import keys, output
from laterne_provisioning.access import Access, TenantOption, with_access, with_access_or_none
from laterne_provisioning.errors import UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption

if TYPE_CHECKING:
    from laterne_provisioning import errands
    from laterne_provisioning.registry import Board

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


@with_access_or_none
def decommission(
    board: IdArgument,
    authority: AuthorityOption,
    access: Access | None,
    secrets: keys.Secrets,
    reason: Annotated[str | None, typer.Option(help="Stands in the rosters.")] = None,
    give_up: Annotated[
        bool, typer.Option("--give-up-backlog", help="Reports that its gateway does not have may be lost.")
    ] = False,
    gateway: GatewayOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = PATIENCE_S,
    roster_file: RosterOption = None,
    order_out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Instead of --broker: the order, for `laterne flash`."),
    ] = None,
    receipt_file: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Instead of --broker: what `laterne flash` wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """End a board: it signs a receipt, erases its keys and never signs again. No way leads back."""
    from laterne_provisioning import errands, order_files, orders

    if [access is not None, order_out is not None, receipt_file is not None].count(True) != 1:
        raise UsageError(
            f"Which way to {board}? Give --broker URL; or, for a technician who is at the board, -o FILE, and "
            "--receipt FILE when he is back."
        )
    if receipt_file is not None:
        row = order_files.take(authorities.open_authority(authority), secrets, board, receipt_file)
        _tell_end(row, "every gateway that had it", roster_file, as_json)
        return
    if reason is None:
        raise UsageError(f"Why does {board} end? Give --reason TEXT.")
    if order_out is not None:
        there = order_files.give(authorities.open_authority(authority), secrets, board, reason, give_up, order_out)
        if as_json:
            output.print_json({"board": board, "order": str(order_out), "counter": there.counter})
            return
        typer.echo(
            f"The order that ends {board} is in {order_out}: laterne flash PORT --order {order_out} --release FILE … "
            f"Then: laterne board decommission {board} --receipt {order_out.with_suffix('.receipt')} --authority DIR"
        )
        return
    assert access is not None
    errand = _errand(board, authority, access, gateway, tenant, timeout, roster_file)
    row, gateway_id = errands.carry_out(errand, lambda desk: orders.begin_decommission(desk, board, reason, give_up))
    _tell_end(row, gateway_id, roster_file, as_json)


def _tell_end(row: "Board", gateway: str, roster_file: Path | None, as_json: bool) -> None:
    if as_json:
        output.print_json(output.board_document(row))
        return
    typer.echo(f"{row.id} is decommissioned. Its last report is {row.last}; the receipt is in the registry.")
    _say_roster(roster_file, gateway, "until then its gateway goes on asking for it")


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
