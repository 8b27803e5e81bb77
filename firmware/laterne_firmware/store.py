"""Small records on flash that survive a power cut at any flash operation and a damaged file.

A record is two files, each with its own CRC. Both are written at every change, each as: write a new file, close it,
rename it over the old one. The first is always written first, so it is the newer one if they differ; when it
cannot be read the second is taken, and may be one change behind: `doubtful` says so.
Readers take missing, empty and damaged the same way: use the other copy.
"""

import os
import struct
from binascii import crc32

from micropython import const

MAX_RECORD_BYTES = 1024
UNMOUNTED = "/unmounted"  # the flash cannot be used, "/" is in RAM (ram)
_MAGIC = b"LTR1"
_HEADER = "<4sII"  # magic, length of the body, CRC-32 of the body
_HEADER_BYTES = const(12)
_NO_SUCH_FILE = const(2)  # errno


class Record:
    """One record. path: without the endings .0 and .1 of its two copies.

    doubtful: the first copy was unreadable, the body may be one change old. damaged: there were files, none readable.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.doubtful = False
        self.damaged = False

    def load(self) -> "bytes | None":
        """The body, or None when no copy can be read."""
        first, second = _read(self._path + ".0"), _read(self._path + ".1")
        self.doubtful = first is None and second is not None
        self.damaged = first is None and second is None and (exists(self._path + ".0") or exists(self._path + ".1"))
        return second if first is None else first

    def save(self, body: bytes) -> None:
        """Both copies are on flash when this returns. OSError when the flash refuses."""
        if len(body) > MAX_RECORD_BYTES:
            raise ValueError("a record of %d bytes, at most %d are read back" % (len(body), MAX_RECORD_BYTES))
        content = struct.pack(_HEADER, _MAGIC, len(body), crc32(body)) + body
        for ending in (".0", ".1"):
            replace(self._path + ending, content)
        self.doubtful = self.damaged = False

    def set_aside(self) -> None:
        """What cannot be read is kept under another name, and makes room."""
        for ending in (".0", ".1"):
            if exists(self._path + ending):
                os.rename(self._path + ending, self._path + ending + ".bad")


def replace(path: str, content: bytes) -> None:
    """The file is the old one or the new one, whatever happens: write new, close, rename."""
    with open(path + ".n", "wb") as file:
        file.write(content)
    os.rename(path + ".n", path)


def exists(path: str) -> bool:
    """Also what cannot be read: a board that took its keys for missing would make new ones over them."""
    try:
        os.stat(path)
    except OSError as why:
        return why.errno != _NO_SUCH_FILE
    return True


def free_blocks() -> int:
    """Blocks of the file system that are free, or fewer: MicroPython counts the two of each folder twice.

    So it may count more in use than there are; the difference then comes as a number of 32 bits without a sign, and
    whoever believed that would have room without an end when there is none.
    """
    status = os.statvfs("/")
    return status[3] if status[3] <= status[2] else 0


def make_directory(path: str) -> None:
    if not exists(path):
        os.mkdir(path)


def _read(path: str) -> "bytes | None":
    try:
        with open(path, "rb") as file:
            content = file.read(_HEADER_BYTES + MAX_RECORD_BYTES)
    except OSError:
        return None
    if len(content) < _HEADER_BYTES:
        return None
    magic, length, crc = struct.unpack(_HEADER, content[:_HEADER_BYTES])
    body = content[_HEADER_BYTES:]
    if magic != _MAGIC or length != len(body) or crc != crc32(body):
        return None
    return body
