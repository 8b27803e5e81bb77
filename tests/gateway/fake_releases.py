"""Releases for boards of the tests: the real envelope and file, with contents of no meaning."""

import random
from collections.abc import Sequence

from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_protocol import cose, manifest, manifest_writing, release_index
from laterne_protocol.release_file import Release

BILL = b'{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}'


def contents(seed: int = 1, files: int = 6, size: int = 3000) -> dict[str, bytes]:
    """Files that deflate a little, as compiled modules do; one is empty and one has several blocks."""
    dice = random.Random(seed)
    words = [dice.randbytes(dice.randrange(2, 9)) for _ in range(90)]
    made = {f"laterne_firmware/m{n:02}.mpy": b"".join(dice.choices(words, k=size // 5))[:size] for n in range(files)}
    return made | {"empty.mpy": b"", "laterne_protocol/long.mpy": b"".join(dice.choices(words, k=2000))[:9000]}


def unsigned(files: dict[str, bytes] | None = None, sequence: int = 2, version: str = "2.0.0") -> Release:
    """A release that nobody has signed yet."""
    files = contents() if files is None else files
    head = release_index.Head(version, 6, len(files), 1, "laterne_firmware.app")
    index = manifest_writing.index_bytes(head, files)
    text = manifest_writing.text_bytes("a release of the tests", BILL)
    envelope = manifest_writing.envelope_bytes(sequence, index, text)
    named = release_index_digests(index)
    return Release(envelope, {digest: files[path] for path, digest in named.items()}, BILL)


def release_index_digests(index: bytes) -> dict[str, bytes]:
    return {path: digest for path, _, digest in manifest_writing.index_of(index)[1]}


def signed(release: Release, *keys: Key) -> Release:
    """The same with a signature by each of these keys."""
    envelope = release.envelope
    for key in keys:
        protected = cose.protected_header(key.kid)
        found = manifest.envelope_of(envelope, manifest.MAX_ENVELOPE_BYTES)
        envelope = manifest_writing.with_signature(envelope, protected, key.signature(found.to_be_signed(protected)))
    return Release(envelope, release.contents, release.bill, release.base)


def release(
    authority: FakeAuthority,
    files: dict[str, bytes] | None = None,
    sequence: int = 2,
    version: str = "2.0.0",
    keys: Sequence[Key] | None = None,
) -> Release:
    """A release signed by the authority's release keys, or by others."""
    return signed(unsigned(files, sequence, version), *(authority.release_keys if keys is None else keys))
