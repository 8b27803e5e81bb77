# Runs first at every power-on and has nothing that can fail: a board that does not get past this file is lost.
# What happens then: README.md, "At power-on".
import micropython

micropython.kbd_intr(-1)  # main.py lets Ctrl-C in again, if the board is not enrolled
import gc  # noqa: E402 - Ctrl-C is kept out before anything else

if hasattr(micropython, "alloc_emergency_exception_buf"):
    micropython.alloc_emergency_exception_buf(100)
gc.collect()
