"""`laterne release`: from a checkout's firmware to one signed file that boards take."""

import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol.release_file import Release
from laterne_provisioning import authority as authorities
from laterne_provisioning import files, firmware_sources, keys, out_file, output, releases
from laterne_provisioning.compiling import mpy
from laterne_provisioning.compiling.shortening import NotShortened, shortened
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.options import AuthorityOption, JsonOption, MaybeAuthorityOption, PassphraseOption, PinOption
from laterne_provisioning.releases import Verdict, Wanted

app = typer.Typer(no_args_is_help=True, help="Code for boards: build it, sign it, see what it is.")

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="What `release build` wrote.")]
CrossOption = Annotated[
    Path | None, typer.Option("--mpy-cross", metavar="PATH", help="Of another version of the interpreter.")
]
UsedByOption = Annotated[
    list[Path] | None, typer.Option("--used-by", metavar="FILE", help="A program beside it that asks it by its names.")
]
LongOption = Annotated[bool, typer.Option("--long-names", help="For programs that change what is in it by its name.")]
SHOWN_CHANGES = 3


@app.command()
def build(
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the release goes.")],
    firmware: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkout's firmware/. [default: the one here]")
    ] = None,
    sequence: Annotated[
        int | None, typer.Option(min=1, help="Higher than of all releases before. [default: the commit's time]")
    ] = None,
    version: Annotated[str, typer.Option(help="For people. [default: RELEASE of the firmware]")] = "",
    trial: Annotated[
        int | None, typer.Option(min=60, max=86400, help="Seconds within which a board must confirm it.")
    ] = None,
    min_sequence: Annotated[
        int, typer.Option(min=0, help="Boards give up confirmed releases below it: only for a hole that is closed.")
    ] = 0,
    interpreter: Annotated[
        str | None, typer.Option(metavar="FROM-TO", help="Of MicroPython, such as 1.28.0-1.29.9. [default: any]")
    ] = None,
    uncommitted: Annotated[
        bool, typer.Option("--uncommitted", help="Although there are changes that are in no commit.")
    ] = False,
    mpy_cross: CrossOption = None,
    long_names: LongOption = False,
    used_by: UsedByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile the firmware of a checkout into a release that nobody has signed yet: same sources, same bytes."""
    out_file.require_writable(out)
    interpreters = None if interpreter is None else _interpreters(interpreter)
    sources = firmware_sources.read(firmware)
    _require_committed(sources, uncommitted)
    moment = sources.moment()
    if sequence is None and moment is None:
        raise UsageError(
            "Which release comes after which? The sources are in no git repository: give --sequence NUMBER, higher "
            "than of all releases before."
        )
    compiler = mpy.found(mpy_cross)
    around = tuple(_content(path) for path in used_by or [])
    wanted = Wanted(sequence or moment or 1, version, trial, min_sequence, interpreters, long_names, around)
    with output.progress() as say:
        say(f"Compiling {len(sources.modules)} modules of {sources.folder}")
        made = releases.build(sources, compiler, wanted)
    data = made.to_bytes()
    out_file.write(out, data)
    sizes = releases.sizes(made, sources)
    if as_json:
        output.print_json(document(made) | {"file": str(out), "bytes": len(data), "sizes": vars(sizes)})
        return
    typer.echo(f"{made.description} is in {out}: {len(made.entries)} files, sequence {made.manifest.sequence}.")
    typer.echo(
        f"{sizes.files} bytes on a board, {sizes.packed} as they travel: "
        f"{_share(sizes.packed, sizes.sources)} of the {sizes.sources} bytes of their sources."
    )
    typer.echo(f"Sign it: laterne release sign {out} --authority DIR")


@app.command()
def sign(
    file: FileArgument,
    authority: AuthorityOption,
    key: Annotated[
        str | None,
        typer.Option(metavar="KID", help="Which of several release keys. [default: one that has not signed]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where it goes. [default: back into FILE]")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Although its sequence is not above all others.")] = False,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a release key's signature. The file may travel to another machine for the next one."""
    opened = authorities.open_authority(authority)
    out = out or file
    out_file.require_writable(out)
    release = releases.read(file)
    chosen = releases.signing_key(opened, release, key, keys.Secrets(passphrase_file, pin_file))
    made = releases.signed(opened, release, chosen, again)
    out_file.write(out, made.to_bytes())
    verdict = releases.judged(made, opened.trusted)
    if as_json:
        output.print_json(document(made) | verdict_document(verdict) | {"file": str(out)})
        return
    typer.echo(f"{_name(made)} in {out} has {_signatures(verdict)}.")
    if not verdict.is_good:
        typer.echo("Take it to the holder of the next release key: laterne release sign.")


