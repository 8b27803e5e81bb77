"""What is signed of a release: a SUIT envelope in a small subset (protocol/README.md, 11).

A board holds one of at most 1,024 bytes, before it writes anything, and learns from it for whom the release is, its
place in the order of releases, and the digest of its index (`release_index`), which names all files. Nothing is
believed before verified() has ended. Commands are not executed: there is one order of them, and no other is read.
"""

from hashlib import sha256

from laterne_protocol import cbor, cose, fields, public_keys
from laterne_protocol.errors import CoseError, ObjectError, SignatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Verification = Generator[None, None, bool]

MAX_SEVERED_BYTES = 1024  # what is sent to a board
MAX_ENVELOPE_BYTES = 20480  # with its index and its text, as in a release file
MAX_INDEX_BYTES = 16384
MAX_TEXT_BYTES = 2048
MAX_SIGNATURES = 3
UUID_BYTES = 16

# UUIDs of version 5: of "laterne" in the namespace of URLs, and in that of "laterne/micropython/6": all boards that run
# bytecode of ABI 6 and have a pin map of ours. What they differ in is in the pin map, which no release holds.
VENDOR = b"\x0c\x39\x4a\xc2\x57\xea\x58\x4f\xa0\x63\xfb\xc1\x13\x54\x7f\xc5"
CLASS_ID = b"\x95\x2e\xa0\xb7\x2b\x85\x58\xb0\xab\x11\x12\xa6\x93\x1c\xb0\x9c"

_TAG_ENVELOPE, _TAG_SIGN1 = 107, 18
_AUTHENTICATION, _MANIFEST, _TEXT = 2, 3, 23
_INDEX = "#i"
_COMPONENT = b"app"
_SHA256 = -16
_MAX_ITEMS = 64


class Signature:
    """One COSE_Sign1 of an envelope. protected: its header as received. kid: 8 bytes, or b"" where none is named."""

    def __init__(self, protected: bytes, kid: bytes, signature: bytes) -> None:
        self.protected = protected
        self.kid = kid
        self.signature = signature


class Envelope:
    """An envelope taken apart, nothing verified yet.

    authentication, manifest: its two parts as received. digest: of the manifest, 32 bytes: what is signed; its first 16
    bytes are the release's name. signatures: 0..3. sequence: a board takes no lower one than it has had. vendor,
    class_id: for which boards, 16 bytes each. index_digest, index_size: of the index, 32 bytes and a number. index,
    text: None once they are severed.
    """

    def __init__(
        self,
        authentication: bytes,
        manifest: bytes,
        digest: bytes,
        signatures: "list[Signature]",
        index: "bytes | None",
        text: "bytes | None",
    ) -> None:
        self.authentication = authentication
        self.manifest = manifest
        self.digest = digest
        self.signatures = signatures
        self.index = index
        self.text = text
        self.sequence = self.index_size = 0
        self.vendor = self.class_id = self.index_digest = b""

    def to_be_signed(self, protected: bytes) -> bytes:
        """What the key signs that the header `protected` names: external_aad is empty, as SUIT wants it."""
        return cose.to_be_signed("", protected, cbor.encode([_SHA256, self.digest]))

    def severed(self) -> bytes:
        """The envelope for boards: without index and text, its signatures as they are."""
        return cbor.encode(cbor.Tag(_TAG_ENVELOPE, {_AUTHENTICATION: self.authentication, _MANIFEST: self.manifest}))


def envelope_of(data: bytes, max_bytes: int = MAX_SEVERED_BYTES) -> Envelope:
    """The envelope in these bytes.

    Raises CborError, CoseError, ObjectError: not a SUIT envelope of our subset, or digests that differ.
    """
    found = authenticated(data, max_bytes)
    read(found, _COMPONENT, _INDEX)
    if found.index_size > MAX_INDEX_BYTES:
        raise ObjectError("an index of %d bytes, at most %d are read" % (found.index_size, MAX_INDEX_BYTES))
    if found.index is not None:
        if len(found.index) != found.index_size or sha256(found.index).digest() != found.index_digest:
            raise ObjectError("the index is not the one that is signed")
    return found


def authenticated(data: bytes, max_bytes: int) -> Envelope:
    """As envelope_of(), but nothing of the manifest is read; its digest is that of the signatures, and that is all."""
    value = cbor.decode(data, max_bytes, (_TAG_ENVELOPE,), _MAX_ITEMS)
    if not isinstance(value, cbor.Tag):
        raise ObjectError("not a SUIT envelope with its tag 107")
    parts = value.value
    # Its keys are numbers and one text, which fields.mapping() has no words for.
    if not isinstance(parts, dict) or _AUTHENTICATION not in parts or _MANIFEST not in parts:
        raise ObjectError("an envelope has an authentication and a manifest")
    for key in parts:
        if key not in (_AUTHENTICATION, _MANIFEST, _TEXT, _INDEX):
            raise ObjectError("an envelope has a part that is not ours")
    manifest = fields.byte_string(parts[_MANIFEST], "manifest", 1, MAX_SEVERED_BYTES)
    authentication = fields.byte_string(parts[_AUTHENTICATION], "authentication", 1, MAX_SEVERED_BYTES)
    # Asked for by `in`: a part that is there and null has no meaning.
    index = fields.byte_string(parts[_INDEX], "index", 1, MAX_INDEX_BYTES) if _INDEX in parts else None
    text = fields.byte_string(parts[_TEXT], "text", 1, MAX_TEXT_BYTES) if _TEXT in parts else None
    items = fields.array(_decoded(authentication), "authentication", 1, 1 + MAX_SIGNATURES)
    digest = _digest_of(fields.byte_string(items[0], "digest", 1, 64))
    # Manifest draft-37, 5.3: the digest is that of the part with the head of its byte string.
    if sha256(cbor.encode(manifest)).digest() != digest:
        raise ObjectError("the manifest is not the one that is signed")
    signatures = []  # type: list[Signature]
    former = b""
    for item in items[1:]:
        signature = _signature_of(fields.byte_string(item, "signature", 1, 128))
        if signatures and signature.kid <= former:  # one key, one signature, one order of them
            raise CoseError("the signatures of an envelope are not in the order of their kids")
        former = signature.kid
        signatures.append(signature)
    return Envelope(authentication, manifest, digest, signatures, index, text)


