"""The one gateway that this board knows, as it stands on flash. Loaded at the start and for handshakes.

The record: digest of the credential by which the gateway was introduced, kid of its agreement key, its id, that key,
kid of the roster key that vouches for it, first and last version of the trust under which the credential is valid.
"""

from laterne_firmware.store import Record
from laterne_protocol import cbor, fields
from laterne_protocol.errors import WireError

_PATH = "/k/gateway"
_MAX_BYTES = 256


class KnownGateway:
    """What the record says; kids have 8 bytes, agree_key 64. versions: (first, last)."""

    def __init__(
        self, digest: bytes, kid: bytes, gateway: str, agree_key: bytes, signer: bytes, versions: "tuple[int, int]"
    ) -> None:
        self.digest = digest
        self.kid = kid
        self.gateway = gateway
        self.agree_key = agree_key
        self.signer = signer
        self.versions = versions

    def save(self) -> None:
        """On flash when this returns."""
        first, last = self.versions
        items = [self.digest, self.kid, self.gateway, self.agree_key, self.signer, first, last]
        Record(_PATH).save(cbor.encode(items))


def load() -> "KnownGateway | None":
    """None when none was ever introduced, or it was forgotten, or flash has lost it: then it must be introduced."""
    try:
        items = fields.array(cbor.decode(Record(_PATH).load() or b"", _MAX_BYTES), "gateway", 7, 7)
        return KnownGateway(
            fields.byte_string(items[0], "digest", fields.DIGEST_BYTES),
            fields.byte_string(items[1], "kid", 8),
            fields.board_id(items[2], "gateway"),
            fields.byte_string(items[3], "agreement key", 64),
            fields.byte_string(items[4], "signer", 8),
            (fields.integer(items[5], "first version"), fields.integer(items[6], "last version")),
        )
    except WireError:
        return None


def forget() -> None:
    """From now on none is known."""
    Record(_PATH).save(b"")
