"""laterne-gateway run | check | status | buffer | dead | port | release | key | diag | install | uninstall.

Exit codes: 0 done, 1 found wrong or failed, 2 bad usage or configuration, 130 stopped by Ctrl-C. What a command
needs is imported when it runs.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laterne_gateway.config import Config
    from laterne_gateway.last_good import Configuration

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

DONE, WRONG, BAD_CONFIGURATION, STOPPED = 0, 1, 2, 130


def main() -> None:
    """The entry point; ends the process with its exit code."""
    try:
        code = run_command(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        # Who reads us has seen enough; the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = WRONG
    sys.exit(code)


def run_command(arguments: list[str]) -> int:
    from laterne_gateway.config import ConfigError
    from laterne_gateway.last_good import Configuration

    asked = _parser().parse_args(arguments)
    if asked.command in ("install", "uninstall"):
        from laterne_gateway import install

        return install.install(asked.prefix) if asked.command == "install" else install.uninstall(asked.prefix)
    where, level = Path(asked.config), "debug" if asked.verbose else None
    looks = asked.command in ("status", "diag")
    configuration = Configuration.of_the_service(where, level) if looks else Configuration.found(where, level)
    if asked.command == "run":
        return _run(configuration)
    try:
        config = configuration.start() if looks else configuration.load()
        if looks:
            _say(configuration.problems)
    except ConfigError as why:
        _say(why.problems)
        return BAD_CONFIGURATION
    _log_to_stderr(config.log_level)
    try:
        return _look(asked, config)
    except PermissionError as why:
        # The service's directory is its own: who looks at it from a login of his own is told how.
        print(
            f"{why.filename or config.gateway.directory}: this user may not use it: give the command as the gateway's "
            "user (the service's: sudo -u laterne), or as root",
            file=sys.stderr,
        )
        return WRONG


def _look(asked: argparse.Namespace, config: "Config") -> int:
    if asked.command == "key":
        return _key(config)
    if asked.command == "check":
        from laterne_gateway.check import check

        return check(config)
    if asked.command == "diag":
        from laterne_gateway.diag import diag

        return diag(config, Path(asked.output))
    if asked.command == "buffer":
        from laterne_gateway import buffer_commands

        output = Path(asked.output) if asked.action == "export" else None
        return buffer_commands.run(config, asked.action, output, as_json=asked.json)
    if asked.command == "dead":
        from laterne_gateway import dead_commands

        identifiers = asked.ids if asked.action == "retry" else []
        return dead_commands.run(config, asked.action, asked.route, identifiers, as_json=asked.json)
    if asked.command == "port":
        from laterne_gateway import port_requests

        minutes = asked.minutes if asked.action == "release" else 0.0
        return port_requests.run(config, asked.action, asked.what, minutes, as_json=asked.json)
    if asked.command == "release":
        from laterne_gateway import release_commands

        return release_commands.run(config, asked.action, asked.what, as_json=asked.json)
    from laterne_gateway.tell import tell

    return tell(config, as_json=asked.json)


def _say(problems: list[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)


def _run(configuration: "Configuration") -> int:
    import asyncio

    from laterne_gateway.agent import run
    from laterne_gateway.config import ConfigError
    from laterne_gateway.database import DatabaseError
    from laterne_gateway.trusts import RosterError

    _log_to_stderr("info")  # until the configuration is read
    log = logging.getLogger("laterne")
    try:
        asyncio.run(run(configuration))
    except ConfigError as why:
        _say(why.problems)
        return BAD_CONFIGURATION
    except (DatabaseError, RosterError) as why:
        log.error("%s", why)
        return BAD_CONFIGURATION
    except Exception:
        # A part failed that may not fail: the service manager starts us again, the disk says where to go on.
        log.exception("the gateway is ended by a failure")
        return WRONG
    return DONE


def _key(config: "Config") -> int:
    from laterne_gateway.identity import IdentityError, jwk, make_key, public_key

    file = config.gateway.key
    is_there = file.exists()
    try:
        print(jwk(public_key(file) if is_there else make_key(file)))
    except IdentityError as why:
        print(why, file=sys.stderr)
        return WRONG
    print(
        f"{file}: {'is there already, and stays as it is' if is_there else 'made'}. Give its public half, a line on "
        f"stdout, to the authority: laterne gateway enrol --id {config.gateway.id} --key FILE",
        file=sys.stderr,
    )
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="laterne-gateway", description="The gateway agent of laterne.")
    parser.add_argument("--version", action=_Version, help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "run", "serve boards and deliver their reports until SIGTERM")
    _add(commands, "check", "say whether everything that the configuration names can be used")
    _add(commands, "status", "say how the running gateway is", as_json=True)
    _add(
        commands,
        "key",
        "print the public half of the key with which the gateway shakes hands with boards; made the first time",
    )
    diag = _add(commands, "diag", "write what whoever helps would ask for into one file, without any secret")
    diag.add_argument("-o", "--output", required=True, metavar="FILE", help="a new .tar.gz")

    buffer = _group(commands, "buffer", "look after the reports that wait for delivery")
    _action(buffer, "verify", "check the file, every report's signature, chains and lanes; also while the gateway runs")
    export = _action(
        buffer, "export", "write every report into a file for `laterne verify`; also while the gateway runs"
    )
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file")
    _action(
        buffer, "vacuum", "give the room that delivered reports have left back to the disk; the gateway must be stopped"
    )

    dead = _group(commands, "dead", "look after what platforms have refused for good")
    listed = _action(dead, "list", "say what was refused, and why")
    retry = _action(
        dead, "retry", "let the running gateway send it again: all, those of a route, or those with these numbers"
    )
    seen = _action(dead, "seen", "show what was refused beyond a board's share and not kept, and end its alarm")
    for action in (listed, retry, seen):
        action.add_argument("--route", metavar="NAME", help="only those of this route")
    retry.add_argument("ids", nargs="*", type=int, metavar="NUMBER", help="as `dead list` gives them")

    port = _group(commands, "port", "lend a line's port to a technician, while the gateway runs")
    lend = _action(
        port, "release", "close it, and open it again after some minutes or at `take`; its boards keep their reports"
    )
    for action in (lend, _action(port, "take", "open it again now")):
        action.add_argument("what", metavar="PORT", help="its path, or the name of the line")
    lend.add_argument("--minutes", type=_minutes, default=30.0, metavar="N", help="at most 1440; 30 if left out")

    release = _group(commands, "release", "bring releases for boards by hand, and look at those that are here")
    _action(release, "add", "check a signed release and store it").add_argument("what", metavar="FILE")
    _action(release, "list", "say what is stored, and whether it is whole and signed").set_defaults(what="")
    _action(release, "remove", "take a release away").add_argument("what", metavar="DIGEST")

    below = "only files below DIR; nothing else of this machine is changed"
    summary = "make the gateway a service of this machine: user, unit, names of ports, an example to fill in"
    install = commands.add_parser("install", help=summary, description=summary)
    summary = "take the service away; configuration and data stay"
    uninstall = commands.add_parser("uninstall", help=summary, description=summary)
    for command in (install, uninstall):
        command.add_argument("--prefix", type=_directory, metavar="DIR", help=below)
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # only if asked: it takes its time

        print(f"{parser.prog} {version('laterne')}")
        parser.exit(DONE)


def _group(commands: "Commands", name: str, summary: str) -> "Commands":
    """A command that has actions of its own."""
    command = commands.add_parser(name, help=summary, description=summary)
    return command.add_subparsers(dest="action", required=True, metavar="ACTION")


def _action(group: "Commands", name: str, summary: str) -> argparse.ArgumentParser:
    return _add(group, name, summary, as_json=True)


def _add(commands: "Commands", name: str, summary: str, *, as_json: bool = False) -> argparse.ArgumentParser:
    """A command that reads the configuration."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("--config", required=True, metavar="FILE", help="the configuration, a TOML file")
    command.add_argument("--verbose", action="store_true", help="say more on stderr")
    if as_json:
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return command


def _directory(text: str) -> Path:
    if not text:  # a script's variable that is not set: that is not this machine
        raise argparse.ArgumentTypeError("names no directory")
    return Path(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 1440:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1440")
    return minutes


def _log_to_stderr(level: str) -> None:
    # The journal has its own times.
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"{when}%(levelname)s %(message)s")
    logging.getLogger("laterne").setLevel(level.upper())


if __name__ == "__main__":
    main()
