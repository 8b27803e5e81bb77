"""`laterne audit verify|sign|export`: the audit log for people, for auditors and for other programs."""

import json
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential
from laterne_protocol.errors import WireError
from laterne_provisioning import audit, audit_check, authority, files, keys, output
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption, PassphraseOption, PinOption

MAX_SHOWN = 100  # of wrong records; a log that was exchanged whole is wrong everywhere

# RFC 5424, 6.2.1: facility 13 (log audit), severity 5 (notice).
_PRIORITY = 13 * 8 + 5
_MAX_APP_NAME = "laterne"
# RFC 5424, 7.2.2: a name with an @ and the number of an enterprise; 32473 is set aside for examples (RFC 5612).
_ELEMENT = "laterne@32473"

app = typer.Typer(no_args_is_help=True, help="What operators and technicians have done with an authority.")


class Format(StrEnum):
    """How records are written."""

    JSONL = "jsonl"
    SYSLOG = "syslog"


@app.command()
def verify(
    directory: AuthorityOption,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A signature kept elsewhere (`audit sign -o`).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the audit log: each record, their chain, its signatures, and the registry against it.

    What was cut off after the last signature, or together with it, only shows by a --checkpoint.
    """
    opened = authority.open_authority(directory)
    # The registry's lock: no command is between its record and its row.
    with opened.registry() as registry, registry.transaction():
        found = audit_check.check(opened.log.read(), opened.trusted)
        audit_check.compare(found, registry)
    for path in checkpoint or []:
        try:
            with path.open("rb") as file:
                audit_check.check_against(found, file.read(audit_check.MAX_CHECKPOINT_BYTES + 1), opened.trusted)
        except OSError as why:
            raise UsageError(f"The checkpoint cannot be read: {why.strerror}: {path}") from why
        except WireError as why:
            raise OperatorError(f"{path} is no checkpoint of this log: {why}. Was the right file given?") from why
    _show(found, opened.name, as_json)
    if found.wrong:
        raise typer.Exit(1)


@app.command()
def sign(
    directory: AuthorityOption,
    role: Annotated[str, typer.Option(help="Whose key signs: roster or enrolment.")] = "roster",
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The signature as a checkpoint to keep.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
) -> None:
    """Sign the log as it is. Keep the checkpoint where the authority's operator cannot change it."""
    if role not in audit.SIGNERS:
        raise UsageError(f"--role {role!r} is none of {', '.join(audit.SIGNERS)}.")
    opened = authority.open_authority(directory)
    body = opened.sign_log(opened.signing_key(role, keys.Secrets(passphrase_file, pin_file)))
    if out is not None:
        try:
            files.write_public(out, body)
        except OSError as why:
            raise UsageError(f"{out} cannot be written: {why.strerror}. The log is signed.") from why
    last = opened.log.last()
    typer.echo(f"The audit log is signed up to record {last.number - 1 if last else 0} by the {role} key.")


@app.command()
def export(
    directory: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the records go.")],
    form: Annotated[Format, typer.Option("--format", help="One JSON object a line, or RFC 5424.")] = Format.JSONL,
) -> None:
    """Write the records for other programs. A log that is not whole is exported, too, and the exit code is 1."""
    opened = authority.open_authority(directory)
    found = audit_check.check(opened.log.read(), opened.trusted)
    lines = [
        record.to_line().partition(b"\t")[0] if form == Format.JSONL else syslog(record) for record in found.records
    ]
    try:
        files.write_private(out, b"".join(line + b"\n" for line in lines))  # it names people
    except FileExistsError as why:
        raise UsageError(f"{out} is there already: choose a new file.") from why
    except OSError as why:
        raise UsageError(f"{out} cannot be written: {why.strerror}.") from why
    typer.echo(f"{len(lines)} records are in {out}.")
    if found.wrong:
        raise OperatorError("The log is not whole: see `laterne audit verify`.")


def syslog(record: audit.Record) -> bytes:
    """The record as a message of RFC 5424; its details are the text, the rest is structured data."""
    user, _, host = record.who.rpartition("@")
    values = {"number": str(record.number), "user": user, "subject": record.subject, "digest": record.digest}
    structured = " ".join(f'{name}="{_escaped(value)}"' for name, value in values.items())
    details = json.dumps(dict(record.details), sort_keys=True)
    # RFC 5424, 6: VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID (no blanks), structured data, UTF-8 text.
    text = (
        f"<{_PRIORITY}>1 {record.time} {_token(host)} {_MAX_APP_NAME} - {_token(record.act)} [{_ELEMENT} {structured}] "
    )
    return (text + f"{record.act}: {details}").encode()


def _token(text: str) -> str:
    # RFC 5424, 6: printable US-ASCII without blanks; "-" stands for nothing.
    return "".join(c if "!" <= c <= "~" else "_" for c in text)[:32] or "-"


def _escaped(value: str) -> str:
    return "".join("\\" + c if c in '\\"]' else c for c in value)  # RFC 5424, 6.3.3


def _show(found: audit_check.Judgement, name: str, as_json: bool) -> None:
    signer = None if found.signer is None else credential.kid(found.signer).hex()
    if as_json:
        output.print_json(
            {
                "ok": not found.wrong,
                "authority": name,
                "records": len(found.records),
                "signed": found.signed,
                "signer": signer,
                "unsigned": found.unsigned,
                "wrong": [{"record": record, "reason": reason} for record, reason in found.wrong],
                "notes": [{"record": record, "reason": reason} for record, reason in found.notes],
            }
        )
        return
    for title, items in (("WRONG", found.wrong), ("note", found.notes)):
        for _, reason in items[:MAX_SHOWN]:
            typer.echo(f"{title}: {reason}")
        if len(items) > MAX_SHOWN:
            typer.echo(f"{title}: and {len(items) - MAX_SHOWN} more")
    span = ""
    if found.records:
        first, last = (datetime.fromisoformat(found.records[at].time).date() for at in (0, -1))
        span = f" from {first} to {last}"
    typer.echo(
        f"The audit log of {name} has {len(found.records)} records{span}; "
        + ("it is not whole." if found.wrong else f"signed up to record {found.signed} by the key {signer}.")
    )
    typer.echo(
        f"{found.unsigned} records after that are not signed. What was cut off the end shows only by a checkpoint kept "
        "elsewhere."
    )
