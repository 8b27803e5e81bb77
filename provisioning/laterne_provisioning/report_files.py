"""Reports in files: a CBOR sequence (RFC 8742) of COSE_Sign1; one report alone is a sequence too.

In reading, what cannot be read does not hide what follows: the next report is looked for, the bytes passed over are
told. In writing (Kept), what is verified is in the file at once.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from laterne_protocol import cbor, cose
from laterne_protocol.errors import WireError
from laterne_protocol.report import MAX_REPORT_BYTES
from laterne_provisioning import files
from laterne_provisioning.errors import OperatorError

READ_BYTES = 16384
# How every object of ours begins: tag 18, four parts, and the head of the protected header (protocol/README.md, 4).
_BEGINNING = bytes([0xC0 | cose.TAG_SIGN1, 0x84, 0x40 | len(cose.protected_header(bytes(cose.KID_BYTES)))])


@dataclass(frozen=True)
class Piece:
    """Bytes of a file. start: their offset. readable: whether they are a signed object, signature unchecked."""

    start: int
    body: bytes
    readable: bool


def pieces(read: Callable[[int], bytes]) -> Iterator[Piece]:
    """The file in pieces, none left out. read(n): up to n bytes, b"" at the end, as of a binary file."""
    held = b""
    start = 0
    ended = False
    while True:
        # Two reports' worth: what is decoded and the beginning of the next one are in view.
        while not ended and len(held) < 2 * MAX_REPORT_BYTES:
            more = read(READ_BYTES)
            ended = not more
            held += more
        if not held:
            return
        size = _object_bytes(held)
        readable = size is not None
        if size is None:
            following = held.find(_BEGINNING, 1)
            # A beginning can lie across the end of what is in view.
            size = following if following > 0 else len(held) if ended else len(held) - len(_BEGINNING) + 1
        yield Piece(start, held[:size], readable)
        held = held[size:]
        start += size


def _object_bytes(data: bytes) -> int | None:
    try:
        value, end = cbor.decode_first(data[:MAX_REPORT_BYTES], 0, MAX_REPORT_BYTES, (cose.TAG_SIGN1,))
        cose.sign1_of(value)
    except WireError:
        return None
    return end


class Kept:
    """The new file of `--save`, unbuffered: what is verified is in it at once. Raises OperatorError: it cannot be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)

    def keep(self, body: bytes) -> None:
        """Append one report."""
        left = memoryview(body)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as why:
            raise self._stopped(why) from why

    def close(self) -> None:
        """Bring it to the disk."""
        with self._file:
            try:
                os.fsync(self._file.fileno())
                files.sync_directory(self._path.parent)
            except OSError as why:
                raise self._stopped(why) from why

    def _stopped(self, why: OSError) -> OperatorError:
        return OperatorError(
            f"{self._path} cannot be written: {why.strerror}. Its last report may be cut; make room and verify again, "
            "with a new file."
        )
