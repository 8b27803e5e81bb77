"""`laterne flash`: what is typed, and in which order the parts do their work."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol import credential, trust
from laterne_protocol.release_file import Release
from laterne_provisioning import authority as authorities
from laterne_provisioning import (
    enrol,
    files,
    grants,
    interpreters,
    keys,
    label_commands,
    labels,
    output,
    releases,
)
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import box, box_command, chip, enrolling, ports, service_end, steps
from laterne_provisioning.flashing.enrolling import Enroller
from laterne_provisioning.flashing.repl import NoRepl
from laterne_provisioning.flashing.steps import Flashed
from laterne_provisioning.grants import GrantFile
from laterne_provisioning.line import Line
from laterne_provisioning.options import (
    GrantOption,
    JournalOption,
    JsonOption,
    LatitudeOption,
    LongitudeOption,
    MaybeAuthorityOption,
    PassphraseOption,
    PendingOption,
    PinOption,
    PostOption,
    TechnicianKeyOption,
)
from laterne_provisioning.placing import place_of
from laterne_provisioning.words import words


def flash(
    port: Annotated[
        str | None, typer.Argument(metavar="PORT", help="The board's USB port. Left out: which ports there are.")
    ] = None,
    release_file: Annotated[
        Path | None,
        typer.Option("--release", metavar="FILE", help="What `release build` wrote and `release sign` signed."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="pico, pico2, esp32, emulated. [default: what the board says it is]")
    ] = None,
    interpreter_file: Annotated[
        Path | None,
        typer.Option(
            "--interpreter", metavar="FILE", help="MicroPython for this chip, .uf2 or .bin: put on if needed."
        ),
    ] = None,
    board_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Enrol it, too: what the board is called from now on.")
    ] = None,
    line_port: Annotated[
        str | None, typer.Option("--line", metavar="PORT", help="With --id: the board's line, such as /dev/ttyUSB0.")
    ] = None,
    post: PostOption = None,
    latitude: LatitudeOption = None,
    longitude: LongitudeOption = None,
    authority: MaybeAuthorityOption = None,
    pending: PendingOption = False,
    grant: GrantOption = None,
    technician_key: TechnicianKeyOption = None,
    journal: JournalOption = None,
    trust_file: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="Without either: what `trust export` wrote.")
    ] = None,
    order_file: Annotated[
        Path | None,
        typer.Option("--order", metavar="FILE", help="A board in service: what `board decommission -o` wrote ends it."),
    ] = None,
    address: Annotated[int | None, typer.Option(min=1, max=32, help="On a bus with several boards.")] = None,
    report_seconds: Annotated[int | None, typer.Option(min=5, max=3600, help="It closes reports this often.")] = None,
    sample_ms: Annotated[
        int | None, typer.Option(min=200, max=3_600_000, help="It reads its sensors this often.")
    ] = None,
    label: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --id: its label, as .pdf, .png or .svg.")
    ] = None,
    in_box: Annotated[
        bool, typer.Option("--batch", help="A box of boards: flash and enrol each as it is plugged in.")
    ] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="With --batch: id,post,latitude,longitude.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="With --batch instead: so many boards, their ids counted from --id on.")
    ] = None,
    port_from: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="With --batch: the USB ports. [default: all]  '/dev/bench-*-usb'"),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="With --batch: end when none comes for so long."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a release onto the board on PORT, test and enrol it. If it is interrupted, give the same command again."""
    if label is not None:
        labels.require_possible(label, 1)
    secrets = keys.Secrets(passphrase_file, pin_file)
    settings = _settings(address, report_seconds, sample_ms)
    if in_box:
        if interpreter_file is not None:
            raise UsageError("--batch takes boards with MicroPython on them: --interpreter is for one board.")
        if port is not None or release_file is None or authority is None or line_port is None or post is not None:
            raise UsageError(
                "--batch takes --release, --authority and --line, and no PORT: boards are taken as they are plugged "
                "in. Posts stand in --csv."
            )
        options = box_command.Options(board_id, count, table, line_port, port_from, label, wait, as_json)
        way = box.Way(releases.read(release_file), model, settings, pending)
        box_command.flash_box(authorities.open_authority(authority), way, secrets, options)
        return
    if table is not None or count is not None or port_from is not None or wait is not None:
        raise UsageError("--csv, --count, --port-from and --wait are for a box of boards: give --batch, too.")
    if port is None:
        if release_file is not None or authority is not None or grant is not None or board_id is not None:
            raise UsageError(f"Which board? Name its USB port: laterne flash PORT … {_ports_in_words()}")
        _show_ports(as_json)
        return
    if release_file is None:
        raise UsageError(f"Which release? laterne flash {port} --release FILE …")
    place = place_of(post, latitude, longitude)
    if board_id is None:
        if place is not None or label is not None or pending:
            raise UsageError("A place, --label and --pending are for a board that is enrolled: give --id, too.")
    else:
        if line_port is None:
            raise UsageError(
                "A board takes its credential over its line, not over USB: name that port with --line, or leave out "
                "--id and enrol it later with `laterne board enrol`."
            )
        if os.path.realpath(line_port) == os.path.realpath(port):
            raise UsageError(f"{port} is named twice: PORT is the board's USB, --line is its line (a UART adapter).")
        enrol.check_ids(board_id, place)
    given = [name for name in (authority, grant, trust_file) if name is not None]
    if len(given) != 1:
        raise UsageError("Whom to believe? Give one of --authority DIR, --grant FILE and --trust FILE.")
    if board_id is not None and trust_file is not None:
        raise UsageError("A trust file enrols nobody: give --authority DIR or --grant FILE with --id.")
    if grant is not None and board_id is not None and (technician_key is None or pending):
        raise UsageError("Enrolling under --grant takes --technician-key, and is never --pending.")
    opened = None if authority is None else authorities.open_authority(authority)
    granted = None if grant is None else grants.read_file(grant)
    release = releases.read(release_file)
    releases.require_ours(release)
    releases.require_signed(release, _trusted(opened, granted, trust_file))
    end = None if order_file is None else service_end.read(order_file, _trusted(opened, granted, trust_file))
    if end is not None and end.board == board_id:
        raise UsageError(f"{board_id} ends by this order, and its id with it: give the board another --id.")
    image = None if interpreter_file is None else chip.read(interpreter_file)
    if line_port is not None:
        with Line(line_port):
            pass  # what is wrong with it is told before anything is written
    enrolling_by: AbstractContextManager[Enroller | None] = nullcontext()
    if board_id is not None and opened is not None:
        enrolling_by = enrolling.by_authority(opened, board_id, place, pending, secrets)
    elif board_id is not None and granted is not None and grant is not None and technician_key is not None:
        kept = journal or grant.with_suffix(".journal")
        enrolling_by = enrolling.by_grant(granted, board_id, place, technician_key, kept, secrets)
    try:
        with output.progress() as say, enrolling_by as enroller:
            if end is not None:
                output.message(service_end.carry_out(port, end, say))
            if image is not None:
                chip.prepare(image, port, release.head, say)
            flashed, enrolment = _done(port, release, model, settings, line_port, enroller, say)
    except KeyboardInterrupt:
        output.message("Stopped. What is written stays: give the same command again, until then the board is not done.")
        raise
    if flashed is not None and enrolment is not None and opened is not None:
        interpreters.note(opened.log, enrolment.board.id, flashed.found.dotted)
    _tell(port, release, flashed, enrolment, label, as_json)


