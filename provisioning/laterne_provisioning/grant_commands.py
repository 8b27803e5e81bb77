"""`laterne grant …`, and `laterne board enrol --grant`: what is typed for grants.py, field.py and merging.py."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential
from laterne_protocol.grant import Grant
from laterne_provisioning import authority as authorities
from laterne_provisioning import (
    batch,
    board_commands,
    field,
    gateways,
    grant_journal,
    grants,
    keys,
    merging,
    out_file,
    output,
)
from laterne_provisioning.enrol import fingerprint
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line
from laterne_provisioning.options import AuthorityOption, JsonOption, PassphraseOption, PinOption
from laterne_provisioning.registry import Place, Registry
from laterne_provisioning.words import words

DAY_S = 86_400

NumberArgument = Annotated[str, typer.Argument(metavar="NUMBER", help="As `grant list` shows it.")]

app = typer.Typer(no_args_is_help=True, help="Let technicians enrol boards away from the authority.")


@app.command()
def key(
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the private key goes: a new file.")
    ],
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="A plain file, for trials.")] = False,
    passphrase_file: PassphraseOption = None,
) -> None:
    """Technician: make an own key, once. Bring what is printed to the operator; the key stays with you."""
    if no_passphrase and passphrase_file is not None:
        raise UsageError("--no-passphrase and --passphrase-file contradict each other: give one of them.")
    passphrase = None if no_passphrase else keys.Secrets(passphrase_file).choose("passphrase of the new key")
    try:
        public = keys.make_key_file(out, passphrase)
    except FileExistsError as why:
        raise UsageError(f"{out} is there already: a key is never overwritten. Choose a new file.") from why
    except OSError as why:
        raise UsageError(f"{out} cannot be written: {why.strerror}.") from why
    output.message(f"The key {fingerprint(credential.kid(public))} is in {out}.")
    output.print_line(output.jwk(public))


@app.command()
def issue(
    technician: Annotated[str, typer.Option(metavar="NAME", help="To whom.")],
    public: Annotated[Path, typer.Option("--key", metavar="FILE", help="What `laterne grant key` has printed.")],
    site: Annotated[str, typer.Option(help="Where, for people.")],
    ids: Annotated[list[str], typer.Option(metavar="PATTERN", help="Ids: LE-0101:LE-0125, LE-9*, or one id.")],
    number: Annotated[int, typer.Option(min=1, help="How many boards.")],
    authority: AuthorityOption,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the grant goes.")],
    posts: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Posts where they must hang. [default: anywhere]")
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="How long, from --since on.")] = 7,
    since: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="UTC. [default: now]"),
    ] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign what a technician may enrol: so many boards, with these ids, at these posts, in these days."""
    technicians_key = gateways.key_in(public, "technician", "laterne grant key")
    opened = authorities.open_authority(authority)
    out_file.require_writable(out)
    signer = opened.signing_key("enrolment", keys.Secrets(passphrase_file, pin_file))
    now = int(time.time())
    begin = now if since is None else int(since.replace(tzinfo=UTC).timestamp())
    wanted = Grant(
        grants.new_number(), opened.name, technician, technicians_key, site, ids, posts or [], number,
        (begin, begin + round(days * DAY_S)), grants.versions_of(opened.trusted),
    )  # fmt: skip
    with opened.registry() as registry:
        body = grants.issue(opened, registry, signer, wanted, now)
        out_file.write(out, body)
        document = _document(grants.Grants(registry).grant(wanted.number), registry)
    if as_json:
        output.print_json(document | {"file": str(out)})
        return
    typer.echo(f"Grant {document['number']} for {technician}, until {document['until']}, is in {out}.")
    typer.echo(f"Key {document['kid']}, in words {document['words']}: compare them with the technician's.")


