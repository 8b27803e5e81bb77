"""The command `laterne`: what is typed, which part does the work, and how it ends.

Exit codes: 0 done, 1 something was found wrong, 2 bad usage or configuration, 130 stopped by Ctrl-C.
"""

import importlib
import io
import os
import sys
from typing import Annotated, NamedTuple

import typer

from laterne_provisioning.errors import STOPPED, OperatorError, UsageError

COMMANDS = "laterne.commands"  # the entry-point group in which other packages offer commands


class Part(NamedTuple):
    """A command of ours, or a group of commands. It is imported when it is the one that was typed, and only then.

    module, name: where it is, a function or a Typer. help: what `laterne --help` says of it.
    """

    module: str
    name: str
    help: str


PARTS = {  # as one comes to them: what a city does first comes first
    "init": Part(
        "authority_commands",
        "init",
        "A new authority: three roots of which two must sign, keys for enrolment, release, order and roster.",
    ),
    "trust": Part("authority_commands", "trust_app", "The authority's public keys."),
    "release": Part("release_commands", "app", "Code for boards: build it, sign it, see what it is."),
    "flash": Part(
        "flashing.commands",
        "flash",
        "Write a release onto the board on PORT, test and enrol it. If it is interrupted, give the same command again.",
    ),
    "board": Part("boards", "app", "Enrol boards and see which there are."),
    "grant": Part("grant_commands", "app", "Let technicians enrol boards away from the authority."),
    "gateway": Part("gateway_commands", "gateway_app", "Say who a gateway is, so that boards speak with it."),
    "roster": Part("gateway_commands", "roster_app", "Tell gateways which boards they may serve."),
    "campaign": Part("campaign.commands", "app", "Bring a release to boards in waves that halt by themselves."),
    "verify": Part(
        "verify",
        "verify",
        "Who signed what, and what is missing. Needs public data only; exit code 1 if anything is wrong.",
    ),
    "audit": Part("audit_commands", "app", "What operators and technicians have done with an authority."),
    "backup": Part(
        "backup_commands",
        "backup",
        "The whole authority in one file. Private keys stay encrypted; keep the passphrase elsewhere.",
    ),
    "restore": Part(
        "backup_commands",
        "restore",
        "Bring an authority back. What was done after the backup was made is not in it: see provisioning/README.md.",
    ),
}


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"laterne {version('laterne')}")
        raise typer.Exit


def _app(arguments: list[str]) -> typer.Typer:
    """The application, with the one command that these arguments name, or an overview of all."""
    app = typer.Typer(
        name="laterne",
        help="Keys, boards and rosters of a city's lamp posts, and the check of what the boards have signed.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    # `laterne` itself has no option with a value: what comes first and is no option is the command.
    typed = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, part in PARTS.items():
        if name != typed:
            app.command(name, help=part.help)(_overview)
            continue
        found = getattr(importlib.import_module(f"laterne_provisioning.{part.module}"), part.name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    if typed not in PARTS:
        _add_commands_of_others(app)  # they take their time to be imported
    return app


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass  # the option has done its work


def _overview() -> None:
    raise AssertionError("a command was called that had only been listed")


def _add_commands_of_others(app: typer.Typer) -> None:
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=COMMANDS), key=lambda found: found.name):
        try:
            app.command(entry.name)(entry.load())
        except ImportError as why:
            extra = ", ".join(entry.extras) or "emulator"
            _add_missing(
                app, entry.name, f"`laterne {entry.name}` is not installed ({why}): pip install 'laterne[{extra}]'"
            )


def _add_missing(app: typer.Typer, name: str, message: str) -> None:
    @app.command(name, help="Not installed.", context_settings={"ignore_unknown_options": True})
    def missing(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise UsageError(message)


def main() -> None:
    """The entry point. Judges what is fatal: every foreseeable error is a sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets what it has no letter for as \\xb0
            stream.reconfigure(errors="backslashreplace")
    try:
        _app(sys.argv[1:])()
    except OperatorError as why:
        from laterne_provisioning import output

        output.message(str(why))
        sys.exit(why.exit_code)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except BrokenPipeError:
        # Who reads us has seen enough; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
