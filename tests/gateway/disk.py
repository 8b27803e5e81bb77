"""A small disk of a test's own, that can be filled, fail or turn read-only: a real ext4 in a file.

It needs the right to mount; without it the tests are skipped and say so.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

SIZE_BYTES = 24 * 1024 * 1024
_GOING_DOWN = 0x8004587D  # FS_IOC_SHUTDOWN, linux/fs.h
_NO_LOG_FLUSH = 2  # what the file system has only in memory is lost, as when power fails


class Disk:
    """place: where it is mounted."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "disk"
        self._image = directory / "disk.ext4"
        self.place.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        try:
            _run("mkfs.ext4", "-q", str(self._image))
            self.mount()
        except (OSError, subprocess.CalledProcessError) as why:
            pytest.skip(f"no disk can be mounted here: {why}")

    def mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.place))

    def unmount(self) -> None:
        """Also when somebody has a file open there: whoever opens one from now on finds the next."""
        _run("umount", "-l", str(self.place))

    def fail(self) -> None:
        """From now on every read and write is an I/O error."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GOING_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def turn_read_only(self) -> None:
        """As ext4 does it after an error."""
        _run("mount", "-o", "remount,abort", str(self.place))

    def repair(self) -> None:
        """A disk that failed is mounted again; it is the failed one still while anybody has a file open on it."""
        self.unmount()
        self.mount()

    def fill(self) -> Path:
        """No byte is left. The file that takes it all."""
        ballast = self.place / "ballast"
        with ballast.open("wb", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
        return ballast


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
