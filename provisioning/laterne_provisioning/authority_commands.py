"""`laterne init` and `laterne trust …`: what is typed for authority.py and rotation.py."""

from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential, manifest, trust
from laterne_provisioning import authority as authorities
from laterne_provisioning import building, keys, out_file, output, rotation
from laterne_provisioning.errors import UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption, PassphraseOption, PinOption

trust_app = typer.Typer(no_args_is_help=True, help="The authority's public keys.")

KeysOption = Annotated[
    list[str] | None, typer.Option("--key", metavar="ROLE=URI", help="A key that is there already, such as in a token.")
]


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
    building.require_empty(directory)  # before anybody thinks of a passphrase
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
        output.print_json({"directory": str(made.directory), "name": made.name, "keys": _key_documents(made)})
        return
    typer.echo(f"The authority {made.name} is in {made.directory}.")
    typer.echo(f"Public: {authorities.TRUST_FILE}. Secret: {authorities.KEYS}/.")
    typer.echo("Take the root keys away to safe places: only `laterne trust rotate` needs them.")


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
                "keys": _key_documents(done.authority),
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


def _key_documents(authority: authorities.Authority) -> list[dict[str, str]]:
    """The keys of an authority as `init --json` shows them."""
    return [
        {"role": place.role, "kid": credential.kid(place.public).hex(), "uri": place.uri} for place in authority.places
    ]
