"""A file system in RAM, for a board whose flash cannot be used: the rescue runs on it, and the flash stays as it is.

In memory only then. The marker tells the loader and main.py: the keys may still be there, so nobody gets a REPL.
"""

import vfs

from laterne_firmware.store import UNMOUNTED


class Ram:
    """A block device of 8 KiB: enough for the small records that a start writes."""

    def __init__(self) -> None:
        self._data = bytearray(16 * 512)

    def readblocks(self, block: int, buffer: bytearray, offset: int = 0) -> None:
        at = block * 512 + offset
        buffer[:] = self._data[at : at + len(buffer)]

    def writeblocks(self, block: int, buffer: "bytes | bytearray", offset: int = 0) -> None:
        at = block * 512 + offset
        self._data[at : at + len(buffer)] = buffer

    def ioctl(self, request: int, argument: int) -> int:
        return {4: 16, 5: 512}.get(request, 0)


def mount() -> None:
    """At "/", in place of what is mounted there."""
    try:
        vfs.umount("/")
    except OSError:
        pass  # nothing is
    ram = Ram()
    # The stubs want a base class that no interpreter has.
    vfs.VfsLfs2.mkfs(ram, readsize=32, progsize=32, lookahead=32)  # pyright: ignore[reportArgumentType]
    volume = vfs.VfsLfs2(ram, readsize=32, progsize=32, lookahead=32)  # pyright: ignore[reportArgumentType]
    vfs.mount(volume, "/")
    with open(UNMOUNTED, "wb"):
        pass
