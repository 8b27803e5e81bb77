"""A release as a file: the signed envelope and everything that it names (protocol/README.md, 11.4).

For gateways and authorities. Boards get its parts one after the other and never see the file.
"""

import zlib
from hashlib import sha256

from laterne_protocol import cbor, fields, manifest, release_index
from laterne_protocol.errors import ObjectError, SignatureError
from laterne_protocol.manifest_writing import index_of, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_protocol.trust import Trust

MAX_RELEASE_FILE_BYTES = 1 << 20
MAX_BILL_BYTES = 1 << 18
MAX_BASE_BYTES = 1 << 17
MAX_BASE_FILES = 64
RAW, DEFLATED = 0, 1
WINDOW_BITS = 10  # what a board can hold while it inflates: 1 KiB
_NAME = "laterne release 1"
_LEVEL = 9


class Release:
    """envelope: its bytes, index and text in it. manifest: the same, taken apart. head: of the index.

    entries: (path, bytes, SHA-256) of each file. contents: {SHA-256: bytes} of all of them. bill: of materials,
    CycloneDX JSON. base: {path: bytes} of what a board gets beside the release when it is flashed, and never by an
    update. description: for people. All of it is signed, or named by a digest that is: by whom, require_signed() says.
    """

    def __init__(
        self, envelope: bytes, contents: "dict[bytes, bytes]", bill: bytes, base: "dict[str, bytes] | None" = None
    ) -> None:
        """Raises CborError, CoseError, ObjectError: not a release, or one whose parts do not belong together."""
        self.envelope = envelope
        self.contents = contents
        self.bill = bill
        self.base = base or {}  # type: dict[str, bytes]
        self.manifest = manifest.envelope_of(envelope, manifest.MAX_ENVELOPE_BYTES)
        if self.manifest.index is None or self.manifest.text is None:
            raise ObjectError("a release file holds index and text")
        if len(self.manifest.severed()) > manifest.MAX_SEVERED_BYTES:
            raise ObjectError("the envelope is longer than what a board takes")
        self.description, bill_digest, base_digest = text_of(self.manifest.text)
        if sha256(bill).digest() != bill_digest:
            raise ObjectError("the bill of materials is not the one that is signed")
        if sha256(base_bytes(self.base)).digest() != base_digest:
            raise ObjectError("the base is not the one that is signed")
        self.head, self.entries = index_of(self.manifest.index)
        for path, size, digest in self.entries:
            if digest not in contents or len(contents[digest]) != size:
                raise ObjectError("%s is not in the release" % path)
        if len(contents) != len({digest for _, _, digest in self.entries}):
            raise ObjectError("the release holds files that its index does not name")

    @property
    def digest(self) -> bytes:
        """The name of the release: the first 16 bytes of what is signed."""
        return self.manifest.digest[: fields.DIGEST_BYTES]

    @property
    def severed(self) -> bytes:
        """The envelope as boards get it."""
        return self.manifest.severed()

    def to_bytes(self) -> bytes:
        """The file. Deflated where that is smaller; the digests are those of what comes out."""
        items: list[object] = []
        for digest in sorted(self.contents):
            packed = deflated(self.contents[digest])
            whole = self.contents[digest]
            items.append([DEFLATED, packed] if len(packed) < len(whole) else [RAW, whole])
        return cbor.encode([_NAME, self.envelope, items, deflated(self.bill, 15), deflated(base_bytes(self.base), 15)])

    def require_signed(self, trust: "Trust", valid: "Callable[[bytes, bytes, bytes], bool]") -> None:
        """That enough release keys of this trust have signed. valid(key, message, signature). Raises SignatureError."""

        def at_once(key: bytes, message: bytes, signature: bytes) -> "manifest.Verification":
            return valid(key, message, signature)
            yield

        keys = trust.keys["release"]
        for _ in manifest.verified(self.manifest, keys, trust.release_threshold, at_once):
            raise SignatureError("there are no steps to wait for")


def release_of(data: bytes) -> Release:
    """The release in a file, complete and consistent, its signatures not verified.

    Raises CborError, CoseError, ObjectError.
    """
    value = cbor.decode(data, MAX_RELEASE_FILE_BYTES, (), 2 + 3 * (release_index.MAX_FILES + 1))
    parts = fields.array(value, "release file", 5, 5)
    if parts[0] != _NAME:
        raise ObjectError("not a release file of ours")
    envelope = fields.byte_string(parts[1], "envelope", 1, manifest.MAX_ENVELOPE_BYTES)
    contents = {}  # type: dict[bytes, bytes]
    former = b""
    for item in fields.array(parts[2], "contents", 1, release_index.MAX_FILES):
        pair = fields.array(item, "content", 2, 2)
        packed = fields.byte_string(pair[1], "content", 0, release_index.MAX_FILE_BYTES)
        if fields.integer(pair[0], "encoding", RAW, DEFLATED) == DEFLATED:
            content = inflated(packed, release_index.MAX_FILE_BYTES, WINDOW_BITS)
        else:
            content = packed
        digest = sha256(content).digest()
        if contents and digest <= former:
            raise ObjectError("the contents of a release are not in the order of their digests")
        former = digest
        contents[digest] = content
    bill = fields.byte_string(parts[3], "bill of materials", 1, MAX_BILL_BYTES)
    packed = fields.byte_string(parts[4], "base", 1, MAX_BASE_BYTES)
    base = cbor.decode(inflated(packed, MAX_BASE_BYTES, 15), MAX_BASE_BYTES, (), MAX_BASE_FILES)
    if not isinstance(base, dict):
        raise ObjectError("the base is not a map")
    for path in base:
        release_index.path_of(path)
        fields.byte_string(base[path], "file of the base", 0, release_index.MAX_FILE_BYTES)
    return Release(envelope, contents, inflated(bill, MAX_BILL_BYTES, 15), base)


def base_bytes(base: "dict[str, bytes]") -> bytes:
    """The base as its digest is made of it."""
    return cbor.encode(base)


def deflated(data: bytes, window_bits: int = WINDOW_BITS) -> bytes:
    """The data in zlib's format, which a board can inflate block by block."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, window_bits, 9)
    return packer.compress(data) + packer.flush()


def inflated(data: bytes, max_bytes: int, window_bits: int = WINDOW_BITS) -> bytes:
    """What was deflated, at most so many bytes of it, with at most that window. Raises ObjectError."""
    unpacker = zlib.decompressobj(window_bits)
    try:
        found = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        raise ObjectError("a content cannot be inflated")
    if len(found) > max_bytes:
        raise ObjectError("a content is larger than %d bytes" % max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise ObjectError("a content ends too early, or bytes follow it")
    return found