@app.command("list")
def list_all(authority: AuthorityOption, as_json: JsonOption = False) -> None:
    """All grants of the authority."""
    with authorities.open_authority(authority).registry() as registry:
        documents = [_document(issued, registry) for issued in grants.Grants(registry).all()]
    if as_json:
        output.print_json(documents)
        return
    columns = ("number", "technician", "site", "until", "state", "boards", "most")
    rows = [
        [str(len(value)) if isinstance(value, list) else str(value) for value in (document[name] for name in columns)]
        for document in documents
    ]
    output.print_table(columns, rows)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="NUMBER|FILE", help="A grant's file, or with --authority its number.")],
    authority: Annotated[Path | None, typer.Option("--authority", metavar="DIR", help="Whose grants.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Everything about one grant."""
    if authority is None:
        document = _terms(grants.read_file(Path(what)).given)
    else:
        with authorities.open_authority(authority).registry() as registry:
            document = _document(grants.Grants(registry).grant(grants.number_of(what)), registry)
    if as_json:
        output.print_json(document)
        return
    for name, value in document.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value
        typer.echo(f"{name:18}{shown}")


@app.command()
def revoke(
    number: NumberArgument,
    authority: AuthorityOption,
    reason: Annotated[str, typer.Option(help="Stands in the audit log.")],
) -> None:
    """Merge no journal of this grant any more. Boards that were merged before stay."""
    grants.check_reason(reason)
    opened = authorities.open_authority(authority)
    with opened.registry() as registry:
        new = grants.revoke(opened, registry, grants.number_of(number), reason, int(time.time()))
    typer.echo(f"Grant {number} is {'revoked' if new else 'revoked already'}.")


@app.command()
def merge(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="What a technician has brought home.")],
    authority: AuthorityOption,
    accept: Annotated[bool, typer.Option("--accept", help="No second person has to accept the boards.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take the boards of a technician's journal into the registry. Can be repeated; exit code 1 if one was refused."""
    opened = authorities.open_authority(authority)
    try:
        with journal.open("rb") as file:
            content = file.read(grant_journal.MAX_JOURNAL_BYTES + 1)
    except OSError as why:
        raise UsageError(f"The journal cannot be read: {why.strerror}: {journal}") from why
    if len(content) > grant_journal.MAX_JOURNAL_BYTES:
        raise UsageError(f"{journal} has more than {grant_journal.MAX_JOURNAL_BYTES} bytes: it is no journal of ours.")
    with opened.registry() as registry:
        done = merging.merge(opened, registry, content, accept, int(time.time()))
    count = {name: sum(one.result == name for one in done.results) for name in merging.RESULTS}
    if as_json:
        rows = [{"id": one.board, "result": one.result, "said": one.said} for one in done.results]
        output.print_json(
            {
                "grant": done.given.number.hex(),
                "entries": done.entries,
                "unread": list(done.unread),
                **count,
                "rows": rows,
            }
        )
    else:
        output.print_table(("board", "", "said"), [[one.board, one.result, one.said] for one in done.results])
        typer.echo(", ".join(f"{number} {name}" for name, number in count.items() if number) + ".")
    for line in done.unread:
        output.message(f"Line {line} of the journal was torn by a power cut or a killed command: it is passed over.")
    if count[merging.REFUSED]:
        raise OperatorError("What was refused is in no roster: wipe these boards and enrol them anew.")


def enrol(
    grant: Path,
    key_file: Path,
    journal: Path | None,
    port: str | None,
    board_id: str | None,
    place: Place | None,
    table: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """`laterne board enrol --grant`: one board, or the rows of a table one after the other."""
    granted = grants.read_file(grant)
    signer = technicians_key(key_file, granted.given, keys.Secrets(passphrase_file))
    rows = [] if table is None else batch.rows_of(table)
    for row in rows:
        if row.port is None:
            raise UsageError(f"{table}: line {row.number}: away from the authority every row names its port.")
    with field.begun(granted, signer, journal or grant.with_suffix(".journal")) as errand, output.progress() as say:
        if table is not None:
            _enrol_rows(errand, rows, say, as_json)
            return
        assert port is not None
        assert board_id is not None
        with Line(port) as line:
            done = field.enrol_here(line, errand, board_id, place, int(time.time()), say)
    if as_json:
        output.print_json(output.board_document(done.board) | {"already": done.already})
        return
    kid = credential.kid(done.board.sign_key)
    typer.echo(f"{board_id} is enrolled{' already' if done.already else ''} under the grant: bring the journal home.")
    typer.echo(f"Key {kid.hex()}, in words {words(kid)}; {output.foreign(done.board.model)}.")


def _enrol_rows(errand: field.Errand, rows: list[batch.Row], say: Callable[[str], None], as_json: bool) -> None:
    results = []
    for row in rows:
        assert row.port is not None
        former = errand.boards.get(row.board)
        if former is not None and former.delivered is not None and row.place in (None, former.place):
            results.append(batch.Result(row, batch.ALREADY, ""))  # it may hang on its post already
            continue
        try:
            with Line(row.port) as line:
                done = field.enrol_here(line, errand, row.board, row.place, int(time.time()), lambda _: None)
            said = fingerprint(credential.kid(done.board.sign_key))
            results.append(batch.Result(row, batch.ALREADY if done.already else batch.ENROLLED, said))
        except OperatorError as why:
            results.append(batch.Result(row, batch.FAILED, str(why)))
        say(f"{len(results)} of {len(rows)}: {row.board} {results[-1].result}. {results[-1].said}")
    board_commands.tell_rows(results, False, as_json)


def technicians_key(path: Path, given: Grant, secrets: keys.Secrets) -> keys.SigningKey:
    """The key that a grant was issued for, opened. Raises UsageError, OperatorError."""
    if not path.is_file():
        raise UsageError(f"The technician's key is not there: {path}. Name the file that `laterne grant key` made.")
    uri, name = keys.file_uri(path.resolve()), "technician's key"
    if keys.public_key(uri, name, Path.cwd(), secrets) != given.key:
        raise UsageError(f"{path} is another key than the one that the grant names: give the key it was issued for.")
    signer = keys.SigningKey(name, uri, given.key, Path.cwd(), secrets)
    signer.open()
    return signer


def _terms(given: Grant) -> dict[str, object]:
    kid = credential.kid(given.key)
    return {
        "number": given.number.hex(),
        "authority": given.authority,
        "technician": given.technician,
        "kid": kid.hex(),
        "words": words(kid),
        "site": given.site,
        "ids": given.ids,
        "posts": given.posts,
        "most": given.most,
        "from": output.moment(given.valid[0]),
        "until": output.moment(given.valid[1]),
        "versions": list(given.versions),
    }


def _document(issued: grants.IssuedGrant, registry: Registry) -> dict[str, object]:
    given = issued.given
    over = time.time() > given.valid[1]
    return _terms(given) | {
        "state": "revoked" if issued.revoked is not None else "over" if over else "issued",
        "issued": output.moment(issued.issued),
        "revoked": output.moment(issued.revoked),
        "reason": issued.reason,
        "entries": issued.merged,
        "boards": [board.id for board in grants.boards_under(registry.boards(), issued.number)],
    }
