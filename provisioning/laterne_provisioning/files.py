"""Files that are whole or not there: written beside, brought to the disk, then renamed.

Private files are 0600 and are never overwritten; public ones are 0644 and are replaced.
"""

import os
import tempfile
from pathlib import Path

PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644
PRIVATE_DIRECTORY = 0o700


def write_private(path: Path, data: bytes) -> None:
    """A new file only its owner can read. Raises FileExistsError: it is never overwritten; OSError."""
    temporary = _written_beside(path, data, PRIVATE_FILE)
    try:
        os.link(temporary, path)  # fails if there is a file, unlike rename
    finally:
        os.unlink(temporary)
    sync_directory(path.parent)


def write_public(path: Path, data: bytes) -> None:
    """A file for everybody; the one that was there stays until this one is whole. Raises OSError."""
    temporary = _written_beside(path, data, PUBLIC_FILE)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written_beside(path: Path, data: bytes, mode: int) -> str:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary
