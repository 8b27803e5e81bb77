"""Releases: what boards may be sent, verified in full and on disk before anybody is told of it.

A board judges a release by itself, but what a board has judged bad has cost its line minutes, and its flash wear. So
here everything is judged that can be: the signatures, by enough release keys of the trust in force; the index, by its
digest in the manifest; every file, by its digest in the index; sizes and paths. What the board knows better is left to
it: its hardware class, its floor.

In which order, for add():

1. The file is judged in memory. What is refused leaves nothing behind.
2. It is written under a name that nobody looks for, and synced.
3. It is renamed to its digest, and the directory is synced.
4. Only then release() finds it, and boards get it.

Killed in between, there is the file under its digest, whole, or there is not. Leftovers of 2 are taken away by the next
add(). Each time a file is read it is judged again: a card may have changed it, and the trust may have changed.
What is refused then stays where it is, with an alarm, until the same release comes again or somebody removes it.

Reports come first: a release is not stored where it would leave less than LEAVE_FREE_BYTES, and there are at most
MAX_RELEASES of them.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path

from laterne_gateway import primitives
from laterne_gateway.health import Health
from laterne_protocol import fields, release_file, trust
from laterne_protocol.errors import WireError

log = logging.getLogger("laterne")

SUBJECT = "releases"
FOLDER = "releases"  # in the gateway's directory
SUFFIX, UNFINISHED = ".laterne", ".new"
MAX_RELEASES = 8  # 8 MiB; a campaign needs the one that boards run and the one that they get
MAX_LOADED = 3  # in memory, 0.5 MiB each at most: two of a campaign, and one that goes the other way
LEAVE_FREE_BYTES = 16 * 1024 * 1024  # of the disk: the buffer stops at 4 MiB


class ReleaseError(Exception):
    """A release cannot be stored; the sentence says what to do."""


class Release:
    """A release as boards get it. digest: 16 bytes. items: severed envelope, index, files in the order of the index.

    paths: of the files, those of items[2:].
    """

    def __init__(self, judged: release_file.Release) -> None:
        self.digest = judged.digest
        self.version = judged.head.version
        self.sequence = judged.manifest.sequence
        self.paths = tuple(path for path, _, _ in judged.entries)
        index = judged.manifest.index
        assert index is not None
        self.items = (judged.severed, index, *(judged.contents[digest] for _, _, digest in judged.entries))
        self._at = {path: number for number, path in enumerate(self.paths, 2)}

    @property
    def size(self) -> int:
        """Bytes of all items together."""
        return sum(map(len, self.items))

    def same(self, newer: "Release", item: int) -> bytes | None:
        """What this release has in the place of that item of a newer one, to make a patch against; None: nothing."""
        if item == 0:
            return None
        if item == 1:
            return self.items[1]
        at = self._at.get(newer.paths[item - 2])
        return None if at is None else self.items[at]


def judged(data: bytes, trusted: trust.Trust) -> release_file.Release:
    """The release in a file, once it is found to be whole and signed by enough release keys. Raises WireError."""
    found = release_file.release_of(data)
    found.require_signed(trusted, primitives.valid)
    return found


class Releases:
    """The store. directory: the gateway's. trusted: gives the trust in force.

    One process writes at a time and any may read: `laterne-gateway release add` may add while the gateway runs, which
    finds what it needs by its name.
    """

    def __init__(self, directory: Path, trusted: Callable[[], trust.Trust], health: Health) -> None:
        self._folder = directory / FOLDER
        self._trusted = trusted
        self._health = health
        self._loaded: OrderedDict[bytes, tuple[trust.Trust, Release]] = OrderedDict()
        self._loading = asyncio.Lock()

    def has(self, digest: bytes) -> bool:
        """Whether there is a file for this release; whether it is good release() says."""
        return self._file(digest).exists()

    async def release(self, digest: bytes) -> Release | None:
        """The release with this digest if it is here, whole and signed. digest: 16 bytes."""
        async with self._loading:
            trusted = self._trusted()
            found = self._loaded.get(digest)
            if found is not None and found[0] is trusted:
                self._loaded.move_to_end(digest)
                return found[1]
            self._loaded.pop(digest, None)
            if not self.has(digest):
                return None
            release = await asyncio.to_thread(self._load, digest, trusted)
            if release is not None:
                self._loaded[digest] = trusted, release
                while len(self._loaded) > MAX_LOADED:
                    self._loaded.popitem(last=False)
            return release

    async def add(self, data: bytes, keep: Collection[bytes], only: bytes | None = None) -> bytes:
        """As add_file(), beside the loop: a card may take a second for it, and reports go on."""
        digest = await asyncio.to_thread(self.add_file, data, keep, only)
        self._loaded.pop(digest, None)
        return digest

    def add_file(self, data: bytes, keep: Collection[bytes] | None = None, only: bytes | None = None) -> bytes:
        """Judges and stores a release file; it is on disk when this returns. Its digest.

        keep: releases that may not make room for it; None: none makes room. only: the digest that was asked for: no
        other release is stored in its place, or others would make room for what nobody wants. Raises ReleaseError.
        """
        try:
            found = judged(data, self._trusted())
        except WireError as why:
            raise ReleaseError(f"refused: {why}") from why
        if only not in (None, found.digest):
            raise ReleaseError(f"what lies under this name is {found.digest.hex()}")
        try:
            self._store(found.digest, data, keep)
        except OSError as why:
            raise ReleaseError(f"cannot be stored ({why.strerror}): look at the disk") from why
        log.info("%s: %s is stored, sequence %d", SUBJECT, found.head.version, found.manifest.sequence)
        return found.digest

    def stored(self) -> list[bytes]:
        """The digests of all files, the one that came last at the end."""
        return [bytes.fromhex(file.stem) for file in self._files()]

    def remove(self, digest: bytes) -> bool:
        """Takes one away. Whether it was there. Raises OSError."""
        self._loaded.pop(digest, None)
        try:
            self._file(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def read(self, digest: bytes) -> release_file.Release:
        """The whole release, judged, for people. Raises WireError, OSError."""
        return judged(_read_bounded(self._file(digest)), self._trusted())

    def _load(self, digest: bytes, trusted: trust.Trust) -> Release | None:
        alarm = digest.hex()
        try:
            found = judged(_read_bounded(self._file(digest)), trusted)
        except (OSError, WireError) as why:
            self._health.count(SUBJECT, "refused when read")
            self._health.alarm(
                SUBJECT,
                alarm,
                f"{digest.hex()} is not sent to boards: {why}; remove it, or bring it again (laterne-gateway release)",
            )
            return None
        if found.digest != digest:
            self._health.count(SUBJECT, "refused when read")
            self._health.alarm(SUBJECT, alarm, f"the file of {digest.hex()} holds {found.digest.hex()}: remove it")
            return None
        self._health.clear(SUBJECT, alarm)
        return Release(found)

    def _store(self, digest: bytes, data: bytes, keep: Collection[bytes] | None) -> None:
        self._folder.mkdir(mode=0o755, exist_ok=True)
        for leftover in self._folder.glob(f"*{UNFINISHED}"):
            leftover.unlink(missing_ok=True)
        self._make_room(digest, len(data), keep)
        file, unfinished = self._file(digest), self._file(digest).with_suffix(UNFINISHED)
        try:
            with unfinished.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            unfinished.replace(file)
        except OSError:
            with contextlib.suppress(OSError):  # the disk is full or gone: the first error is the one to be told
                unfinished.unlink(missing_ok=True)
            raise
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_room(self, digest: bytes, size: int, keep: Collection[bytes] | None) -> None:
        others = [file for file in self._files() if bytes.fromhex(file.stem) != digest]
        while len(others) >= MAX_RELEASES:
            spare = next((one for one in others if keep is not None and bytes.fromhex(one.stem) not in keep), None)
            if spare is None:
                raise ReleaseError(f"{MAX_RELEASES} releases are stored: remove one (laterne-gateway release remove)")
            log.info("%s: %s makes room", SUBJECT, spare.stem)
            spare.unlink()
            others.remove(spare)
        if shutil.disk_usage(self._folder).free < size + LEAVE_FREE_BYTES:
            raise ReleaseError(
                f"the disk has less than {LEAVE_FREE_BYTES >> 20} MiB left, which are kept for reports: free some space"
            )

    def _file(self, digest: bytes) -> Path:
        return self._folder / f"{digest.hex()}{SUFFIX}"

    def _files(self) -> list[Path]:
        # Oldest first. What has another name is not ours: it is left alone.
        ours = [
            file
            for file in self._folder.glob(f"*{SUFFIX}")
            if len(file.stem) == 2 * fields.DIGEST_BYTES and not file.stem.strip("0123456789abcdef")
        ]
        return sorted(ours, key=lambda file: (file.stat().st_mtime_ns, file.name))


def _read_bounded(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(release_file.MAX_RELEASE_FILE_BYTES + 1)  # one more: it is refused for its size
