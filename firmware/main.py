"""Runs after boot.py: maintenance when the service switch is closed at power-on, else the firmware of a slot.

In maintenance nothing runs and no watchdog is made: `mpremote` has the board to itself. SystemExit ends here,
because on boards it would be a soft reset, which nobody asked for.
"""

import sys

SLOT = "/a"  # the place where the state record of updates will say which slot is tried


def service_switch_closed() -> bool:
    from laterne_firmware import board

    return not board.service_switch().value()


def start() -> None:
    sys.path.insert(0, SLOT)
    try:
        if service_switch_closed():
            print("maintenance: the service switch is closed, nothing runs; open it and press reset")
            return
        from laterne_firmware import app

        app.run()
    except SystemExit:
        print("maintenance: the firmware was ended, nothing runs; press reset to start it")


start()
