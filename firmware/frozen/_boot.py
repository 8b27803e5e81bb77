"""Mounts the flash of a board with an interpreter of ours, before boot.py. It formats nothing that holds a byte.

Frozen in place of rp2's own `_boot.py`, which formats the flash after any failed mount: one read error, and keys,
backlog and both slots are gone. Here the mount is tried again; then the board runs the rescue, which is frozen, too, on
a file system in RAM, and the flash stays as it is. Every start tries the mount anew. Only a chip on which every byte is
erased is new, and gets a file system. Nothing of this may fail: what comes after it expects a file system at "/".

A root without a name on a chip that is not erased is a loss, too: littlefs keeps the state before in the other block of
a pair, and takes that one when the newer is damaged. On a young board that is the empty root of its formatting. Whoever
went on from there would write new keys over the old ones.
"""

import os
import time

import rp2
import vfs

TRIES = 3
PAUSE_MS = 50
SUPERBLOCKS = 2  # all that formatting writes


def is_blank(flash: "rp2.Flash", first: int = 0) -> bool:
    """Whether every byte is erased from this block on."""
    piece = bytearray(flash.ioctl(5, 0))
    erased = b"\xff" * len(piece)
    for block in range(first, flash.ioctl(4, 0)):
        if flash.readblocks(block, piece) or piece != erased:  # not 0: it cannot be read
            return False
    return True


def is_mounted(flash: "rp2.Flash") -> bool:
    volume = vfs.VfsLfs2(flash, progsize=256)
    if not list(volume.ilistdir("/")) and not is_blank(flash, SUPERBLOCKS):
        print("the root is empty, and the flash is not")
        return False
    vfs.mount(volume, "/")
    return True


def mount() -> None:
    flash = rp2.Flash()
    try:
        for _ in range(TRIES):
            try:
                if is_mounted(flash):
                    return
            except OSError as why:
                print("the flash cannot be mounted: %s" % why)
            time.sleep_ms(PAUSE_MS)
        if is_blank(flash):
            vfs.VfsLfs2.mkfs(flash, progsize=256)
            vfs.mount(vfs.VfsLfs2(flash, progsize=256), "/")
            return
    except OSError as why:
        print("the flash fails: %s" % why)
    print("the flash stays as it is: rescue")
    from laterne_firmware import ram

    ram.mount()


mount()
os.chdir("/")