def _done(
    port: str,
    release: Release,
    model: str | None,
    settings: dict[str, int] | None,
    line_port: str | None,
    enroller: Enroller | None,
    say: Callable[[str], None],
) -> tuple[Flashed | None, enrol.Enrolment | None]:
    """Flashed is None: the board was enrolled before; its enrolment is None: nobody asked for it."""
    if enroller is None or line_port is None:
        return steps.flashed(port, release, model, settings, say), None
    flashed: Flashed | None = None
    try:
        flashed = steps.flashed(port, release, model, settings, say, enroller.require)
    except NoRepl:
        # Three things may have happened:
        # 1 - this command was stopped after the board had taken its credential: enrolling finishes it.
        # 2 - it is another board, or enrolled by somebody else: enrolling says so.
        # 3 - it is no board of ours: what has no REPL and is not enrolled is refused here.
        with Line(line_port) as line:
            if enrol.identity(line) is not None:
                raise
    with Line(line_port) as line:
        enrolment = enroller.enrol(line, say)
    if flashed is not None:
        steps.require_same(flashed.hardware, enrolment.board.hardware, enrolment.board.id, port, line_port)
    return flashed, enrolment


def _settings(address: int | None, report_seconds: int | None, sample_ms: int | None) -> dict[str, int] | None:
    """As in /settings.json; None: the board keeps those that it has."""
    given = {"address": address, "report_s": report_seconds, "sample_ms": sample_ms}
    return {name: value for name, value in given.items() if value is not None} or None


