"""Messages of an update: what a board has of a release, and the release in parts (protocol/README.md, 3.1).

They are messages as all others, in a module of their own because a board has it in memory for an update only; how its
answers are read stands in `messages`. This module bounds what comes; whether it is wanted is the installer's to say.
"""

from laterne_protocol import cbor, fields
from laterne_protocol.board_messages import DATA, PROGRESS, UPDATE
from laterne_protocol.errors import ObjectError

BLOCK_BYTES = 4096  # of content; a flash block of a board. Encoded it is no longer
MAX_PART_BYTES = 900  # what a frame holds beside the rest of a data message and what a record adds
MAX_ITEM = 161  # 160 files come after envelope and index
MAX_BLOCK = 7  # of the longest file, 32,768 bytes
NONCE_BYTES = 8

ENVELOPE, INDEX, FIRST_FILE = 0, 1, 2  # items
RAW, ZLIB, PATCH, ZLIB_PATCH = 0, 1, 2, 3  # encodings: 1 for zlib around it, 2 for a patch in it
IDLE, RECEIVING, WORKING, STAGED, TRIAL, FAILED, RESCUE = 0, 1, 2, 3, 4, 5, 6  # phases


class Update:
    """Gateway: how far is your update? told: digest of a release that was heard to be healthy, 16 bytes; None: none."""

    def __init__(self, number: int, told: "bytes | None" = None) -> None:
        self.number = number
        self.told = told

    def to_bytes(self) -> bytes:
        return cbor.encode([UPDATE, self.number, self.told])


class Progress:
    """Board: so far it is, that I want next, and so much of it I can take.

    phase: 0..6. wanted: None or (release digest, item, block, offset in the encoded block). credit: bytes of data that
    the board takes now; 0: none, ask again later. running, staged: release digests of 16 bytes or None. sequence: of
    the running release. floor: no release below it. nonce: 8 bytes for the next order. result: None or (code, release
    digest) of the last update that came to an end.
    """

    def __init__(
        self,
        number: int,
        phase: int,
        wanted: "tuple[bytes, int, int, int] | None",
        credit: int,
        running: "bytes | None",
        sequence: int,
        floor: int,
        nonce: bytes,
        staged: "bytes | None" = None,
        result: "tuple[int, bytes] | None" = None,
    ) -> None:
        self.number = number
        self.phase = phase
        self.wanted = wanted
        self.credit = credit
        self.running = running
        self.sequence = sequence
        self.floor = floor
        self.nonce = nonce
        self.staged = staged
        self.result = result

    def to_bytes(self) -> bytes:
        about = [self.running, self.sequence, self.floor, self.nonce, self.staged, self.result]
        return cbor.encode([PROGRESS, self.number, self.phase, self.wanted, self.credit, about])


class Data:
    """Gateway, not answered: a part of a block.

    item, block: whose part it is. encoding: of the block, RAW .. ZLIB_PATCH. length: of the encoded block in all,
    bytes. offset: of these bytes in it. part: 1..900 bytes.
    """

    def __init__(
        self, number: int, item: int, block: int, encoding: int, length: int, offset: int, part: bytes
    ) -> None:
        self.number = number
        self.item = item
        self.block = block
        self.encoding = encoding
        self.length = length
        self.offset = offset
        self.part = part

    def to_bytes(self) -> bytes:
        return cbor.encode(
            [DATA, self.number, self.item, self.block, self.encoding, self.length, self.offset, self.part]
        )


def question_in(kind: int, number: int, items: "list[object]") -> "Update | Data | None":
    """What the gateway says with these items. Raises ObjectError."""
    if kind == UPDATE and len(items) == 3:
        return Update(number, digest_of(items[2]))
    if kind != DATA or len(items) != 8:
        return None
    length = fields.integer(items[5], "length", 1, BLOCK_BYTES)
    offset = fields.integer(items[6], "offset", 0, BLOCK_BYTES - 1)
    part = fields.byte_string(items[7], "part", 1, MAX_PART_BYTES)
    if offset + len(part) > length:
        raise ObjectError("a part beyond the end of its block")
    return Data(
        number,
        fields.integer(items[2], "item", 0, MAX_ITEM),
        fields.integer(items[3], "block", 0, MAX_BLOCK),
        fields.integer(items[4], "encoding", RAW, ZLIB_PATCH),
        length,
        offset,
        part,
    )


def digest_of(value: object) -> "bytes | None":
    """The value as a release digest or None. Raises ObjectError."""
    return None if value is None else fields.byte_string(value, "release digest", fields.DIGEST_BYTES)
