"""Which release this board was ordered to fetch: it stands on flash, so that a loss of power delays it only."""

from laterne_firmware.store import Record
from laterne_protocol import cbor, fields
from laterne_protocol.errors import WireError

RECORD = "/stage"


def load() -> "tuple[bytes, int, bytes] | None":
    """Release digest (16 bytes), sequence, digest of the order (16 bytes); None when nothing is ordered."""
    try:
        items = fields.array(cbor.decode(Record(RECORD).load() or b"", 64), "ordered", 3, 3)
        return (
            fields.byte_string(items[0], "release", fields.DIGEST_BYTES),
            fields.integer(items[1], "sequence"),
            fields.byte_string(items[2], "order", fields.DIGEST_BYTES),
        )
    except WireError:
        return None


def save(release: bytes, sequence: int, order: bytes) -> None:
    """On flash when this returns. OSError when the flash refuses."""
    Record(RECORD).save(cbor.encode([release, sequence, order]))
