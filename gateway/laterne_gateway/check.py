"""`laterne-gateway check`: whether everything that the configuration names can be used, in words. Changes nothing."""

import os
import sqlite3
import stat
from pathlib import Path

from laterne_gateway import identity, primitives
from laterne_gateway.config import Config, GatewaySettings, LineSettings
from laterne_gateway.database import FILE_NAME, DatabaseError, opened_beside
from laterne_gateway.roster import verified_roster
from laterne_gateway.trusts import RosterError, read_bounded
from laterne_protocol import roster, trust
from laterne_protocol.errors import WireError

DONE, WRONG = 0, 1


def check(config: Config) -> int:
    """Prints a line for each thing. Returns the exit code: 1 when something is wrong."""
    lines = "1 line" if len(config.lines) == 1 else f"{len(config.lines)} lines"
    print(f"{config.file}: good, gateway {config.gateway.id}, {lines}")
    found = [_signed_files(config), _database(config)]
    found += [_port(line) for line in config.lines]
    from laterne_gateway.check_routes import check_routes

    found += check_routes(config, _good, _wrong)
    return DONE if all(found) else WRONG


def _good(sentence: str) -> bool:
    print(f"good: {sentence}")
    return True


def _wrong(sentence: str) -> bool:
    print(f"WRONG: {sentence}")
    return False


def _signed_files(config: Config) -> bool:
    gateway = config.gateway
    try:
        trusted = trust.trust_of(
            read_bounded(gateway.trust, trust.MAX_TRUST_BYTES, "laterne trust export"), primitives.valid
        )
    except RosterError as why:
        return _wrong(str(why))
    except WireError as why:
        return _wrong(f"{gateway.trust}: {why}: bring the trust that the authority published last")
    _good(f"trust: version {trusted.version} of {trusted.authority}")
    return all([_roster(gateway, trusted), _identity(gateway, trusted)])


def _roster(gateway: GatewaySettings, trusted: trust.Trust) -> bool:
    try:
        found = verified_roster(read_bounded(gateway.roster, roster.MAX_ROSTER_BYTES), trusted, gateway.id)
    except RosterError as why:
        return _wrong(str(why))
    except WireError as why:
        return _wrong(f"{gateway.roster}: {why}: export this gateway's roster anew")
    return _good(f"roster: version {found.version}, {len(found.entries)} boards, {len(found.revoked)} revoked")


def _identity(gateway: GatewaySettings, trusted: trust.Trust) -> bool:
    try:
        found = identity.load(gateway, [trusted])
        mode = stat.S_IMODE(gateway.key.stat().st_mode)
    except identity.IdentityError as why:
        return _wrong(str(why))
    if mode & 0o077:
        return _wrong(f"{gateway.key}: others may read it: chmod 600")
    if found.problem is not None:
        return _wrong(found.problem)
    first, last = found.introductions[0].credential.versions
    return _good(f"credential: key {found.party.kid.hex()}, valid under trust versions {first} to {last}")


def _database(config: Config) -> bool:
    directory = config.gateway.directory
    file = directory / FILE_NAME
    if not file.exists():
        parent = next(one for one in (directory, *directory.absolute().parents) if one.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return _wrong(f"{directory}: cannot be made: give this user the right to write in {parent}")
        return _good(f"database: {file} will be made at the first start")
    try:
        with opened_beside(file) as connection:
            verdict = connection.execute("pragma quick_check(1)").fetchone()[0]
            waiting = connection.execute("select count(*) from report").fetchone()[0]
    except (sqlite3.Error, DatabaseError) as why:
        return _wrong(f"{file}: {why}")
    if verdict != "ok":
        return _wrong(f"{file}: damaged: {verdict}: keep a copy and ask for help before it is used on")
    return _good(f"database: {waiting} reports in the buffer")


def _port(line: LineSettings) -> bool:
    try:
        mode = line.path.stat().st_mode
    except OSError as why:
        near = sorted(str(one) for one in Path("/dev/serial/by-id").glob("*"))
        return _wrong(
            f"line {line.name}: {line.path}: {why.strerror}: plug the adapter in or correct the path"
            + (f"; there are {', '.join(near)}" if near else "")
        )
    if not stat.S_ISCHR(mode):
        return _wrong(f"line {line.name}: {line.path} is not a serial port: correct the path")
    if not os.access(line.path, os.R_OK | os.W_OK):
        return _wrong(f"line {line.name}: {line.path}: this user may not use it: add it to the group dialout")
    return _good(f"line {line.name}: {line.path} is there")
