"""What is fuzzed of releases: envelopes, the manifest behind their digest, indexes, release files."""

import functools
import hashlib
import io
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz import envelopes
from tests.fuzz.corpus import good, of_vectors, vectors

from laterne_gateway import primitives
from laterne_protocol import cbor, manifest, manifest_writing, release_file, release_index
from laterne_protocol.errors import SignatureError, WireError
from laterne_protocol.release_file import Release

FILES = {"laterne_firmware/__init__.mpy": b"", "laterne_firmware/app.mpy": b"M\x06\x00\x1f" * 200, "a/b.mpy": b"xyz"}


@functools.cache
def release_keys() -> list[bytes]:
    named = {key for one in vectors("envelope") for key in one.get("more", {}).get("keys", [])}
    return [bytes.fromhex(key) for key in sorted(named)]


@functools.cache
def signed_digests() -> frozenset[bytes]:
    """Of all manifests that a release key has signed: they stand in the vectors."""
    found = [manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES) for data in good("envelope")]
    return frozenset(one.digest for one in found if one.signatures and is_signed(one))


def is_signed(envelope: manifest.Envelope, threshold: int = 1) -> bool:
    def valid(key: bytes, message: bytes, signature: bytes) -> "manifest.Verification":
        return primitives.valid(key, message, signature)
        yield

    try:
        for _ in manifest.verified(envelope, release_keys(), threshold, valid):
            raise AssertionError("no steps")
    except SignatureError:
        return False
    return True


def again(found: manifest.Envelope) -> bytes:
    parts: dict[object, object] = {2: found.authentication, 3: found.manifest}
    if found.text is not None:
        parts[23] = found.text
    if found.index is not None:
        parts["#i"] = found.index
    return cbor.encode(cbor.Tag(107, parts))


def read_envelope(data: bytes) -> None:
    """No changed manifest, index or text is ever under a signature of ours."""
    found = manifest.envelope_of(data, manifest.MAX_ENVELOPE_BYTES)
    assert again(found) == data
    if is_signed(found):
        assert found.digest in signed_digests(), "forged"
    if found.index is not None:
        assert hashlib.sha256(found.index).digest() == found.index_digest
    severed = manifest.envelope_of(found.severed())
    assert (severed.digest, severed.sequence, severed.index) == (found.digest, found.sequence, None)


@functools.cache
def severed() -> bytes:
    """An envelope as boards get it, signed by two keys of two."""
    (found,) = [one for one in vectors("envelope") if one["name"] == "the same severed"]
    return bytes.fromhex(found["hex"])


def read_forged(data: bytes) -> None:
    """data: what a forger makes of the signed envelope, as a seed; none makes nothing. He never gets anything through.

    The receiver is one that needs both signatures.
    """
    made = envelopes.mutated(severed(), random.Random(data)) if data else severed()
    found = manifest.envelope_of(made)
    if not is_signed(found, 2):
        raise SignatureError("not signed by both")
    assert made == severed(), "forged"


def read_manifest(data: bytes) -> None:
    """A manifest whose digest is right: so it can be read, if not believed."""
    digest = cbor.encode([-16, hashlib.sha256(cbor.encode(data)).digest()])
    made = cbor.encode(cbor.Tag(107, {2: cbor.encode([digest]), 3: data}))
    found = manifest.envelope_of(made, manifest.MAX_ENVELOPE_BYTES)
    assert again(found) == made
    assert (len(found.vendor), len(found.class_id), len(found.index_digest)) == (16, 16, 32)
    assert found.sequence > 0
    assert 0 < found.index_size <= manifest.MAX_INDEX_BYTES
    assert not is_signed(found)


def read_index(data: bytes) -> None:
    source = io.BytesIO(data)
    head = release_index.head_of(source.read)
    found = list(release_index.entries(source.read, head))
    assert manifest_writing.encoded(head, found) == data
    for path, size, _ in found:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert path == path.lower()
        assert 0 <= size <= release_index.MAX_FILE_BYTES


def read_release_file(data: bytes) -> None:
    found = release_file.release_of(data)
    same = release_file.release_of(found.to_bytes())
    assert vars(same).keys() == vars(found).keys()
    for name in ("envelope", "contents", "bill", "base"):
        assert getattr(same, name) == getattr(found, name), name
    for path, size, digest in found.entries:
        assert hashlib.sha256(found.contents[digest]).digest() == digest, path
        assert len(found.contents[digest]) == size
    if is_signed(found.manifest):
        assert found.digest in {one[:16] for one in signed_digests()}, "forged"


def manifests() -> list[bytes]:
    found = []
    for data in of_vectors("envelope"):
        try:
            found.append(manifest.authenticated(data, manifest.MAX_ENVELOPE_BYTES).manifest)
        except WireError:
            continue
    return found


def release_files() -> list[bytes]:
    """A release, the same with other parts that do not belong to it, and nothing of one."""
    head = release_index.Head("0.1.0", 6, 3, 1, "laterne_firmware.app")
    bill = b'{"bomFormat": "CycloneDX"}'
    index = manifest_writing.index_bytes(head, FILES)
    base = {"boot.py": b"import gc", "pins/pico.mpy": b"M"}
    text = manifest_writing.text_bytes("Firmware", bill, release_file.base_bytes(base))
    envelope = manifest_writing.envelope_bytes(7, index, text)
    contents = {hashlib.sha256(content).digest(): content for content in FILES.values()}
    whole = Release(envelope, contents, bill, base).to_bytes()
    parts: Any = cbor.decode(whole)
    return [whole, cbor.encode([*parts[:2], parts[2][:-1], *parts[3:]]), cbor.encode([*parts[:4], b"x"]), b"\x80"]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "envelope": (read_envelope, lambda: of_vectors("envelope")),
    "forged-envelope": (read_forged, lambda: [b"", b"a", b"b", b"c"]),
    "manifest": (read_manifest, manifests),
    "index": (read_index, lambda: of_vectors("index")),
    "release-file": (read_release_file, release_files),
}
