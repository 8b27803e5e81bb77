"""What runs in a board's process before boot.py, then boot.py and main.py as a board runs them.

    micropython -X heapsize=N -i start.mpy CONTROL_FD [FROZEN] SHARED_AT PENDING_AT INTERRUPT

FROZEN is a folder that stands for what is frozen into an interpreter of ours (firmware/manifest.py); its `_boot.py`
mounts the flash. Without it the flash is mounted, and formatted when that fails, as stock rp2 does. The last three are
addresses for flash.py.

The order matters: asyncio first (clock.py says why), then `time` and `machine` are replaced, littlefs is
mounted in place of the host's file system, and the emulator's own modules are taken out of reach.
"""

import gc
import sys

import control
import records
from micropython import kbd_intr as _kbd_intr

_FROZEN = "/f"


def _set_up():
    import os
    from struct import unpack_from

    import vfs

    _kbd_intr(-1)
    control.connect(int(sys.argv[1]))
    control.ask(records.HELLO)
    head = records.HEADER_BYTES
    boot = unpack_from(records.BOOT, control.reply, head)
    cause, raw, blocks, ticks, ppm, utc_s, uart_fd, paced, wrong, uid, page, block, read = boot
    image = bytes(control.reply[head + records.BOOT_BYTES : head + records.BOOT_BYTES + control.value()]).decode()

    gc.collect()
    before = gc.mem_alloc()
    import asyncio  # noqa: F401 - for its share of the heap

    gc.collect()
    # The firmware would import asyncio itself: its share of the heap is not the emulator's.
    asyncio_bytes = gc.mem_alloc() - before

    import clock

    clock._set(ticks, ppm, utc_s)
    sys.modules["time"] = clock
    import machine  # machine.py beside this file comes before the built-in module

    machine._set(cause, uid, uart_fd, paced)
    from flash import Flash, share

    share(*map(int, sys.argv[-3:]))
    if wrong:
        from bad_flash import BadFlash

        flash = BadFlash(image, blocks, page, wrong, block, read)
    else:
        flash = Flash(image, blocks, page)
    formatted = 0
    frozen = ".frozen"
    if len(sys.argv) > 5:
        frozen = _FROZEN
        vfs.umount("/")
        vfs.mount(vfs.VfsPosix(sys.argv[2]), frozen, readonly=True)
        sys.modules["rp2"] = _Chip(flash)
        sys.path[:] = ["", frozen, "/lib"]
        _run(frozen + "/_boot.py", {})
    else:
        try:
            volume = vfs.VfsLfs2(flash, progsize=page)
        except OSError:  # rp2 does the same: any failed mount formats the flash
            vfs.VfsLfs2.mkfs(flash, progsize=page)
            volume = vfs.VfsLfs2(flash, progsize=page)
            formatted = 1
        vfs.umount("/")
        vfs.mount(volume, "/")
        os.chdir("/")
    sys.path[:] = ["", frozen, "/lib"]
    sys.argv[:] = []
    for name in ("control", "records", "clock", "flash", "bad_flash", "start"):
        if name in sys.modules:
            del sys.modules[name]
    gc.collect()
    control.tell(records.READY, formatted, gc.mem_alloc() - asyncio_bytes)
    return raw


class _Chip:  # the module `rp2`
    def __init__(self, flash):
        self._flash = flash

    def Flash(self):
        return self._flash


def _run(path, names):
    # `names` are those of __main__, so that the REPL sees what boot.py and main.py defined.
    try:
        with open(path) as file:
            source = file.read()
    except OSError:
        return
    code = compile(source, path, "exec")
    source = None
    _kbd_intr(3)  # as a board does before each file
    try:
        exec(code, names)  # noqa: S102 - running boot.py and main.py is what a board does
    except SystemExit:  # `-i` would give a REPL here; a board does a soft reset
        control.end(records.END_SOFT)
    finally:
        _kbd_intr(-1)


def go(names):
    raw = _set_up()
    # What is frozen comes before what is on flash (shared/runtime/pyexec.c).
    folder = _FROZEN + "/" if _FROZEN in sys.path else ""
    try:
        _run(folder + "boot.py", names)
    except BaseException as why:  # rp2 and esp32 print it and go on with main.py
        sys.print_exception(why)
    if not raw:  # after a soft reset out of the raw REPL a board skips main.py
        _run(folder + "main.py", names)
