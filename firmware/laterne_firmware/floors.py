"""The floor of a board that has lost its record of the slots: the highest sequence of the envelopes that lie on it.

An envelope lies in a slot since before the first file of its release does, and was verified before that. The active
slot's is not replaced, and the other one's only by that of a release at or above the floor: so one of the two is not
below the floor that was lost. It may be above it, if its release was never confirmed: going on then takes a new number.
Should both be unreadable, there is the rescue's, of the day on which the board was flashed.
"""

from laterne_firmware.memory import unload
from laterne_firmware.store import exists
from laterne_protocol.errors import WireError

_READERS = ("laterne_protocol.manifest", "laterne_protocol.public_keys", "laterne_protocol.cose")


def found() -> int:
    """0 where there is no envelope, as on boards that were flashed without an index."""
    highest = 0
    for path in ("/a/E", "/b/E", "/r/E"):
        if exists(path):
            highest = max(highest, _sequence(path))
    unload(*_READERS)
    return highest


def _sequence(path: str) -> int:
    from laterne_protocol import manifest

    try:
        with open(path, "rb") as file:
            return manifest.envelope_of(file.read(manifest.MAX_SEVERED_BYTES + 1)).sequence
    except (OSError, WireError):  # damaged: the digest in it is not that of its manifest. The other one has to do
        return 0
