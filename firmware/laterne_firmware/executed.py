"""The order that this board executed last, as it stands on flash, and what follows from it.

Loaded at a start and while an order is worked at. The record is written once for an order, and the rename of its
first copy is the moment at which the order is executed: before, nothing of it is in force; after, everything is,
however often the power fails, because every start ends what the record says (`finish`). Beside it lie, for a time:

    next      the next keys; from TAKE on with their credential, whole before the record says that they speak
    former    the agreement key pair of before, until a gateway has accepted the present one
"""

import os

from laterne_firmware.identity import CREDENTIAL, DIRECTORY, FORMER, KEYS, NAME, ORDER
from laterne_firmware.store import Record, exists
from laterne_protocol import cbor, fields
from laterne_protocol.errors import WireError
from laterne_protocol.report import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

NEXT = "/k/next"
KEYS_BYTES = 200  # as in KEYS: two private keys of 32, two public ones of 64, a kid of 8
_KEPT_WHEN_BLANK = ("seed", "order")  # of the directory; the order goes last


class Executed:
    """board: its id when the order came. counter, order: of the order, and its digest. receipt: as it was signed.

    speaks: kid of the signing key that speaks since then, None when none does. blank: everything is to be erased.
    """

    def __init__(
        self, board: str, counter: int, order: bytes, receipt: bytes, speaks: "bytes | None", blank: bool = False
    ) -> None:
        self.board = board
        self.counter = counter
        self.order = order
        self.receipt = receipt
        self.speaks = speaks
        self.blank = blank

    def save(self) -> None:
        """On flash, and executed, when this returns. OSError when the flash refuses."""
        Record(ORDER).save(cbor.encode([self.board, self.counter, self.order, self.receipt, self.speaks, self.blank]))


def load() -> "Executed | None":
    """None when no order was ever executed, or flash has lost it."""
    try:
        items = fields.array(cbor.decode(Record(ORDER).load() or b"", 1024), "order", 6, 6)
        return Executed(
            fields.board_id(items[0]),
            fields.integer(items[1], "counter"),
            fields.byte_string(items[2], "digest", fields.DIGEST_BYTES),
            fields.byte_string(items[3], "receipt", 1, fields.MAX_RECEIPT_BYTES),
            None if items[4] is None else fields.byte_string(items[4], "kid", 8),
            items[5] is True,
        )
    except WireError:
        return None


def finish(done: Executed) -> "Generator[None, None, None]":
    """Brings all other records to what the order says, a step for each; the same again after a power cut in between."""
    if done.blank:
        yield from _erase_all()
    elif done.speaks is None:
        # Also when the first copy has been erased already: the second one may not have been.
        keys = Record(KEYS).load()
        if keys is not None:
            Record(KEYS).save(bytes(32) + keys[32:])
        else:
            erase(ORDER)  # no key is left that it could concern: the board makes new ones
        yield
        erase(NEXT)
        erase(FORMER)
    else:
        yield from _take_next(done.speaks, done.board)


def _take_next(speaks: bytes, board: str) -> "Generator[None, None, None]":
    made = Record(NEXT).load() or b""
    keys, signed = made[:KEYS_BYTES], made[KEYS_BYTES:]
    if not signed or keys[192:] != speaks:
        return  # the next keys are not taken yet, or all is done
    present = Record(KEYS).load()
    # What exists was accepted by a gateway, unlike the present pair: it stays the one to fall back on.
    if present is not None and present[192:] != speaks and not exists(FORMER + ".0"):
        Record(FORMER).save(present[96:192])
    yield
    Record(KEYS).save(keys)
    yield
    Record(CREDENTIAL).save(signed)
    yield
    Record(NAME).save(cbor.encode([speaks, board, digest(signed)]))
    yield
    erase(NEXT)  # last: while it is there, all of this is done again


def _erase_all() -> "Generator[None, None, None]":
    for path in ("/log", DIRECTORY):
        for name in os.listdir(path) if exists(path) else ():
            if path != DIRECTORY or name.split(".")[0] not in _KEPT_WHEN_BLANK:
                os.remove(path + "/" + name)
            yield
    erase("/st")
    erase(ORDER)


def erase(path: str) -> None:
    """Removes a record; its first copy, which is newer if they differ, goes last, so that no older one comes back."""
    for ending in (".0.n", ".1.n", ".1", ".0"):
        if exists(path + ending):
            os.remove(path + ending)
