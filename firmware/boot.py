# Runs first at every power-on and has nothing that can fail: a board that does not get past this file is lost.
# What happens then: README.md, "At power-on".
import gc

import micropython

if hasattr(micropython, "alloc_emergency_exception_buf"):
    micropython.alloc_emergency_exception_buf(100)
gc.collect()
