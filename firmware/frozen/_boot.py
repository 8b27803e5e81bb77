"""Mounts the flash of a board with an interpreter of ours, before boot.py. It formats nothing that holds a byte.

Frozen in place of rp2's own `_boot.py`, which formats the flash after any failed mount: one read error, and keys,
backlog and both slots are gone. Here the mount is tried again; then the board runs the rescue, which is frozen, too, on
a file system in RAM, and the flash stays as it is. Every start tries the mount anew. Only a chip on which every byte is
erased is new, and gets a file system. Nothing of this may fail: what comes after it expects a file system at "/".
"""

import os
import time

import rp2
import vfs

TRIES = 3
PAUSE_MS = 50
UNMOUNTED = "/unmounted"  # a file on the file system in RAM: what the loader and main.py know it by


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


def is_blank(flash: "rp2.Flash") -> bool:
    """Whether every byte is erased."""
    piece = bytearray(flash.ioctl(5, 0))
    erased = b"\xff" * len(piece)
    for block in range(flash.ioctl(4, 0)):
        flash.readblocks(block, piece)
        if piece != erased:
            return False
    return True


def mount() -> None:
    flash = rp2.Flash()
    for _ in range(TRIES):
        try:
            vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/")
            return
        except OSError as why:
            print("the flash cannot be mounted: %s" % why)
        time.sleep_ms(PAUSE_MS)
    if is_blank(flash):
        vfs.VfsLfs2.mkfs(flash, progsize=256)
        vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/")
        return
    print("the flash stays as it is: rescue")
    ram = Ram()
    vfs.VfsLfs2.mkfs(ram, readsize=32, progsize=32, lookahead=32)
    vfs.mount(vfs.VfsLfs2(ram, readsize=32, progsize=32, lookahead=32), "/")
    with open(UNMOUNTED, "wb"):
        pass


mount()
os.chdir("/")
