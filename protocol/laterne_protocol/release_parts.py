"""A release file cut into parts that a broker keeps, one retained message each (protocol/README.md, 11.5).

    laterne/v1/<tenant>/release/<release digest, hex>/<n>      n = 0 the head, 1.. the parts in their order

Whoever needs the release subscribes to these topics, puts the parts together and compares size and digest; then the
release is verified as any other. So a broker can at worst withhold it. For authorities and gateways only.
"""

from hashlib import sha256

from laterne_protocol import cbor, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PART_BYTES = 60_000  # with its topic below the 65,536 bytes that some brokers take at most
MAX_PARTS = 64
MAX_HEAD_BYTES = 64
MAX_WHOLE_BYTES = 1 << 20
_SHA256_BYTES = 32


def parts_of(whole: bytes) -> "Iterator[bytes]":
    """The messages for a release file of 1..MAX_WHOLE_BYTES bytes: the head, then the parts 1, 2, ..."""
    starts = range(0, len(whole), MAX_PART_BYTES)
    yield cbor.encode([len(starts), len(whole), sha256(whole).digest()])
    for start in starts:
        yield whole[start : start + MAX_PART_BYTES]


def head_of(data: bytes) -> "tuple[int, int, bytes]":
    """How many parts follow, how many bytes they are together, and their SHA-256. Raises CborError or ObjectError."""
    parts, size, digest = fields.array(cbor.decode(data, MAX_HEAD_BYTES), "head of a release's parts", 3, 3)
    return (
        fields.integer(parts, "number of parts", 1, MAX_PARTS),
        fields.integer(size, "size", 1, MAX_WHOLE_BYTES),
        fields.byte_string(digest, "digest", _SHA256_BYTES),
    )


def topic(tenant: str, release: bytes, part: "int | str") -> str:
    """The topic of one part; "+" for all of them. release: its digest, 16 bytes."""
    return "laterne/v1/%s/release/%s/%s" % (tenant, release.hex(), part)
