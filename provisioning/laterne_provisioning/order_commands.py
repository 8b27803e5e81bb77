"""`laterne board rotate|decommission`: what is typed for orders.py and downlink.py."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from laterne_provisioning import authority as authorities
from laterne_provisioning import downlink, keys, order_book, orders, out_file, output, roster, subscriber
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.registry import Board, Registry

PATIENCE_S = 600.0  # a gateway asks a board for as long
KNOWN_WITHIN_S = 30.0  # the gateway tells the board with its next question

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


@dataclass(frozen=True)
class Errand:
    """One command: whom to ask, by which way, how long, and where the next roster goes."""

    board: str
    opened: authorities.Authority
    secrets: keys.Secrets
    broker: subscriber.Broker
    gateway: str | None
    tenant: str | None
    timeout_s: float
    roster: Path | None


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
    errand = Errand(
        board,
        authorities.open_authority(authority),
        keys.Secrets(passphrase_file, pin_file),
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        gateway,
        tenant,
        downlink.seconds_of(timeout),
        roster_file,
    )
    row, gateway_id = _carry_out(errand, lambda desk: orders.begin_rotation(desk, board))
    document = output.board_document(row)
    if as_json:
        output.print_json(document)
        return
    last = row.formers[-1].last
    typer.echo(f"{board} has new keys: {document['kid']}, in words {document['words']}.")
    typer.echo(f"Its former key has signed its reports up to {last}.")
    _say_roster(errand, gateway_id, "until then the reports that the new key signs wait on the board")


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
    errand = Errand(
        board,
        authorities.open_authority(authority),
        keys.Secrets(passphrase_file, pin_file),
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        gateway,
        tenant,
        downlink.seconds_of(timeout),
        roster_file,
    )
    row, gateway_id = _carry_out(errand, lambda desk: orders.begin_decommission(desk, board, reason, give_up))
    if as_json:
        output.print_json(output.board_document(row))
        return
    typer.echo(f"{board} is decommissioned. Its last report is {row.last}; the receipt is in the registry.")
    _say_roster(errand, gateway_id, "until then its gateway goes on asking for it")


def add_to(app: typer.Typer) -> None:
    """Make these commands of `laterne board`."""
    for command in (rotate, decommission):
        app.command()(command)


def _carry_out(errand: Errand, begin: Callable[[orders.Desk], order_book.UnderWay]) -> tuple[Board, str]:
    """All steps from where they are. The board afterwards, and its gateway."""
    downlink.checked(errand.tenant, errand.gateway)
    if errand.roster is not None:
        out_file.require_writable(errand.roster)
    opened = errand.opened
    with opened.registry() as registry, output.progress() as say:
        gateway = errand.gateway or _gateway_of(registry, errand.board)
        tenant = errand.tenant or asyncio.run(downlink.tenant_of(errand.broker, gateway))
        way = downlink.Way(tenant, gateway, errand.board)
        desk = orders.Desk(
            opened,
            registry,
            opened.signing_key("order", errand.secrets),
            opened.signing_key("enrolment", errand.secrets),
            lambda: int(time.time()),
        )
        there = begin(desk)
        try:
            while there.step != order_book.TOLD:
                there = _next(errand, desk, way, there, say)
        except orders.BoardRefuses:
            asyncio.run(downlink.clear(errand.broker, way))
            raise
        _take_away(errand, desk, way, there, say)
        opened.sign_log(desk.enrolment_key)
        if errand.roster is not None:
            _export(errand, registry, gateway, errand.roster)
        orders.finish(desk, there)  # the last: whoever was stopped before gives the same command again
        row = registry.board(errand.board)
        assert row is not None
        return row, gateway


def _next(
    errand: Errand, desk: orders.Desk, way: downlink.Way, there: order_book.UnderWay, say: Callable[[str], None]
) -> order_book.UnderWay:
    board = desk.registry.board(errand.board)
    assert board is not None
    body = asyncio.run(
        downlink.carry(
            errand.broker,
            way,
            there.ordered,
            lambda found: orders.is_receipt(board, there.ordered, found),
            errand.timeout_s,
            say,
        )
    )
    after = orders.take_receipt(desk, there, body)
    if after.step == order_book.GIVEN:
        say(f"{errand.board} has made its next keys; its credential for them is signed")
    return after


def _take_away(
    errand: Errand, desk: orders.Desk, way: downlink.Way, there: order_book.UnderWay, say: Callable[[str], None]
) -> None:
    # The receipt is ours. What is left is for the board, which may forget it, and for the broker, which shall.
    board = desk.registry.board(errand.board)
    assert board is not None
    body = board.receipts[-1].body
    try:
        asyncio.run(
            downlink.carry(
                errand.broker,
                way,
                there.ordered,
                lambda found: found == body,
                min(errand.timeout_s, KNOWN_WITHIN_S),
                say,
                until_noted=True,
            )
        )
    except downlink.Unanswered:
        # Also when a decommissioned board has forgotten everything, and its last answer was lost on the line.
        output.message(f"{errand.board} has not said that it knows that its receipt has arrived; the receipt is here.")
    asyncio.run(downlink.clear(errand.broker, way))


def _gateway_of(registry: Registry, board: str) -> str:
    if registry.board(board) is None:
        raise UsageError(f"{board} is not in the registry: see `laterne board list`.")
    found = roster.gateways_of(registry, board)
    if len(found) == 1:
        return found[0]
    if not found:
        raise OperatorError(
            f"{board} is on no gateway's newest roster: no gateway serves it. Export one with it first."
        )
    raise UsageError(f"{board} is on the rosters of {', '.join(found)}: say with --gateway where it hangs.")


def _export(errand: Errand, registry: Registry, gateway: str, path: Path) -> None:
    listed = roster.newest_boards(registry, gateway)
    if listed is None:
        raise OperatorError(f"{gateway} has no roster yet: `laterne roster export --gateway {gateway}`.")
    enrolled = {board.id for board in registry.boards() if board.state == "enrolled"}
    key = errand.opened.signing_key("roster", errand.secrets)
    wanted = [board for board in listed if board in enrolled]
    if not wanted:
        raise OperatorError(f"No board would be left on the roster of {gateway}: export it by hand.")
    issued = roster.issue(errand.opened, registry, gateway, wanted, key, int(time.time()))
    out_file.write(path, issued.body)


def _say_roster(errand: Errand, gateway: str, meanwhile: str) -> None:
    if errand.roster is not None:
        typer.echo(f"The next roster of {gateway} is in {errand.roster}: bring it to the gateway; {meanwhile}.")
    else:
        typer.echo(f"Export the roster of {gateway} now; {meanwhile}.")