@app.command()
def verify(
    file: FileArgument,
    authority: MaybeAuthorityOption = None,
    trust_file: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="What `laterne trust export` wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether boards that believe this authority will take the release: whole, and signed by enough release keys."""
    if (authority is None) == (trust_file is None):
        raise UsageError("Whom to believe? Give --authority DIR or --trust FILE.")
    trusted = (
        authorities.open_authority(authority).trusted
        if authority is not None
        else authorities.read_trust(trust_file or Path())[1]
    )
    release = releases.read(file)
    releases.require_ours(release)
    verdict = releases.judged(release, trusted)
    if as_json:
        output.print_json(document(release) | verdict_document(verdict))
    else:
        typer.echo(f"{_name(release)}: whole, {len(release.entries)} files; {_signatures(verdict)}.")
    if not verdict.is_good:
        missing = verdict.needed - len(verdict.signers)
        strangers = f" Signatures of others: {', '.join(verdict.strangers)}." if verdict.strangers else ""
        raise OperatorError(
            f"No board of {output.foreign(trusted.authority)} takes it: {missing} more of its release keys must sign."
            + strangers
        )


@app.command()
def show(
    file: FileArgument,
    bill: Annotated[bool, typer.Option("--bill", help="Only its bill of materials, CycloneDX as JSON.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What a release is and what is in it. Whether to believe it says `release verify`."""
    release = releases.read(file)
    if bill:
        typer.echo(release.bill.decode(errors="replace"))
        return
    if as_json:
        output.print_json(document(release, with_files=True))
        return
    head, signed = release.head, release.manifest
    for name, value in (
        ("release", release.digest.hex()),
        ("version", output.foreign(head.version)),
        ("sequence", str(signed.sequence)),
        ("what", output.foreign(release.description)),
        ("class", str(uuid.UUID(bytes=signed.class_id))),
        ("bytecode", f"ABI {head.abi}, {_interpreter_text(head.interpreters)}"),
        ("loader", f"interface {head.loader}, starts {head.entry}"),
        ("trial", "the board's own time" if head.trial_s is None else f"{head.trial_s} s"),
        ("gives up", f"releases below {head.min_sequence}" if head.min_sequence else "none"),
        ("signed by", ", ".join(one.kid.hex() or "a key without a name" for one in signed.signatures) or "nobody yet"),
        ("envelope", f"{len(release.severed)} bytes for a board"),
    ):
        typer.echo(f"{name:<10}{value}")
    typer.echo("")
    rows = [
        [path, str(size), str(releases.packed_bytes(release, [path])), digest.hex()[:16]]
        for path, size, digest in release.entries
    ]
    output.print_table(("file", "bytes", "travels", "sha256"), rows)


@app.command("compile", hidden=True)
def compile_folder(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Modules that are loaded together.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where their bytecode goes.")],
    used_by: UsedByOption = None,
    long_names: LongOption = False,
    mpy_cross: CrossOption = None,
) -> None:
    """Compile programs that run beside a release, as the emulated boards' own half does."""
    texts = {path.stem: _content(path) for path in sorted(folder.glob("*.py"))}
    if not long_names:
        try:
            texts = shortened(texts, *(_content(path) for path in used_by or []), stable=False)
        except (NotShortened, SyntaxError) as why:
            raise OperatorError(f"{folder} cannot be compiled: {why}.") from why
    for name, content in mpy.found(mpy_cross).compiled(texts).items():
        files.write_public(out / f"{name}.mpy", content)


def document(release: Release, with_files: bool = False) -> dict[str, object]:
    """A release as `--json` shows it (provisioning/README.md, "Releases")."""
    head, signed = release.head, release.manifest
    shown: dict[str, object] = {
        "release": release.digest.hex(),
        "version": head.version,
        "sequence": signed.sequence,
        "description": release.description,
        "vendor": str(uuid.UUID(bytes=signed.vendor)),
        "class": str(uuid.UUID(bytes=signed.class_id)),
        "abi": head.abi,
        "interpreters": None if head.interpreters is None else list(map(_dotted, head.interpreters)),
        "loader": head.loader,
        "entry": head.entry,
        "trial_s": head.trial_s,
        "min_sequence": head.min_sequence,
        "signatures": [one.kid.hex() for one in signed.signatures],
        "files": len(release.entries),
    }
    if with_files:
        shown["files"] = [
            {"path": path, "bytes": size, "sha256": digest.hex()} for path, size, digest in release.entries
        ]
    return shown


def verdict_document(verdict: Verdict) -> dict[str, object]:
    return {
        "good": verdict.is_good,
        "signed_by": list(verdict.signers),
        "strangers": list(verdict.strangers),
        "needed": verdict.needed,
    }


def _require_committed(sources: firmware_sources.Sources, uncommitted: bool) -> None:
    if sources.commit is None or not sources.commit.changed or uncommitted:
        return
    changed = sources.commit.changed
    more = f" and {len(changed) - SHOWN_CHANGES} more" if len(changed) > SHOWN_CHANGES else ""
    raise OperatorError(
        f"{', '.join(changed[:SHOWN_CHANGES])}{more}: changes that are in no commit, so nobody could build this "
        "release again. Commit them, or say --uncommitted for a trial."
    )


def _interpreters(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d{1,2})\.(\d{1,2})-(\d+)\.(\d{1,2})\.(\d{1,2})", text)
    if found is None:
        raise UsageError(f"--interpreter {text!r} is not FROM-TO, such as 1.28.0-1.29.9.")
    first, last = _number(found.groups()[:3]), _number(found.groups()[3:])
    if last < first:
        raise UsageError(f"--interpreter {text} runs backwards: name the lower version first.")
    return first, last


def _number(parts: Sequence[str]) -> int:
    major, minor, patch = map(int, parts)
    return 10000 * major + 100 * minor + patch


def _dotted(version: int) -> str:
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"


def _interpreter_text(interpreters: tuple[int, int] | None) -> str:
    if interpreters is None:
        return "any MicroPython that loads it"
    return f"MicroPython {_dotted(interpreters[0])} to {_dotted(interpreters[1])}"


def _name(release: Release) -> str:
    return (
        f"Release {release.digest.hex()} ({output.foreign(release.head.version)}, sequence {release.manifest.sequence})"
    )


def _signatures(verdict: Verdict) -> str:
    return f"{len(verdict.signers)} of {verdict.needed} signatures that are needed"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise UsageError(f"{path} cannot be read: {why.strerror}.") from why
