"""Messages of an update: what a board has of a release, and the release in parts (protocol/README.md, 3.1).

They are messages as all others, in a module of their own because a board has it in memory for an update only; how its
answers are read stands in `messages`. This module bounds what comes; whether it is wanted is the installer's to say.
"""

from laterne_protocol import cbor, fields
from laterne_protocol.board_messages import DATA, PROGRESS, UPDATE
from laterne_protocol.errors import ObjectError

MAX_CODE_BYTES = 4096  # of a block: what a board holds of it in RAM
MAX_BLOCK_BYTES = 8192  # of content: what a board writes for it is two or three flash blocks
MAX_PART_BYTES = 900  # what a frame holds beside the rest of a data message and what a record adds
MAX_ITEM = 161  # 160 files come after envelope and index
MAX_START = 32767  # in the longest file
LEAST_WINDOW_BITS = 10  # of a decoder: what every board has memory for
NONCE_BYTES = 8

ENVELOPE, INDEX, FIRST_FILE = 0, 1, 2  # items
RAW, DEFLATED, PATCH, DEFLATED_PATCH = 0, 1, 2, 3  # encodings: 1 for deflate around it, 2 for a patch in it
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

    phase: 0..6. wanted: None or (release digest, item, start, most, have, window, behind): content from byte `start` of
    this item on, at most so many bytes, of whose code the board has so many; bits of the window of its decoder, and how
    much of the content before is in it. credit: bytes of that code that it takes now; 0: none,
    ask again later. running, staged: release digests of 16 bytes or None. sequence: of
    the running release. floor: no release below it. nonce: 8 bytes for the next order. result: None or (code, release
    digest) of the last update that came to an end.
    """

    def __init__(
        self,
        number: int,
        phase: int,
        wanted: "tuple[bytes, int, int, int, int, int, int] | None",
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
    """Gateway, not answered: a part of the code of a block.

    item, start: where the block's content begins. size: of the content, 1..8,192 bytes; it may reach into the items
    behind. encoding: RAW .. DEFLATED_PATCH. length: of the code in all, 1..4,096 bytes. offset: of these bytes in it.
    part: 1..900 bytes.
    """

    def __init__(
        self, number: int, item: int, start: int, size: int, encoding: int, length: int, offset: int, part: bytes
    ) -> None:
        self.number = number
        self.item = item
        self.start = start
        self.size = size
        self.encoding = encoding
        self.length = length
        self.offset = offset
        self.part = part

    def to_bytes(self) -> bytes:
        about = [DATA, self.number, self.item, self.start, self.size, self.encoding, self.length, self.offset]
        return cbor.encode(about + [self.part])


def question_in(kind: int, number: int, items: "list[object]") -> "Update | Data | None":
    """What the gateway says with these items. Raises ObjectError."""
    if kind == UPDATE and len(items) == 3:
        return Update(number, digest_of(items[2]))
    if kind != DATA or len(items) != 9:
        return None
    length = fields.integer(items[6], "length", 1, MAX_CODE_BYTES)
    offset = fields.integer(items[7], "offset", 0, MAX_CODE_BYTES - 1)
    part = fields.byte_string(items[8], "part", 1, MAX_PART_BYTES)
    if offset + len(part) > length:
        raise ObjectError("a part beyond the end of its block")
    return Data(
        number,
        fields.integer(items[2], "item", 0, MAX_ITEM),
        fields.integer(items[3], "start", 0, MAX_START),
        fields.integer(items[4], "size", 1, MAX_BLOCK_BYTES),
        fields.integer(items[5], "encoding", RAW, DEFLATED_PATCH),
        length,
        offset,
        part,
    )


def digest_of(value: object) -> "bytes | None":
    """The value as a release digest or None. Raises ObjectError."""
    return None if value is None else fields.byte_string(value, "release digest", fields.DIGEST_BYTES)
