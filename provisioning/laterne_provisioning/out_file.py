"""The file that a command was asked to write (-o): whole or not there, and known to be writable before work begins."""

import os
from pathlib import Path

from laterne_provisioning import files
from laterne_provisioning.errors import UsageError


def require_writable(path: Path) -> None:
    """Before anything is signed: what no file holds, such as a version, is lost. Raises UsageError."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: name a file in a directory that is there and yours.")


def write(path: Path, data: bytes) -> None:
    """A public file; one that was there is replaced. Raises UsageError."""
    try:
        files.write_public(path, data)
    except OSError as why:
        raise UsageError(f"{path} cannot be written: {why.strerror}.") from why
