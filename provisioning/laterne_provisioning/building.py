"""A directory that is there whole or not at all: filled beside its place, then renamed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from laterne_provisioning import files
from laterne_provisioning.errors import OperatorError, UsageError


@contextmanager
def built(directory: Path) -> Iterator[Path]:
    """Where to fill the authority that will be at `directory`, which must not be there yet, or be empty.

    Raises UsageError, OperatorError, and what the block raises; then `directory` is as it was before.
    """
    require_empty(directory)
    building = directory.parent / f".{directory.name}.unfinished"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir(mode=files.PRIVATE_DIRECTORY, exist_ok=True)
        lock = os.open(building, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as why:
        raise UsageError(f"No authority can be made at {directory}: {why.strerror}.") from why
    try:
        _require_ours(building, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What an interrupted command left behind was never used by anyone.
        for item in building.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        try:
            yield building
            require_empty(directory)
            os.rename(building, directory)  # replaces an empty directory, nothing else
        except BaseException:
            shutil.rmtree(building)
            raise
        files.sync_directory(directory.parent)
    except BlockingIOError as why:
        raise OperatorError(f"Another laterne command is making {directory}: wait for it.") from why
    except OSError as why:
        raise UsageError(f"No authority can be made at {directory}: {why.strerror}.") from why
    finally:
        os.close(lock)


def _require_ours(building: Path, opened: int) -> None:
    # In a directory that others can write to, such as /tmp: what is in it is going to be removed, then it holds keys.
    status = os.fstat(opened)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(f"{building} is there, and others can get at it: take it away, or choose another place.")


def require_empty(directory: Path) -> None:
    """Raises UsageError: there is something in it, or it is none."""
    try:
        if directory.exists() and next(directory.iterdir(), None) is not None:
            there = ", there is an authority in it already" if (directory / "authority.toml").exists() else ""
            raise UsageError(f"{directory} is not empty{there}: choose a new directory for the authority.")
    except NotADirectoryError as why:
        raise UsageError(f"{directory} is a file: choose a new directory for the authority.") from why
    except OSError as why:
        raise UsageError(f"No authority can be made at {directory}: {why.strerror}.") from why
