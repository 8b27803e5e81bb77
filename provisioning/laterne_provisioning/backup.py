"""The whole authority in one file, and back: a tar whose first member names the digests of all others.

Packed while the registry's lock is held, so that registry and audit log are of one moment. Private keys go in as they
are on the disk: encrypted. Keys that live elsewhere (a stick, a token, the roots' safes) are not in it.

The digests find what a medium has spoiled. They do not find a forger, who would write new ones: what is in the
authority's files is protected by its own signatures (trust.cbor, audit.log, credentials, rosters).
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from laterne_provisioning import audit, audit_check, authority, building, files
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError

FORMAT = 1
CONTENTS: Final = "backup.json"
MAX_CONTENTS_BYTES = 1 << 20
MAX_MEMBERS = 10_000
MAX_BACKUP_BYTES = 4 << 30  # a registry of 100,000 boards has 200 MB

# How far the roster versions jump when nobody says what was given out after the backup: a roster an hour for more
# than a year. Gateways count to 2^53, so it costs nothing but round numbers.
VERSION_MARGIN = 10_000

_PLAIN_KEY = re.compile(rb"-----BEGIN (?!ENCRYPTED )[A-Z ]*PRIVATE KEY-----")  # RFC 7468, 10 and 11; also SEC 1's


@dataclass(frozen=True)
class Member:
    """A file of the authority. name: its path within the directory. public: whether everybody may read it."""

    name: str
    content: bytes
    public: bool


@dataclass(frozen=True)
class Packed:
    """A backup. elsewhere: the URIs of keys that are not in it."""

    body: bytes
    members: tuple[str, ...]
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """What a restore has come to. made: when the backup was made. floor: no roster gets a lower version."""

    authority: Authority
    made: str
    floor: int
    wrong: tuple[str, ...]


def pack(opened: Authority, out: Path, plain_keys: bool) -> Packed:
    """The backup of an authority, and the record of it. out: for the record.

    plain_keys: whether keys that are not encrypted may go in. Raises UsageError, OperatorError.
    """
    with opened.registry() as registry, registry.transaction():
        members = _files(opened.directory)
        bare = [member.name for member in members if _PLAIN_KEY.search(member.content)]
        if bare and not plain_keys:
            raise UsageError(
                f"{', '.join(bare)}: not encrypted, and whoever has the backup would have them. Give "
                "--include-plain-keys if that is meant."
            )
        inside = {member.name for member in members}
        elsewhere = tuple(place.uri for place in opened.places if place.uri.removeprefix("file2:") not in inside)
        opened.log.append("backup", out.name, {"members": len(members) + 2, "plain_keys": list(bare)})
        members.append(Member(audit.LOG, opened.log.read(), False))
        members.append(Member(authority.REGISTRY, registry.copy(), False))
    made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Packed(_tar(opened.name, made, members), tuple(member.name for member in members), elsewhere)


def restore(backup: Path, directory: Path, at_least: int | None) -> Restored:
    """Bring a backup back into a directory that is not there, or empty.

    at_least: the lowest version of the next roster of any gateway; None for a jump by VERSION_MARGIN.
    Raises UsageError, OperatorError; then the directory is as it was before.
    """
    made, members = _read(backup)
    directory = directory.resolve()
    with building.built(directory) as place:
        for member in members:
            path = place / member.name
            for parent in reversed(path.relative_to(place).parents[:-1]):
                (place / parent).mkdir(mode=files.PRIVATE_DIRECTORY, exist_ok=True)
            (files.write_public if member.public else files.write_private)(path, member.content)
        opened = authority.open_authority(place)
        with opened.registry() as registry, registry.transaction():
            found = audit_check.check(opened.log.read(), opened.trusted)
            audit_check.compare(found, registry)
            newest = max((version for _, version, _ in registry.rosters()), default=0)
            floor = max(
                newest + 1,
                registry.roster_floor(),
                (newest // VERSION_MARGIN + 2) * VERSION_MARGIN if at_least is None else at_least,
            )
            opened.log.append("restore", backup.name, {"made": made, "roster_version_at_least": floor})
            registry.raise_roster_floor(floor)
    return Restored(authority.open_authority(directory), made, floor, tuple(reason for _, reason in found.wrong))


def _files(directory: Path) -> list[Member]:
    members = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if hidden or path.is_dir() or name in (authority.REGISTRY, f"{authority.REGISTRY}-journal", audit.LOG):
            continue
        try:
            if path.is_symlink() or not path.is_file():
                raise UsageError(f"{path} is no plain file: take it out of the authority's directory, then repeat.")
            members.append(Member(name, path.read_bytes(), bool(path.stat().st_mode & 0o004)))
        except OSError as why:
            raise UsageError(f"{path} cannot be read: {why.strerror}.") from why
    return members


def _tar(name: str, made: str, members: list[Member]) -> bytes:
    contents = {
        "format": FORMAT,
        "authority": name,
        "made": made,
        "members": [
            {
                "name": member.name,
                "bytes": len(member.content),
                "sha256": hashlib.sha256(member.content).hexdigest(),
                "public": member.public,
            }
            for member in members
        ],
    }
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        first = Member(CONTENTS, json.dumps(contents, indent=1).encode(), False)
        for member in (first, *members):
            entry = tarfile.TarInfo(member.name)
            entry.size = len(member.content)
            entry.mode = files.PUBLIC_FILE if member.public else files.PRIVATE_FILE
            entry.mtime = int(datetime.fromisoformat(made).timestamp())
            tar.addfile(entry, io.BytesIO(member.content))
    return whole.getvalue()


def _read(backup: Path) -> tuple[str, list[Member]]:
    try:
        if backup.stat().st_size > MAX_BACKUP_BYTES:
            raise UsageError(f"{backup} is too large for a backup of ours: name the right file.")
        with tarfile.open(backup, "r:") as tar:
            entries = [(entry, _content(tar, entry)) for entry in tar.getmembers()]
    except OSError as why:
        raise UsageError(f"The backup cannot be read: {why.strerror or why}: {backup}") from why
    except (tarfile.TarError, EOFError, ValueError) as why:
        raise OperatorError(f"{backup} is no whole backup ({why}): take another copy.") from why
    if not entries or entries[0][0].name != CONTENTS:
        raise OperatorError(f"{backup} is no backup of laterne: its first member is not {CONTENTS}.")
    made, listed = _contents(backup, entries[0][1])
    found = {entry.name: content for entry, content in entries[1:]}
    for name in sorted(found.keys() ^ listed.keys()):
        raise OperatorError(f"{backup} is damaged: {name} is {'not listed' if name in found else 'missing'}.")
    if len(found) != len(entries) - 1:
        raise OperatorError(f"{backup} is damaged: a member is there twice. Take another copy.")
    members = []
    for name, (digest, public) in listed.items():
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise OperatorError(f"{backup} is damaged: {name} is not what was packed. Take another copy.")
        members.append(Member(name, found[name], public))
    return made, members


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    path = PurePosixPath(entry.name)
    if (
        not entry.isreg()
        or entry.issparse()
        or path.is_absolute()
        or ".." in path.parts
        or path.as_posix() != entry.name
    ):
        raise ValueError(f"a member {entry.name!r}")
    file = tar.extractfile(entry)
    content = b"" if file is None else file.read()
    if len(content) != entry.size:
        raise EOFError(f"{entry.name} ends early")
    return content


def _contents(backup: Path, data: bytes) -> tuple[str, Mapping[str, tuple[str, bool]]]:
    try:
        contents = json.loads(data[:MAX_CONTENTS_BYTES])
        if contents["format"] != FORMAT:
            raise UsageError(f"{backup} has the format {contents['format']!r}, this program knows {FORMAT}.")
        datetime.fromisoformat(contents["made"])
        listed = {}
        for item in contents["members"][:MAX_MEMBERS]:
            listed[str(item["name"])] = (str(item["sha256"]), bool(item["public"]))
        return str(contents["made"]), listed
    except (ValueError, KeyError, TypeError, RecursionError) as why:
        raise OperatorError(f"{backup} is damaged: its list of members cannot be read. Take another copy.") from why
