"""Modules that are needed once leave memory when they are done.

Two things hold a module: sys.modules, and the attribute of its package that the import made. So does every object
that was made of its classes, and every function of it that is kept: those who unload see to that.
"""

import gc
import sys


def unload(name: str) -> None:
    """Forgets a module, "module" or "package.module"; nothing happens when it is not loaded."""
    if name in sys.modules:
        del sys.modules[name]
        package, _, module = name.rpartition(".")
        if package in sys.modules and hasattr(sys.modules[package], module):
            delattr(sys.modules[package], module)
    gc.collect()
