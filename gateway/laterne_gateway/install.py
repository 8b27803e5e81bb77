"""`laterne-gateway install | uninstall`: the agent as a service of this machine (systemd), and back.

Safe to repeat: a file that is as it should be is left alone; one that differs is ours to replace only where its first
line says so; configuration and state are never replaced and never removed. With a prefix (a package's or an image's
root) files are only laid out below it: no user is made, no service manager is told.
"""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DONE, WRONG = 0, 1
PROGRAM = "laterne-gateway"
USER = "laterne"
SERIAL_GROUP = "dialout"  # Debian: who may use serial ports
UNIT_NAME = "laterne-gateway.service"
UNIT = Path("etc/systemd/system") / UNIT_NAME
RULES = Path("etc/udev/rules.d/70-laterne.rules")
CONFIGURATION = Path("etc/laterne/gateway.toml")
SECRETS = Path("etc/laterne/credentials")
STATE = Path("var/lib/laterne-gateway")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # by ProtectHome=, PrivateTmp= (systemd.exec(5))
OURS = "# laterne-gateway"  # the first line of what install may replace
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)


class InstallError(Exception):
    """What cannot be done, and what to do about it."""


@dataclass(frozen=True)
class Templates:
    """Where the unit, the rules and the example lie: beside this package in a checkout, in it when installed."""

    unit: Path
    rules: Path
    example: Path

    @classmethod
    def found(cls) -> "Templates":
        for folder in (Path(__file__).parent / "files", Path(__file__).parents[1]):
            unit = folder / "systemd" / UNIT_NAME
            if unit.is_file():
                return cls(unit, folder / "systemd" / RULES.name, folder / "laterne-gateway.example.toml")
        raise InstallError("the service's unit is not beside this program: install laterne anew")


def install(prefix: Path | None, program: Path | None = None) -> int:
    """Lays the files out and tells what is left to do. Returns the exit code."""
    try:
        _install(prefix, program or _this_program())
    except (InstallError, OSError, UnicodeDecodeError) as why:
        print(_in_words(why), file=sys.stderr)
        return WRONG
    return DONE


def uninstall(prefix: Path | None) -> int:
    """Takes unit and rules away; configuration, state and user stay, and it is said where they are."""
    try:
        _uninstall(prefix)
    except (InstallError, OSError, UnicodeDecodeError) as why:
        print(_in_words(why), file=sys.stderr)
        return WRONG
    return DONE


def _in_words(why: Exception) -> str:
    if isinstance(why, InstallError):
        return str(why)
    named = f"{why.filename}: {why.strerror}" if isinstance(why, OSError) else str(why)
    return f"{named}: put that right and give the command again; what is done stays"


def _install(prefix: Path | None, program: Path) -> None:
    _root_only(prefix)
    require_visible(program, prefix)
    root, templates = prefix or Path("/"), Templates.found()
    if prefix is None:
        _make_user()
    unit = templates.unit.read_text().replace("/usr/bin/laterne-gateway", str(program))
    _put(root / UNIT, unit)
    _put(root / RULES, templates.rules.read_text())
    _make_directories(root, for_user=prefix is None)
    configuration = root / CONFIGURATION
    if configuration.exists():
        print(f"{configuration}: is there, left as it is")
    else:
        _write(configuration, templates.example.read_text())
        print(f"{configuration}: an example, to be filled in")
    if prefix is None:
        _tell_the_service_manager("daemon-reload")
        _name_ports()
        if _runs():
            print(f"It runs, still with what it was started with: systemctl restart {UNIT_NAME}")
            return
        print(
            f"What is left: fill in {configuration}, then give the authority the key that is printed by\n"
            f"  sudo -u {USER} {program} key --config {configuration}\n"
            "It signs gateway.cbor (laterne gateway enrol) and roster.cbor (laterne roster export): bring both, and "
            f"its trust.cbor, to {configuration.parent}, then\n"
            f"  {program} check --config {configuration}\n"
            f"  systemctl enable --now {UNIT_NAME}"
        )


def _uninstall(prefix: Path | None) -> None:
    _root_only(prefix)
    root = prefix or Path("/")
    for path in (root / UNIT, root / RULES):
        if path.exists():
            _check_ours(path)  # before anything is done
    if prefix is None and (root / UNIT).exists():
        _tell_the_service_manager("disable", "--now", UNIT_NAME)
    for path in (root / UNIT, root / RULES):
        if path.exists():
            path.unlink()
            print(f"{path}: removed")
    if prefix is None:
        _tell_the_service_manager("daemon-reload")
        _name_ports()
    kept = [str(root / path) for path in (CONFIGURATION.parent, STATE) if (root / path).exists()]
    if kept:
        print(f"kept: {', '.join(kept)}" + (f", user {USER}" if prefix is None else ""))


