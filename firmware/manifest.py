"""What is frozen into an interpreter of ours: its own start, the loader, and the rescue (README.md, "Two slots").

    git clone https://github.com/micropython/micropython; cd micropython/ports/rp2
    make submodules BOARD=RPI_PICO
    LATERNE_MODEL=pico make BOARD=RPI_PICO FROZEN_MANIFEST=/path/to/laterne/firmware/manifest.py

Built and run once by hand (README.md, "Who mounts the flash"); a test runs this file as MicroPython does. Emulated
boards run the same files from a folder that stands for what is frozen (hil_tests/README.md, boot="frozen").
"""
# ruff: noqa: F821 - tools/manifestfile.py of MicroPython runs this and has include, module and package

import os
import shutil

HERE = os.getcwd()  # manifestfile.py goes there before it runs this, and there is no __file__
MODEL = os.environ["LATERNE_MODEL"]  # a file in boards/

include("$(MPY_DIR)/extmod/asyncio")
module("rp2.py", base_path="$(PORT_DIR)/modules")
# Instead of the port's `_boot.py`, and so that a board whose flash cannot be mounted still has them.
module("_boot.py", base_path=os.path.join(HERE, "frozen"))
module("boot.py", base_path=HERE)
module("main.py", base_path=HERE)
package("laterne_firmware", base_path=HERE)
package("laterne_protocol", base_path=os.path.join(HERE, "..", "protocol"))
# The pin map has another name here than there.
_pins = os.path.join(HERE, "..", "build", "frozen", MODEL)
os.makedirs(_pins, exist_ok=True)
shutil.copy(os.path.join(HERE, "boards", MODEL + ".py"), os.path.join(_pins, "pins.py"))
module("pins.py", base_path=_pins)
