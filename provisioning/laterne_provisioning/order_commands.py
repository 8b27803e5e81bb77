"""`laterne board rotate|decommission`: what is typed for orders.py and errands.py."""

from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import keys, output, subscriber

# errands.py brings asyncio and the MQTT client: it is imported by the commands that need it when they run.

PATIENCE_S = 600.0  # a gateway asks a board for as long

AuthorityOption = Annotated[Path, typer.Option("--authority", metavar="DIR", help="The authority's directory.")]
BrokerOption = Annotated[str, typer.Option("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID")]
GatewayOption = Annotated[
    str | None, typer.Option("--gateway", metavar="ID", help="Where it hangs. [default: whose roster has it]")
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Of that gateway. [default: as its status at the broker says]")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the board.")]
RosterOption = Annotated[
    Path | None, typer.Option("--roster", metavar="FILE", help="Write the gateway's next roster there.")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="Who may sign the broker's certificate.")
]
CertificateOption = Annotated[Path | None, typer.Option("--certificate", metavar="FILE", help="Our own certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key.")]
UserOption = Annotated[str | None, typer.Option("--user", help="For a broker that wants a name.")]
PasswordOption = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="The password: first line.")
]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="The keys' passphrase: first line of FILE.")
]
PinOption = Annotated[
    Path | None, typer.Option("--pin-file", metavar="FILE", help="The token's PIN: first line of FILE.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def rotate(
    board: IdArgument,
    authority: AuthorityOption,
    broker: BrokerOption,
    gateway: GatewayOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = PATIENCE_S,
    roster_file: RosterOption = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a board in service new keys, over its gateway. Interrupted, give the same command again: it goes on."""
    from laterne_provisioning import downlink, errands, orders

    errand = errands.Errand(
        board,
        authorities.open_authority(authority),
        keys.Secrets(passphrase_file, pin_file),
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        gateway,
        tenant,
        downlink.seconds_of(timeout),
        roster_file,
    )
    row, gateway_id = errands.carry_out(errand, lambda desk: orders.begin_rotation(desk, board))
    document = output.board_document(row)
    if as_json:
        output.print_json(document)
        return
    last = row.formers[-1].last
    typer.echo(f"{board} has new keys: {document['kid']}, in words {document['words']}.")
    typer.echo(f"Its former key has signed its reports up to {last}.")
    _say_roster(roster_file, gateway_id, "until then the reports that the new key signs wait on the board")


def decommission(
    board: IdArgument,
    authority: AuthorityOption,
    broker: BrokerOption,
    reason: Annotated[str, typer.Option(help="Stands in the rosters.")],
    give_up: Annotated[
        bool, typer.Option("--give-up-backlog", help="Reports that its gateway does not have may be lost.")
    ] = False,
    gateway: GatewayOption = None,
    tenant: TenantOption = None,
    timeout: TimeoutOption = PATIENCE_S,
    roster_file: RosterOption = None,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a board: it signs a receipt, erases its keys and never signs again. No way leads back."""
    from laterne_provisioning import downlink, errands, orders

    errand = errands.Errand(
        board,
        authorities.open_authority(authority),
        keys.Secrets(passphrase_file, pin_file),
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        gateway,
        tenant,
        downlink.seconds_of(timeout),
        roster_file,
    )
    row, gateway_id = errands.carry_out(errand, lambda desk: orders.begin_decommission(desk, board, reason, give_up))
    if as_json:
        output.print_json(output.board_document(row))
        return
    typer.echo(f"{board} is decommissioned. Its last report is {row.last}; the receipt is in the registry.")
    _say_roster(roster_file, gateway_id, "until then its gateway goes on asking for it")


def _say_roster(roster_file: Path | None, gateway: str, meanwhile: str) -> None:
    if roster_file is not None:
        typer.echo(f"The next roster of {gateway} is in {roster_file}: bring it to the gateway; {meanwhile}.")
    else:
        typer.echo(f"Export the roster of {gateway} now; {meanwhile}.")
