"""What lies in the slots of a board, and their record, as bytes for an image (firmware/README.md, "Two slots")."""

import struct
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from laterne_protocol import cbor, manifest_writing, release_file
from laterne_protocol.manifest import Envelope, envelope_of
from laterne_protocol.release_index import LOADER, Head

ENTRY = "app"
ABI = 6  # of .mpy files; mpy-cross 1.29
RECORD = "slot"
_MAGIC = b"LTR1"


@dataclass(frozen=True)
class Release:
    """What one slot holds. files: path in the slot -> bytes. trial_s: seconds, None for the board's own time."""

    files: Mapping[str, bytes]
    version: str = "0.1.0"
    sequence: int = 1
    abi: int = ABI
    trial_s: int | None = None
    signed: Envelope | None = None  # of a release that `laterne release` has built

    @classmethod
    def built(cls, found: release_file.Release) -> "Release":
        files = {path: found.contents[digest] for path, _, digest in found.entries}
        head = found.head
        return cls(files, head.version, found.manifest.sequence, head.abi, head.trial_s, found.manifest)

    @cached_property
    def index(self) -> bytes:
        if self.signed is not None and self.signed.index is not None:
            return self.signed.index
        head = Head(self.version, self.abi, len(self.files), LOADER, ENTRY, trial_s=self.trial_s)
        return manifest_writing.index_bytes(head, dict(self.files))

    @cached_property
    def envelope(self) -> bytes:
        """Without index and text; nobody need have signed it: as what a board was flashed with."""
        if self.signed is not None:
            return self.signed.severed()
        return envelope_of(manifest_writing.envelope_bytes(self.sequence, self.index), 20480).severed()

    @property
    def digest(self) -> bytes:
        return envelope_of(self.envelope).digest[:16]

    @property
    def entry(self) -> tuple[bytes, bytes, int]:
        """As it stands in the record."""
        return self.digest, sha256(self.index).digest(), self.sequence

    def in_slot(self, slot: str) -> dict[str, bytes]:
        """{path on the board: bytes}."""
        return {f"{slot}/{path}": content for path, content in self.files.items()} | {
            f"{slot}/E": self.envelope,
            f"{slot}/M": self.index,
        }


@dataclass(frozen=True)
class Record:
    """The record of the slots (firmware/laterne_firmware/slots.py says what each means)."""

    active: str = "a"
    trial: str | None = None
    attempts: int = 0
    power_ons: int = 0
    floor: int = 0
    result: tuple[int, bytes] | None = None
    slots: Mapping[str, tuple[bytes, bytes, int]] = field(default_factory=dict)
    confirmed: tuple[str, ...] = ()
    refused: bytes | None = None

    def files(self) -> dict[str, bytes]:
        """Both copies."""
        parts: dict[object, object] = {
            1: self.active, 2: self.trial, 3: self.attempts, 4: self.power_ons, 5: self.floor,
            6: self.result, 8: dict(self.slots), 9: self.confirmed, 10: self.refused,
        }  # fmt: skip
        body = cbor.encode(parts)
        content = struct.pack("<4sII", _MAGIC, len(body), crc32(body)) + body
        return {f"{RECORD}.0": content, f"{RECORD}.1": content}

    @classmethod
    def of(cls, content: bytes) -> "Record | None":
        """What stands in a copy; None when a board would not take it."""
        if len(content) < 12:
            return None
        magic, length, crc = struct.unpack("<4sII", content[:12])
        body = content[12:]
        if magic != _MAGIC or length != len(body) or crc != crc32(body):
            return None
        parts = cbor.decode(body)
        assert isinstance(parts, dict)
        return cls(
            parts[1], parts[2], parts[3], parts[4], parts[5], parts[6] and tuple(parts[6]),
            {slot: tuple(entry) for slot, entry in parts[8].items()}, tuple(parts[9]), parts[10],
        )  # fmt: skip