def _trusted(opened: Authority | None, granted: GrantFile | None, trust_file: Path | None) -> trust.Trust:
    if opened is not None:
        return opened.trusted
    if granted is not None:
        return granted.trusted
    return authorities.read_trust(trust_file or Path())[1]


def _ports_in_words() -> str:
    found = ", ".join(f"{port.device} ({output.foreign(port.what)})" for port in ports.found())
    return f"On USB here: {found}." if found else "Nothing hangs on USB here."


def _show_ports(as_json: bool) -> None:
    found = ports.found()
    if as_json:
        output.print_json([vars(port) for port in found])
        return
    if not found:
        raise OperatorError("No board and no adapter hangs on USB here: plug one in, or name its port.")
    rows = [[port.device, output.foreign(port.what), output.foreign(port.serial)] for port in found]
    output.print_table(("port", "what", "serial number"), rows)
    typer.echo(f"Flash one of them: laterne flash {found[0].device} --release FILE …")


def _tell(
    port: str,
    release: Release,
    flashed: Flashed | None,
    enrolment: enrol.Enrolment | None,
    label: Path | None,
    as_json: bool,
) -> None:
    if label is not None and enrolment is not None:
        body = labels.file([labels.label(enrolment.board)], labels.suffix_of(label))
        try:
            files.write_public(label, body)
        except OSError as why:
            raise UsageError(
                f"{label} cannot be written: {why.strerror}. The board is done: write its label later."
            ) from why
    if as_json:
        output.print_json(document(port, release, flashed, enrolment, label))
        return
    if flashed is None:
        typer.echo(f"The board on {port} runs laterne and is enrolled already: nothing was written.")
    else:
        what = f"release {output.foreign(release.head.version)} ({release.digest.hex()[:16]})"
        written = flashed.written
        typer.echo(f"The board on {port}, {flashed.model} with {flashed.found.dotted}, has {what}.")
        typer.echo(
            f"{written.written} of {written.files} files were written, {written.bytes} bytes; all were read back."
        )
        for reading in () if flashed.checked is None else flashed.checked.readings:
            typer.echo(f"  {reading}")
        if flashed.checked is not None and not flashed.checked.sensors:
            typer.echo("  No sensor answers: look at the wiring.")
    if enrolment is None:
        typer.echo("It is not enrolled: laterne board enrol --port LINE --id ID --authority DIR")
        return
    board = enrolment.board
    kid = credential.kid(board.sign_key)
    typer.echo(f"{board.id} is {board.state}{' already' if enrolment.already else ''}. Its label:")
    label_commands.draw(board)
    typer.echo(f"{board.id}  {words(kid)}  {kid.hex()}")
    if label is not None:
        typer.echo(f"To be printed: {label}")


def document(
    port: str, release: Release, flashed: Flashed | None, enrolment: enrol.Enrolment | None, label: Path | None
) -> dict[str, object]:
    """A flashing as `--json` shows it (provisioning/README.md, "A blank board")."""
    checked = None if flashed is None else flashed.checked
    return {
        "port": port,
        "release": release.digest.hex(),
        "version": release.head.version,
        "sequence": release.manifest.sequence,
        "model": None if flashed is None else flashed.model,
        "interpreter": None if flashed is None else flashed.found.dotted,
        "abi": None if flashed is None else flashed.found.abi,
        "machine": None if flashed is None else output.foreign(flashed.found.machine),
        "files": None if flashed is None else flashed.written.files,
        "written": 0 if flashed is None else flashed.written.written,
        "bytes_written": 0 if flashed is None else flashed.written.bytes,
        "sensors": None if checked is None else list(checked.sensors),
        "readings": None
        if checked is None
        else [
            {"channel": one.channel, "name": one.name, "value": one.value, "unit": one.unit, "quality": one.quality}
            for one in checked.readings
        ],
        "board": None if enrolment is None else output.board_document(enrolment.board) | {"already": enrolment.already},
        "label": None if label is None else str(label),
    }
