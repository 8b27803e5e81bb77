"""`laterne roster export` and `laterne gateway …`: what gateways get from an authority."""

import time
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential
from laterne_provisioning import authority as authorities
from laterne_provisioning import enrol as enrolment
from laterne_provisioning import gateways, keys, out_file, output, roster
from laterne_provisioning.options import AuthorityOption, JsonOption, PassphraseOption, PinOption

roster_app = typer.Typer(no_args_is_help=True, help="Tell gateways which boards they may serve.")
gateway_app = typer.Typer(no_args_is_help=True, help="Say who a gateway is, so that boards speak with it.")


@roster_app.command("export")
def roster_export(
    gateway: Annotated[str, typer.Option(metavar="ID", help="For which gateway.")],
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the roster goes.")],
    board: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only these. [default: all enrolled]")] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the next roster of a gateway. The gateway needs `laterne trust export` once, too."""
    opened = authorities.open_authority(authority)
    out_file.require_writable(out)
    key = opened.signing_key("roster", keys.Secrets(passphrase_file, pin_file))
    with opened.registry() as registry:
        issued = roster.issue(opened, registry, gateway, board or [], key, int(time.time()))
    out_file.write(out, issued.body)
    if not gateways.is_enrolled(opened, gateway):
        output.message(
            f"{gateway} has no credential of this authority, without which no board shakes hands with it: if the id is "
            "right, `laterne gateway enrol` comes next."
        )
    if as_json:
        output.print_json(
            {
                "gateway": gateway,
                "version": issued.version,
                "boards": issued.boards,
                "revoked": issued.revoked,
                "file": str(out),
            }
        )
        return
    boards = "1 board" if len(issued.boards) == 1 else f"{len(issued.boards)} boards"
    typer.echo(f"Roster {issued.version} of {gateway} with {boards} is in {out}.")


@gateway_app.command("enrol")
def gateway_enrol(
    gateway: Annotated[str, typer.Option("--id", metavar="ID", help="As in the gateway's configuration.")],
    public: Annotated[Path, typer.Option("--key", metavar="FILE", help="What `laterne-gateway key` has printed.")],
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the credential goes.")],
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the credential of a gateway: boards shake hands only with who shows one."""
    key = gateways.key_in(public)
    opened = authorities.open_authority(authority)
    out_file.require_writable(out)
    signer = opened.signing_key("roster", keys.Secrets(passphrase_file, pin_file))
    out_file.write(out, gateways.enrol(opened, gateway, key, signer, int(time.time())))
    kid = credential.kid(key)
    if as_json:
        output.print_json({"gateway": gateway, "kid": kid.hex(), "file": str(out)})
        return
    typer.echo(f"The credential of {gateway}, key {enrolment.fingerprint(kid)}, is in {out}.")
