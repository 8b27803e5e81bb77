"""Releases with one file, for campaigns."""

import hashlib
from pathlib import Path

from laterne_protocol import cose, credential, manifest, manifest_writing, release_file
from laterne_protocol.release_index import LOADER, Head
from laterne_provisioning import authority as authorities
from laterne_provisioning import keys

BILL = b"{}"


def make_release(authority: Path, path: Path, sequence: int, content: bytes = b"code", signed: bool = True) -> Path:
    """A release signed by the authority's release key."""
    head = Head("2.0", 6, 0, LOADER, "laterne_firmware.app", trial_s=60)
    index = manifest_writing.index_bytes(head, {"laterne_firmware/app.mpy": content})
    envelope = manifest_writing.envelope_bytes(sequence, index, manifest_writing.text_bytes("for tests", BILL))
    if signed:
        key = authorities.open_authority(authority).signing_key("release", keys.Secrets(known=""))
        protected = cose.protected_header(credential.kid(key.public))
        found = manifest.envelope_of(envelope, manifest.MAX_ENVELOPE_BYTES)
        envelope = manifest_writing.with_signature(envelope, protected, key.sign(found.to_be_signed(protected)))
    made = release_file.Release(envelope, {hashlib.sha256(content).digest(): content}, BILL)
    path.write_bytes(made.to_bytes())
    return path
