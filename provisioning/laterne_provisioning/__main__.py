"""The command `laterne`: what is typed, which part does the work, and how it ends.

Exit codes: 0 done, 1 something was found wrong, 2 bad usage or configuration, 130 stopped by Ctrl-C.
"""

import math
import os
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential, manifest, trust
from laterne_provisioning import (
    audit_commands,
    backup_commands,
    board_commands,
    gateways,
    grant_commands,
    keys,
    label_commands,
    order_commands,
    out_file,
    output,
    release_commands,
    roster,
    rotation,
    verify,
)
from laterne_provisioning import authority as authorities
from laterne_provisioning import enrol as enrolment
from laterne_provisioning.campaign import commands as campaign_commands
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line
from laterne_provisioning.registry import Place

COMMANDS = "laterne.commands"  # the entry-point group in which other packages offer commands

app = typer.Typer(
    name="laterne",
    help="Keys, boards and rosters of a city's lamp posts, and the check of what the boards have signed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
board_app = typer.Typer(no_args_is_help=True, help="Enrol boards and see which there are.")
roster_app = typer.Typer(no_args_is_help=True, help="Tell gateways which boards they may serve.")
gateway_app = typer.Typer(no_args_is_help=True, help="Say which gateways there are.")
trust_app = typer.Typer(no_args_is_help=True, help="The authority's public keys.")
board_commands.add_to(board_app)
order_commands.add_to(board_app)
board_app.command("label")(label_commands.label)
app.add_typer(board_app, name="board")
app.add_typer(roster_app, name="roster")
app.add_typer(trust_app, name="trust")
app.add_typer(gateway_app, name="gateway")
app.add_typer(grant_commands.app, name="grant")
app.add_typer(campaign_commands.app, name="campaign")
app.add_typer(audit_commands.app, name="audit")
app.add_typer(release_commands.app, name="release")
app.command("verify")(verify.verify)
app.command("backup")(backup_commands.backup)
app.command("restore")(backup_commands.restore)

AuthorityOption = Annotated[Path, typer.Option("--authority", metavar="DIR", help="The authority's directory.")]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="The keys' passphrase: first line of FILE.")
]
PinOption = Annotated[
    Path | None, typer.Option("--pin-file", metavar="FILE", help="The token's PIN: first line of FILE.")
]
KeysOption = Annotated[
    list[str] | None, typer.Option("--key", metavar="ROLE=URI", help="A key that is there already, such as in a token.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty.")],
    name: Annotated[str | None, typer.Option(help="Stands in every credential. [default: the name of DIR]")] = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Keys in plain files, for trials.")] = False,
    key: KeysOption = None,
    release_keys: Annotated[
        int, typer.Option(min=1, max=manifest.MAX_SIGNATURES, help="How many keys for releases.")
    ] = 1,
    release_threshold: Annotated[int, typer.Option(min=1, help="How many of them must sign a release.")] = 1,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """A new authority: three roots of which two must sign, keys for enrolment, release, order and roster."""
    if no_passphrase and passphrase_file is not None:
        raise UsageError("--no-passphrase and --passphrase-file contradict each other: give one of them.")
    if release_threshold > release_keys:
        raise UsageError(
            f"{release_threshold} release keys cannot sign where there are {release_keys}: give --release-keys."
        )
    secrets = keys.Secrets(passphrase_file, pin_file)
    there = _given_keys(key or [])
    to_make = authorities.ROOTS + len(trust.ROLES) + release_keys - 1 - len(there)
    passphrase = secrets.choose("passphrase of the new keys") if to_make and not no_passphrase else None
    with output.progress() as say:
        say(f"Making {to_make} keys")
        made = authorities.create(
            directory,
            name or directory.resolve().name,
            passphrase,
            there,
            secrets,
            (release_keys, release_threshold),
        )
    if as_json:
        output.print_json({"directory": str(made.directory), "name": made.name, "keys": verify.key_documents(made)})
        return
    typer.echo(f"The authority {made.name} is in {made.directory}.")
    typer.echo(f"Public: {authorities.TRUST_FILE}. Secret: {authorities.KEYS}/. Take the roots away to a safe place.")


