"""Whether a slot is whole: its index is the one that the state record names, and every file has its size and hash.

In pieces: neither the index nor a file is ever in memory as a whole. What lies in a slot beside the files of its index
is not looked at; the installer removes it.
"""

import hashlib
import sys

from laterne_firmware.slots import DAMAGED, INDEX, UNSUITABLE
from laterne_protocol import release_index
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

_PIECE_BYTES = 512
MPY_ABI = getattr(sys.implementation, "_mpy", 0) & 0xFF  # 0 without .mpy files: CPython


def whole(folder: str, index: bytes) -> "Generator[None, None, int]":
    """0 if the slot in this folder is whole and fits this board, else DAMAGED or UNSUITABLE; a step for each piece.

    index: SHA-256 of its index. Reads only.
    """
    piece = bytearray(_PIECE_BYTES)
    try:
        found, _ = yield from _digest(folder + INDEX, piece)
        if found != index:
            return DAMAGED
        with open(folder + INDEX, "rb") as file:
            head = release_index.head_of(file.read)
            if not fits(head):
                return UNSUITABLE
            for path, size, digest in release_index.entries(file.read, head):
                if (yield from _digest(folder + "/" + path, piece)) != (digest, size):
                    return DAMAGED
    except (OSError, WireError):
        return DAMAGED
    return 0


def fits(head: release_index.Head) -> bool:
    """Whether this interpreter and this loader can run a release; head: of its index."""
    if head.abi != MPY_ABI or head.loader != release_index.LOADER:
        return False
    if head.interpreters is None:
        return True
    major, minor, patch = sys.implementation.version[:3]
    return head.interpreters[0] <= major * 10000 + minor * 100 + patch <= head.interpreters[1]


def _digest(path: str, piece: bytearray) -> "Generator[None, None, tuple[bytes, int]]":
    made = hashlib.sha256()
    size = 0
    view = memoryview(piece)
    with open(path, "rb") as file:
        while True:
            yield
            count = file.readinto(piece)
            if not count:
                return made.digest(), size
            made.update(view[:count])
            size += count