def _this_program() -> Path:
    # The one that was started: the first in PATH may be an older one. Not resolved: in a virtual environment the link
    # is what works.
    started = Path(sys.argv[0])
    if started.name == PROGRAM and started.is_file():
        return started.absolute()
    return Path(shutil.which(PROGRAM) or started).absolute()


def require_visible(program: Path, prefix: Path | None, python: Path | None = None) -> None:
    """Raises InstallError: the service could not start this program, for it sees no home and no /tmp of ours.

    python: where the interpreter was installed, which runs this one if left out.
    """
    if any(sign.isspace() or sign in "%$\\\"'" for sign in str(program)):
        raise InstallError(f"{program}: a unit cannot name this path: install laterne where it has plain letters")
    # An environment elsewhere may still use a Python in somebody's home (pyenv, uv).
    needed = (program, program.resolve(), python or Path(sys.base_prefix))
    hidden = [one for one in needed if any(one.is_relative_to(place) for place in HIDDEN)]
    if prefix is None and hidden:
        raise InstallError(
            f"{hidden[0]}: the service sees nobody's home directory and no /tmp: install laterne elsewhere "
            "(/usr/bin/python3 -m venv /opt/laterne), and give the command from there"
        )


def _root_only(prefix: Path | None) -> None:
    if prefix is None and os.geteuid() != 0:
        raise InstallError(
            "only root can do this: give it with sudo (or with --prefix DIR, which is about files below DIR only)"
        )


def _make_user() -> None:
    _run(("groupadd", "--system", "--force", USER))  # also when it is there
    try:
        pwd.getpwnam(USER)
    except KeyError:
        home = "/" + str(STATE)
        shell = "/usr/sbin/nologin"
        _run(("useradd", "--system", "--gid", USER, "--home-dir", home, "--no-create-home", "--shell", shell, USER))
        print(f"user {USER}: made")
    _run(("usermod", "--append", "--groups", SERIAL_GROUP, USER))


def _make_directories(root: Path, *, for_user: bool) -> None:
    """What only the service may read, and secrets that only root may: systemd hands those over (LoadCredential)."""
    for path, owner in ((STATE, USER), (SECRETS, "root")):
        folder = root / path
        if not folder.exists():
            _make_parents(folder)
            folder.mkdir(mode=0o700)
            print(f"{folder}: made")
        # One that holds data and is another's (a user that was made anew) systemd hands over whole at the next start
        # (StateDirectory=), but only if it is another's itself.
        if for_user and not any(folder.iterdir()):
            shutil.chown(folder, owner, owner)


def _put(path: Path, text: str) -> None:
    if path.exists():
        if path.read_text() == text:
            print(f"{path}: is up to date")
            return
        _check_ours(path)
    _write(path, text)
    print(f"{path}: written")


def _check_ours(path: Path) -> None:
    if not path.read_text().startswith(OURS):
        raise InstallError(f"{path}: somebody has written his own; take it away, or change it to what you want by hand")


def _make_parents(path: Path) -> None:
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)  # whatever umask root has: the service must get through


def _write(path: Path, text: str) -> None:
    """Whole or not at all; readable for the service."""
    _make_parents(path)
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _name_ports() -> None:
    """Ports that are plugged in now get their names, or lose them."""
    for words in (("control", "--reload"), ("trigger", "--subsystem-match=tty", "--action=change")):
        _run(("udevadm", *words), may_be_missing=True)


def _runs() -> bool:
    asked = ("systemctl", "is-active", "--quiet", UNIT_NAME)
    return _BOOTED.is_dir() and subprocess.run(asked, timeout=60, check=False).returncode == 0


def _tell_the_service_manager(*words: str) -> None:
    if _BOOTED.is_dir():
        _run(("systemctl", *words))
    else:
        print("systemd does not run here: it will find the unit at its next start")


def _run(command: Sequence[str], *, may_be_missing: bool = False) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as why:
        if may_be_missing:
            return
        raise InstallError(f"{command[0]} is not on this machine: {' '.join(command)} cannot be done") from why
    if done.returncode:
        raise InstallError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