def verified(
    envelope: Envelope, keys: "list[bytes]", threshold: int, valid: "Callable[[bytes, bytes, bytes], Verification]"
) -> "Generator[None, None, None]":
    """Ends when so many of the release keys have signed; in steps, because each signature costs a board over a second.

    keys, threshold: of a trust (8). valid(key, message, signature): steps to whether the signature is that key's.
    Raises SignatureError.
    """
    found = 0
    for one in envelope.signatures:
        for key in keys:
            # Only the key that it names, and none when there are enough. A kid stands in an envelope once.
            if found < threshold and public_keys.kid(key) == one.kid:
                cose.check_low_s(one.signature)
                if (yield from valid(key, envelope.to_be_signed(one.protected), one.signature)):
                    found += 1
                    break
    if found < threshold:
        raise SignatureError("%d of %d release keys have signed, %d are needed" % (found, len(keys), threshold))


def read(found: Envelope, component: bytes, uri: str) -> None:
    """Reads the manifest into the envelope. component, uri: what it must install, from where.

    Raises CborError, ObjectError.
    """
    parts = fields.mapping(_decoded(found.manifest), "manifest", (1, 2, 3, 7, 20), (9, _TEXT))
    fields.integer(parts[1], "version of the manifest", 1, 1)
    found.sequence = fields.integer(parts[2], "sequence", 1)
    common = fields.mapping(_decoded(parts[3]), "common part", (2, 4))
    if common[2] != [[component]]:
        raise ObjectError("the one component is not %r" % component)
    shared = _sequence_of(common[4], (20, 1, 2))
    about = fields.mapping(shared[0], "parameters", (1, 2, 3, 14))
    found.vendor = fields.byte_string(about[1], "vendor", UUID_BYTES)
    found.class_id = fields.byte_string(about[2], "class", UUID_BYTES)
    found.index_digest = _digest_of(fields.byte_string(about[3], "digest of the index", 1, 64))
    found.index_size = fields.integer(about[14], "size of the index", 1)
    _sequence_of(parts[7], (3,))
    install = _sequence_of(parts[20], (20, 21, 3))
    if fields.mapping(install[0], "parameters", (21,))[21] != uri:
        raise ObjectError("the release is not in the envelope itself")
    if 9 in parts:  # how it is started is the loader's
        fields.byte_string(parts[9], "invocation", 1, 64)
    if _TEXT in parts:
        text = _digest(parts[_TEXT])
        if found.text is not None and sha256(cbor.encode(found.text)).digest() != text:
            raise ObjectError("the text is not the one that is signed")
    elif found.text is not None:
        raise ObjectError("a text that nobody has signed")


def _sequence_of(data: object, commands: "tuple[int, ...]") -> "list[object]":
    # The arguments of these commands: exactly these, in this order, after the one component was named or not.
    items = _decoded(data)
    if not isinstance(items, list):
        raise ObjectError("a sequence of commands is not an array")
    if items[:2] == [12, 0] and items[1] is not False:
        items = items[2:]
    if len(items) != 2 * len(commands):
        raise ObjectError("not the commands of a release")
    for at, command in enumerate(commands):
        if type(items[2 * at]) is not int or items[2 * at] != command:
            raise ObjectError("not the commands of a release: %d is expected" % command)
        if command != 20:  # the others have a reporting policy, which nobody asks for here
            fields.integer(items[2 * at + 1], "reporting policy", 0, 15)
    return items[1::2]


def _signature_of(data: bytes) -> Signature:
    value = cbor.decode(data, 128, (_TAG_SIGN1,), _MAX_ITEMS)
    parts = value.value if isinstance(value, cbor.Tag) else None
    if not isinstance(parts, list) or len(parts) != 4 or parts[1] != {} or parts[2] is not None:
        raise CoseError("not a COSE_Sign1 with a detached payload and an empty unprotected header")
    protected = fields.byte_string(parts[0], "protected header", 1, 32)
    header = cbor.decode(protected, 32)
    if not isinstance(header, dict) or type(header.get(1)) is not int or header[1] not in (cose.ESP256, cose.ES256):
        raise CoseError("the algorithm is neither ESP256 nor ES256")
    if len(header) == 1:
        kid = b""  # nobody's: no release of ours is signed so
    elif len(header) == 2 and 4 in header:
        kid = fields.byte_string(header[4], "kid", cose.KID_BYTES)
    else:
        raise CoseError("the protected header names an algorithm and a kid, nothing else")
    return Signature(protected, kid, fields.byte_string(parts[3], "signature", cose.SIGNATURE_BYTES))


def _digest_of(data: bytes) -> bytes:
    return _digest(_decoded(data))


def _digest(value: object) -> bytes:
    parts = fields.array(value, "digest", 2, 2)
    fields.integer(parts[0], "algorithm of a digest", _SHA256, _SHA256)
    return fields.byte_string(parts[1], "digest", 32)


def _decoded(data: object) -> object:
    return cbor.decode(fields.byte_string(data, "part of a manifest", 1, MAX_SEVERED_BYTES), 1024, (), _MAX_ITEMS)