@board_app.command("enrol")
def board_enrol(
    authority: Annotated[
        Path | None, typer.Option("--authority", metavar="DIR", help="The authority's directory.")
    ] = None,
    port: Annotated[str | None, typer.Option(metavar="PORT", help="The board's line, such as /dev/ttyUSB0.")] = None,
    board_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="What the board is called from now on.")
    ] = None,
    post: Annotated[str | None, typer.Option(help="The id of the post it hangs on.")] = None,
    latitude: Annotated[float | None, typer.Option(help="WGS 84, degrees.", min=-90, max=90)] = None,
    longitude: Annotated[float | None, typer.Option(help="WGS 84, degrees.", min=-180, max=180)] = None,
    pending: Annotated[bool, typer.Option("--pending", help="A second person has to accept the board.")] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Many boards: id,port,post,latitude,longitude.")
    ] = None,
    port_from: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Ports for rows of FILE without one: '/dev/ttyUSB*'.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=32, help="How many boards of FILE at a time.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done with FILE.")] = False,
    grant: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Away from the authority: what `grant issue` wrote.")
    ] = None,
    technician_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --grant: the key that it was issued for.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --grant: what is done. [default: beside the grant]")
    ] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the board on PORT its id and its credential. If it is interrupted, give the same command again."""
    place = _place(post, latitude, longitude)
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


@board_app.command("list")
def board_list(authority: AuthorityOption, as_json: JsonOption = False) -> None:
    """All boards of the authority."""
    with authorities.open_authority(authority).registry() as registry:
        boards = registry.boards()
    if as_json:
        output.print_json([output.board_document(board) for board in boards])
        return
    documents = [output.board_document(board) for board in boards]
    columns = ("id", "state", "post", "kid", "tier", "model", "enrolled")
    output.print_table(columns, [[str(document[name] or "") for name in columns] for document in documents])


@board_app.command("show")
def board_show(
    board_id: Annotated[str, typer.Argument(metavar="ID")],
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
                shown = "  ".join(f"{part} {shown[part]}" for part in shown if part not in left_out)
            typer.echo(f"{name:18}{'' if shown is None else shown}")
    if qr:
        label_commands.draw(board)


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
    typer.echo(f"Roster {issued.version} of {gateway} with {len(issued.boards)} boards is in {out}.")


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


@trust_app.command("export")
def trust_export(
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the trust file goes.")],
) -> None:
    """Write the trust file: whose signatures count. It is public; gateways and whoever verifies need it once."""
    opened = authorities.open_authority(authority)
    out_file.require_writable(out)
    out_file.write(out, opened.trust_file)
    typer.echo(f"The trust file of {opened.name}, version {opened.trusted.version}, is in {out}.")


@trust_app.command("rotate")
def trust_rotate(
    authority: AuthorityOption,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="This role gets a new key.")] = None,
    root: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", help="This root is replaced; 1 is the first.")
    ] = None,
    key: KeysOption = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="Its former keys stay valid, too.")] = None,
    root_at: Annotated[
        list[str] | None, typer.Option(metavar="NUMBER=URI", help="Where this root's private part is now.")
    ] = None,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="New keys in plain files, for trials.")
    ] = False,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """New keys for roles or roots. Needs the roots: enough of the former ones and enough of the new ones must sign."""
    opened = authorities.open_authority(authority)
    secrets = keys.Secrets(passphrase_file, pin_file)
    change = rotation.Change(role or [], root or [], _given_keys(key or []), keep or [], _numbered(root_at or []))
    to_make = len(set(change.roles)) + len(set(change.roots)) - len(change.there)
    passphrase = secrets.choose("passphrase of the keys") if to_make > 0 and not no_passphrase else None
    done = rotation.rotate(opened, change, passphrase, secrets)
    trusted = done.authority.trusted
    if as_json:
        output.print_json(
            {
                "version": trusted.version,
                "signed_by": [kid.hex() for kid in done.signers],
                "keys": verify.key_documents(done.authority),
                "retired": [place.uri for place in done.retired],
            }
        )
        return
    typer.echo(
        f"The trust file of {trusted.authority} has version {trusted.version}; {len(done.signers)} roots signed."
    )
    typer.echo("Give it to all gateways and verifiers (`laterne trust export`), each with a new roster.")
    typer.echo("These keys sign no more, destroy them: " + ", ".join(place.uri for place in done.retired))


def _numbered(values: list[str]) -> dict[int, str]:
    found = {}
    for value in values:
        number, _, uri = value.partition("=")
        if not number.isdecimal() or ":" not in uri:
            raise UsageError(f"--root-at {value!r} is not NUMBER=URI, such as 1=file2:/media/stick/root-1.pem.")
        found[int(number)] = uri
    return found


def _given_keys(values: list[str]) -> list[tuple[str, str]]:
    roles = (authorities.ROOT, *trust.ROLES)
    found = []
    for value in values:
        role, _, uri = value.partition("=")
        if role not in roles or not uri:
            raise UsageError(f"--key {value!r} is not ROLE=URI with a ROLE of {', '.join(roles)}.")
        found.append((role, uri))
    return found


def _place(post: str | None, latitude: float | None, longitude: float | None) -> Place | None:
    if (latitude is None) != (longitude is None):
        raise UsageError("A place has a --latitude and a --longitude: give both or neither.")
    if latitude is None or longitude is None:
        return None if post is None else Place(post)
    if post is None:
        raise UsageError("A latitude and a longitude belong to a post: name it with --post.")
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise UsageError("--latitude and --longitude are degrees, such as 48.1374.")
    return Place(post, round(latitude * 1e7), round(longitude * 1e7))


def _add_commands_of_others(arguments: list[str]) -> None:
    own = {command.name or "" for command in app.registered_commands} | {
        "init",
        "board",
        "roster",
        "trust",
        "gateway",
        "grant",
        "audit",
        "release",
    }
    if arguments and arguments[0] in own:
        return  # others take their time to be imported
    for entry in sorted(entry_points(group=COMMANDS), key=lambda found: found.name):
        try:
            app.command(entry.name)(entry.load())
        except ImportError as why:
            extra = ", ".join(entry.extras) or "emulator"
            _add_missing(entry.name, f"`laterne {entry.name}` is not installed ({why}): pip install 'laterne[{extra}]'")


def _add_missing(name: str, message: str) -> None:
    @app.command(name, help="Not installed.", context_settings={"ignore_unknown_options": True})
    def missing(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise UsageError(message)


def main() -> None:
    """The entry point. Judges what is fatal: every foreseeable error is a sentence on stderr and an exit code."""
    _add_commands_of_others(sys.argv[1:])
    try:
        app()
    except OperatorError as why:
        output.message(str(why))
        sys.exit(why.exit_code)
    except KeyboardInterrupt:
        sys.exit(keys.STOPPED)
    except BrokenPipeError:
        # Who reads us has seen enough; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
