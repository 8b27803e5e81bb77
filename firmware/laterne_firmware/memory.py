"""Modules that are needed once leave memory when they are done.

Two things hold a module: sys.modules, and the attribute of its package that the import made. So does every object
that was made of its classes, and every function of it that is kept: those who unload see to that.
"""

import gc
import sys


def unload(*names: str) -> None:
    """Forgets modules, "module" or "package.module"; nothing happens to those that are not loaded."""
    for name in names:
        if name in sys.modules:
            del sys.modules[name]
            package, _, module = name.rpartition(".")
            if package in sys.modules and hasattr(sys.modules[package], module):
                delattr(sys.modules[package], module)
    gc.collect()
