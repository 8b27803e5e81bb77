"""Runs after boot.py: the firmware of the slot that the loader chooses. From an enrolled board nobody gets to a REPL.

MicroPython (shared/runtime/pyexec.c) lets Ctrl-C in again before the first line of each file, and gives a REPL to
whatever ends main.py. So the first thing is to let none in. One that came before that line waits for the next jump of
the bytecode (py/vm.c): there is none before the `try`. And whatever ends this file, on an enrolled board it is a reset.

A board that is not enrolled is a technician's: Ctrl-C gives him the REPL, and with the service switch closed at
power-on nothing runs and no watchdog is made, so `mpremote` has the board to itself. SystemExit ends here, because on
boards it would be a soft reset, which nobody asked for.
"""

import micropython

micropython.kbd_intr(-1)

WATCHDOG_MS = 8000  # RP2040 counts to 8,388 at most
LOADER_BYTES = 65536  # what it takes on 64 bits with long names, and half as much again


def without_a_root_that_fails() -> None:
    # Modules are looked for on flash first, built-in ones, too: an error there would end this file, and that is a REPL.
    # Without its flash a board has what is frozen, and that is the rescue.
    try:
        import os

        import machine  # noqa: F401 - only whether it can be found

        os.listdir("/")
    except OSError as why:
        print("the flash cannot be read: %s" % why)
        import vfs

        try:
            vfs.umount("/")
        except OSError:
            pass  # it is without one already


def enrolled() -> bool:
    # Whether there is anything of a credential, also of one that was set aside. When in doubt: yes.
    import os

    try:
        if "unmounted" in os.listdir("/"):  # its flash cannot be read now (ram)
            return True
        names = os.listdir("/k")
    except OSError as why:
        return why.errno != 2  # ENOENT: it has never had keys
    for name in names:
        if name.split(".")[0] in ("credential", "name"):
            return True
    return False


def choose() -> str:
    # Which slot. The loader lies in /l, in an interpreter of our own it is frozen; nothing of it stays in memory.
    import gc
    import sys

    import machine

    def watchdog() -> machine.WDT:
        return machine.WDT(timeout=WATCHDOG_MS)

    # What the loader leaves (names, mostly) stays for good. Without this it would lie in the middle of the memory,
    # behind the loader's modules: the largest free piece was then 40 KB of 110.
    gc.collect()
    low = None
    size = gc.mem_free() - LOADER_BYTES
    while low is None and size > 0:
        try:
            low = bytearray(size)
        except MemoryError:
            size -= 1024
    before = list(sys.modules)
    sys.path.insert(0, "/l")
    slot = "/r"  # the rescue needs neither the loader nor its record
    try:
        from laterne_firmware import loader

        slot = loader.choose(enrolled(), machine.reset_cause() == machine.PWRON_RESET, watchdog)
        del loader
    except Exception as why:
        print("the loader failed: rescue")
        sys.print_exception(why)
    for name in list(sys.modules):
        if name not in before:
            del sys.modules[name]
    del low
    gc.collect()
    return slot


def run() -> None:
    import sys

    sys.path[0] = choose()
    if not enrolled():
        micropython.kbd_intr(3)
        from laterne_firmware import board

        if not board.service_switch().value():
            print("maintenance: the service switch is closed, nothing runs; open it and press reset")
            return
        del board
    from laterne_firmware import app

    app.run()


def start() -> None:
    closed = True
    try:
        try:
            without_a_root_that_fails()
            run()
        except SystemExit:
            print("maintenance: the firmware was ended, nothing runs; press reset to start it")
        except Exception as why:
            import sys

            sys.print_exception(why)  # a reset would come before MicroPython says it
    finally:
        try:
            closed = enrolled()
            if closed:
                import time

                print("the firmware has ended, the board starts again")
                time.sleep_ms(3000)  # a board that fails at once must not wear its flash
        finally:
            if closed:
                without_a_root_that_fails()
                import machine

                machine.reset()


start()
