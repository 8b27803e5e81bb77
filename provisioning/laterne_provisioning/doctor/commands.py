"""`laterne board doctor PORT` and `laterne board watch PORT`: what is typed."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from laterne_protocol.release_file import Release
from laterne_provisioning import output
from laterne_provisioning.doctor import judging, repl_facts, watching
from laterne_provisioning.doctor.console import Console, PortGone, State, state_of
from laterne_provisioning.doctor.judging import BROKEN, LOOK, OK, Finding
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.flashing import checking
from laterne_provisioning.flashing.repl import NoRepl, Repl
from laterne_provisioning.options import JsonOption

# A board tells its state every 5 s, but not while it signs or shakes hands, which takes a slow one some seconds.
HEARD_WITHIN_S = 20.0
TWO_STATES = 2  # so that what grows is seen to grow
BACK_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.2
STYLES = {OK: "green", LOOK: "yellow", BROKEN: "red"}

PortArgument = Annotated[str, typer.Argument(metavar="PORT", help="The board's USB port, such as /dev/ttyACM0.")]


def doctor(
    port: PortArgument,
    release: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a board that is not enrolled: the release on it, to read its sensors."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """How the board on PORT is, and what to do. Nothing is sent to one that is enrolled. Exit code 1: broken."""
    from laterne_provisioning import releases  # brings the compiler: `board list` has no use for it

    given = None if release is None else releases.read(release)
    if given is not None:
        releases.require_ours(given)
    states: list[State] = []
    with output.progress() as say:
        with Console(port) as console:
            has_repl = console.gives_prompt()
            if not has_repl:
                say(f"Listening to {port}, {HEARD_WITHIN_S:.0f} s at most")
                states = _heard(console)
        if states and (states[-1].is_enrolled or given is None):
            findings = judging.of_states(states, time.time_ns() // 1_000_000)
        else:
            say(f"Asking the board on {port} by its REPL")
            findings = _by_repl(port, given, is_idle=has_repl)
    board = states[-1].board if states else None
    if as_json:
        output.print_json(
            {
                "port": port,
                "board": board,
                "enrolled": bool(states) and states[-1].is_enrolled,
                "verdict": judging.worst(findings),
                "findings": [finding._asdict() for finding in findings],
            }
        )
    else:
        _show(port, board, findings)
    if judging.worst(findings) == BROKEN:
        raise typer.Exit(1)


def watch(
    port: PortArgument,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this time.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many states.")] = None,
) -> None:
    """Live readings of the board on PORT, which is only listened to. JSON lines when stdout is no terminal."""
    left = count
    try:
        with watching.shown() as show:
            for one in _watched(port, seconds):
                show(one)
                if isinstance(one, State) and left is not None:
                    left -= 1
                    if left == 0:
                        return
    except KeyboardInterrupt:
        return  # being stopped is its normal end
    if left is not None:
        raise OperatorError(
            f"{(count or 0) - left} of {count} states were heard on {port}: `laterne board doctor {port}` says why."
        )


def _heard(console: Console) -> list[State]:
    """Two of an enrolled board; one of another, of whose line nothing can be said yet."""
    states: list[State] = []
    for said in console.lines(HEARD_WITHIN_S):
        state = state_of(said)
        if state is not None:
            states.append(state)
            if len(states) == TWO_STATES or not state.is_enrolled:
                break
    return states


def _watched(port: str, seconds: float | None) -> Iterator[State | str]:
    """States, and other lines of the console. A board that resets or is plugged in again is waited for."""
    end = None if seconds is None else time.monotonic() + seconds
    gone_since: float | None = None
    while end is None or time.monotonic() < end:
        try:
            with Console(port) as console:
                gone_since = None
                for said in console.lines(None if end is None else end - time.monotonic()):
                    if said:
                        yield state_of(said) or said
        except (PortGone, UsageError) as why:
            if isinstance(why, UsageError) and gone_since is None:
                raise  # it was not there to begin with
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > BACK_WITHIN_S:
                raise
            time.sleep(LOOK_AGAIN_S)


def _by_repl(port: str, release: Release | None, *, is_idle: bool) -> list[Finding]:
    """is_idle: nothing of ours runs on it, so nothing has to be started again."""
    try:
        with Repl(port) as repl:
            findings = judging.of_facts(repl_facts.asked(repl))
            if release is not None:
                findings += _self_test(repl, release)
            if not is_idle:
                repl.reset()
    except NoRepl:
        return [
            Finding(
                "board",
                BROKEN,
                f"it tells nothing for {HEARD_WITHIN_S:.0f} s, and has no REPL",
                "Has it power, is it this port, does the cable carry data? If a gateway hears it, it is enrolled and "
                "its release is too old to tell its state.",
            )
        ]
    return findings


def _self_test(repl: Repl, release: Release) -> list[Finding]:
    try:
        checked = checking.check(repl, release)
    except OperatorError as why:
        return [Finding("sensors", BROKEN, str(why).partition(": look")[0], "Is this release on it? Flash it again.")]
    if checked is None:
        return [Finding("sensors", LOOK, "this release brings no self-test", "Build a newer one.")]
    return judging.sensors(checked.sensors, checked.readings)


def _show(port: str, board: str | None, findings: list[Finding]) -> None:
    from rich.console import Console as Screen
    from rich.table import Table
    from rich.text import Text

    screen = Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else output.PIPE_COLUMNS)
    screen.print(f"{board or 'The board'} on {port}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for about, verdict, said, do in findings:
        table.add_row(about, Text(verdict, style=STYLES[verdict]), f"{said}. {do}" if do else said)
    screen.print(table)
