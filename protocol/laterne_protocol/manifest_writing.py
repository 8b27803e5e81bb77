"""Making releases: the index, the manifest over it, and the envelope that collects signatures (protocol/README.md, 11).

For the authority; boards load `manifest` and `release_index` only.
"""

from hashlib import sha256

from laterne_protocol import cbor, cose, fields, manifest, release_index
from laterne_protocol.errors import ObjectError

_APP, _PAYLOAD = b"app", "#i"
_EVERY_REPORT = 15  # reporting policy: what went well and what did not


def index_bytes(head: release_index.Head, files: "dict[str, bytes]") -> bytes:
    """The index of these files {path: content}. head: without their number. Raises ObjectError if out of bounds."""
    made = encoded(head, [(path, len(files[path]), sha256(files[path]).digest()) for path in sorted(files)])
    if len(made) > manifest.MAX_INDEX_BYTES:
        raise ObjectError("an index of %d bytes, at most %d are read" % (len(made), manifest.MAX_INDEX_BYTES))
    index_of(made)
    return made


def encoded(head: release_index.Head, entries: "list[tuple[str, int, bytes]]") -> bytes:
    """The index with these entries; not checked."""
    about = {1: head.version, 2: head.abi, 3: len(entries), 4: head.loader, 6: head.entry}  # type: dict[object, object]
    if head.min_sequence:
        about[5] = head.min_sequence
    if head.trial_s is not None:
        about[7] = {1: head.trial_s}
    if head.interpreters is not None:
        about[8] = [head.interpreters[0], head.interpreters[1]]
    files = [cbor.encode([path, size, digest]) for path, size, digest in entries]
    return cbor.encode([cbor.encode(about)] + files)


def index_of(data: bytes) -> "tuple[release_index.Head, list[tuple[str, int, bytes]]]":
    """Head and entries of a whole index. Raises CborError or ObjectError."""
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    head = release_index.head_of(read)
    return head, list(release_index.entries(read, head))


def text_bytes(description: str, bill_of_materials: bytes, base: bytes = b"\xa0") -> bytes:
    """The text for people, which is signed: what the release is, and the SHA-256 of what a file holds beside it.

    base: as release_file.base_bytes() makes it; an empty one if left out.
    """
    return cbor.encode({"en": {1: description, -1: sha256(bill_of_materials).digest(), -2: sha256(base).digest()}})


def text_of(data: bytes) -> "tuple[str, bytes, bytes]":
    """Description, digest of the bill of materials, digest of the base. Raises CborError or ObjectError."""
    value = cbor.decode(data, manifest.MAX_TEXT_BYTES)
    text = value.get("en") if isinstance(value, dict) and len(value) == 1 else None
    parts = fields.mapping(text, "text of a release", (1, -1, -2))
    return (
        fields.text(parts[1], "description", 1024),
        fields.byte_string(parts[-1], "digest of the bill of materials", 32),
        fields.byte_string(parts[-2], "digest of the base", 32),
    )


def envelope_bytes(
    sequence: int,
    index: bytes,
    text: "bytes | None" = None,
    vendor: bytes = manifest.VENDOR,
    class_id: bytes = manifest.CLASS_ID,
) -> bytes:
    """The envelope of an index, with nobody's signature yet."""
    digest = cbor.encode([-16, sha256(index).digest()])
    parameters = {1: vendor, 2: class_id, 3: digest, 14: len(index)}
    shared = [20, parameters, 1, _EVERY_REPORT, 2, _EVERY_REPORT]
    install = [20, {21: _PAYLOAD}, 21, 2, 3, _EVERY_REPORT]
    parts: dict[object, object] = {
        1: 1,
        2: sequence,
        3: cbor.encode({2: [[_APP]], 4: cbor.encode(shared)}),
        7: cbor.encode([3, _EVERY_REPORT]),
        20: cbor.encode(install),
    }
    if text is not None:
        parts[23] = [-16, sha256(cbor.encode(text)).digest()]
    made = cbor.encode(parts)
    signed = cbor.encode([-16, sha256(cbor.encode(made)).digest()])
    return _enveloped(cbor.encode([signed]), made, index, text)


def with_signature(data: bytes, protected: bytes, signature: bytes) -> bytes:
    """The envelope with one signature more, over to_be_signed(protected) of it. One by the same kid is replaced.

    Raises CborError, CoseError, ObjectError.
    """
    former = manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)
    header = cbor.decode(protected, 32)
    kid = header[4] if isinstance(header, dict) else b""
    kept = [(one.kid, one.protected, one.signature) for one in former.signatures if one.kid != kid]
    signed: list[object] = [cbor.encode([-16, former.digest])]
    for _, header_of_it, one_signature in sorted(kept + [(kid, protected, signature)]):
        signed.append(cbor.encode(cbor.Tag(cose.TAG_SIGN1, [header_of_it, {}, None, one_signature])))
    made = _enveloped(cbor.encode(signed), former.manifest, former.index, former.text)
    manifest.envelope_of(made, manifest.MAX_ENVELOPE_BYTES)
    return made


def _enveloped(authentication: bytes, made: bytes, index: "bytes | None", text: "bytes | None") -> bytes:
    parts: dict[object, object] = {2: authentication, 3: made}
    if text is not None:
        parts[23] = text
    if index is not None:
        parts[_PAYLOAD] = index
    return cbor.encode(cbor.Tag(107, parts))
