"""The journal of a grant: what a technician has done with it, a signed line for each step, each naming the one before.

A line is an entry in base64 and a newline. An entry is a COSE_Sign1 under laterne/journal/1 by the technician's key
over {1: number from 1, 2: digest of the entry before it, of the grant for the first, 3: Unix seconds, 4: act,
5: content}; a digest is the first 16 bytes of SHA-256 of the COSE_Sign1.

    act         content
    1 enrol     {1: salt, 2: the board's possession, 3: its credential, 4: place or null}
    2 confirm   {1: board id, 2: digest of the credential}: the board has said that it holds it
    3 hang      {1: board id, 2: place}: it hangs there now

A place is [post, latitude, longitude], 1e-7 degrees or null. The nonce that a board signs is made of the grant's digest
and the salt (nonce()), so what it proves was proven for this grant, after it was issued.

A line is on the disk before what it says takes effect, and lines are only ever appended. A line that was torn is left
where it is; its act never began. One grant has one journal: a second one would begin at the same place.
"""

import base64
import binascii
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from laterne_protocol import cbor, cose, credential, fields
from laterne_protocol.errors import SignatureError, WireError
from laterne_provisioning import files, primitives
from laterne_provisioning.registry import Place

DOMAIN: Final = "laterne/journal/1"
ENROL, CONFIRM, HANG = 1, 2, 3
SALT_BYTES = 16
DEGREES_E7 = 10_000_000
MAX_ENTRY_BYTES = 1536  # a possession and a credential of 512 each, and what is around them
MAX_JOURNAL_BYTES = 1 << 23  # 1,000 boards of a grant, each enrolled, confirmed and hung up twice, have 2 MB


class NotAJournal(ValueError):
    """The chain is broken or somebody else has signed: the sentence says where."""


@dataclass(frozen=True)
class Enrol:
    """A board was to get this credential. salt: 16 bytes. possession, credential: COSE_Sign1."""

    salt: bytes
    possession: bytes
    credential: bytes
    place: Place | None


@dataclass(frozen=True)
class Confirm:
    """The board holds the credential with this digest (16 bytes)."""

    board: str
    digest: bytes


@dataclass(frozen=True)
class Hang:
    """The board hangs at this place."""

    board: str
    place: Place


@dataclass(frozen=True)
class Entry:
    """One step. number: from 1. former: digest of the entry before it. time: Unix seconds by the technician's clock."""

    number: int
    former: bytes
    time: int
    said: Enrol | Confirm | Hang

    def to_payload(self) -> bytes:
        """The payload to sign under laterne/journal/1."""
        said = self.said
        content: dict[object, object]
        if isinstance(said, Enrol):
            act = ENROL
            place = None if said.place is None else _items_of(said.place)
            content = {1: said.salt, 2: said.possession, 3: said.credential, 4: place}
        elif isinstance(said, Confirm):
            act, content = CONFIRM, {1: said.board, 2: said.digest}
        else:
            act, content = HANG, {1: said.board, 2: _items_of(said.place)}
        return cbor.encode({1: self.number, 2: self.former, 3: self.time, 4: act, 5: content})


def entry_of(payload: bytes) -> Entry:
    """The entry in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_ENTRY_BYTES), "entry", (1, 2, 3, 4, 5))
    act = fields.integer(parts[4], "act", ENROL, HANG)
    said: Enrol | Confirm | Hang
    if act == ENROL:
        content = fields.mapping(parts[5], "enrol", (1, 2, 3, 4))
        said = Enrol(
            fields.byte_string(content[1], "salt", SALT_BYTES),
            fields.byte_string(content[2], "possession", 1, credential.MAX_POSSESSION_BYTES),
            fields.byte_string(content[3], "credential", 1, credential.MAX_CREDENTIAL_BYTES),
            None if content[4] is None else _place_of(content[4]),
        )
    elif act == CONFIRM:
        content = fields.mapping(parts[5], "confirm", (1, 2))
        said = Confirm(
            fields.board_id(content[1]), fields.byte_string(content[2], "credential digest", credential.DIGEST_BYTES)
        )
    else:
        content = fields.mapping(parts[5], "hang", (1, 2))
        said = Hang(fields.board_id(content[1]), _place_of(content[2]))
    return Entry(
        fields.integer(parts[1], "entry number", 1),
        fields.byte_string(parts[2], "former entry", fields.DIGEST_BYTES),
        fields.integer(parts[3], "time", 0, fields.MAX_UTC_S),
        said,
    )


def digest(signed: bytes) -> bytes:
    """How the next entry names this one: SHA-256 of the COSE_Sign1, first 16 bytes."""
    return hashlib.sha256(signed).digest()[: fields.DIGEST_BYTES]


def nonce(grant_digest: bytes, salt: bytes) -> bytes:
    """What a board is asked to sign: SHA-256 of the grant's digest and a salt, first 16 bytes."""
    return hashlib.sha256(grant_digest + salt).digest()[: credential.NONCE_BYTES]


