"""What is frozen into an interpreter of ours: its own start, the loader, and the rescue (README.md, "Two slots").

    git clone https://github.com/micropython/micropython; cd micropython/ports/rp2
    make submodules BOARD=RPI_PICO
    LATERNE_MODEL=pico make BOARD=RPI_PICO FROZEN_MANIFEST=/path/to/laterne/firmware/manifest.py

As in a slot modules have no packages there: a copy of the sources with such imports is frozen, from build/frozen.
Built and run once by hand (README.md, "Who mounts the flash"); a test runs this file as MicroPython does. Emulated
boards run the same files from a folder that stands for what is frozen (hil_tests/README.md, boot="frozen").
"""
# ruff: noqa: F821 - tools/manifestfile.py of MicroPython runs this and has include and module

import os
import shutil
import sys
from pathlib import Path

HERE = os.getcwd()  # manifestfile.py goes there before it runs this, and there is no __file__
MODEL = os.environ["LATERNE_MODEL"]  # a file in boards/

include("$(MPY_DIR)/extmod/asyncio")
module("rp2.py", base_path="$(PORT_DIR)/modules")

# These modules need nothing but Python 3.11.
sys.path[:0] = [os.path.join(HERE, "..", "provisioning"), os.path.join(HERE, "..", "protocol")]
from laterne_provisioning import firmware_sources  # noqa: E402 - only now it is found
from laterne_provisioning.compiling.flat_names import flat, flattened  # noqa: E402

_sources = firmware_sources.read(Path(HERE))
_frozen = {name + ".py": text for name, text in flattened(_sources.modules).items()}
# Instead of the port's `_boot.py`, and so that a board whose flash cannot be mounted still has them.
for _path in (Path("frozen", "_boot.py"), Path("boot.py"), Path("main.py")):
    _frozen[_path.name] = flat(Path(HERE, _path).read_bytes(), _sources.modules)
_frozen["pins.py"] = _sources.pins[MODEL]
_folder = Path(HERE, "..", "build", "frozen", MODEL)
shutil.rmtree(_folder, ignore_errors=True)
_folder.mkdir(parents=True)
for _name, _text in _frozen.items():
    (_folder / _name).write_bytes(_text)
    module(_name, base_path=str(_folder))