@dataclass
class Chain:
    """The entries of a journal, signed by one key, each following the one before.

    start: the digest of the grant. digests: of the entries. unread: the numbers of lines that are none.
    """

    start: bytes
    entries: list[Entry] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)

    @property
    def head(self) -> bytes:
        """What the next entry has to name."""
        return self.digests[-1] if self.digests else self.start


def read(content: bytes, start: bytes, key: bytes) -> Chain:
    """The chain in a journal's bytes. start: digest of the grant. key: the technician's, 64 bytes. Raises NotAJournal.

    A line that is no object at all was torn, if the entries go on without it: it is passed over. What is left out,
    exchanged, doubled or signed by another key ends the reading.
    """
    chain = Chain(start)
    for number, signed in _objects(content):
        if signed is None:
            chain.unread.append(number)
            continue
        try:
            parts = cose.parse(signed, MAX_ENTRY_BYTES)
            entry = entry_of(cose.verify(parts, DOMAIN, partial(primitives.is_signature, key)))
        except SignatureError as why:
            raise NotAJournal(f"line {number} is not signed by the technician's key") from why
        except WireError as why:
            raise NotAJournal(f"line {number} is no entry: {why}") from why
        if (entry.number, entry.former) != (len(chain.entries) + 1, chain.head):
            raise NotAJournal(f"line {number} (entry {entry.number}) does not follow what stands before it")
        chain.entries.append(entry)
        chain.digests.append(digest(signed))
    return chain


def start_of(content: bytes) -> bytes | None:
    """What the first entry names as what came before it: the grant's digest. Nothing is verified. None: no entry."""
    for _, signed in _objects(content):
        if signed is not None:
            try:
                return entry_of(cose.parse(signed, MAX_ENTRY_BYTES).payload).former
            except WireError:
                return None
    return None


def line_of(signed: bytes) -> bytes:
    """The line of an entry, with its newline."""
    return base64.b64encode(signed) + b"\n"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The journal for appending, for us alone; a new one, 0600, if there is none. Raises OSError.

    BlockingIOError: another command has it.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_size == 0:
            files.sync_directory(path.parent)  # its name must not be lost when its lines are not
        yield file
    finally:
        os.close(file)


def content_of(file: int) -> bytes:
    """All bytes of an open journal. Raises NotAJournal: more than one can have."""
    size = os.fstat(file).st_size
    if size > MAX_JOURNAL_BYTES:
        raise NotAJournal(f"it has more than {MAX_JOURNAL_BYTES} bytes")
    return os.pread(file, size, 0)


def append(file: int, signed: bytes) -> None:
    """Write an entry: on the disk when this returns. Raises OSError."""
    size = os.fstat(file).st_size
    # What a power cut has torn, or left without its newline, stays a line of its own.
    whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
    data = (b"" if whole else b"\n") + line_of(signed)
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)


def _objects(content: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Number and COSE_Sign1 of each line; None for a line that is no object."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        try:
            signed = base64.b64decode(line, validate=True)
            cose.parse(signed, MAX_ENTRY_BYTES)
        except (binascii.Error, WireError):
            yield number, None
        else:
            # RFC 4648, 3.5: bits that fill up the last character mean nothing, and could be changed unseen.
            yield number, signed if line_of(signed) == line + b"\n" else None


def _items_of(place: Place) -> list[object]:
    return [place.post, place.latitude, place.longitude]


def _place_of(value: object) -> Place:
    post, latitude, longitude = fields.array(value, "place", 3, 3)
    name = fields.board_id(post, "post id")
    if latitude is None and longitude is None:
        return Place(name)
    return Place(
        name,
        fields.integer(latitude, "latitude", -90 * DEGREES_E7, 90 * DEGREES_E7),
        fields.integer(longitude, "longitude", -180 * DEGREES_E7, 180 * DEGREES_E7),
    )
