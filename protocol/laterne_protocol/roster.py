"""Which boards a gateway may serve: a list signed by the roster key (protocol/README.md, 7).

A roster replaces the one before it whole. A gateway takes none with a lower version than it has seen, and none that
names another gateway. Parse and verify with `cose` under laterne/roster/1, then read the payload with this module.
"""

import hashlib

from laterne_protocol import cbor, credential, fields
from laterne_protocol.errors import ObjectError

MAX_ROSTER_BYTES = 65536
MAX_BOARDS = 256
MAX_REVOKED = 256
MAX_REASON_BYTES = 64

_DEGREES_E7 = 10_000_000


class Post:
    """Where a board hangs. name: the post's id. latitude, longitude: WGS 84, 1e-7 degrees, or both None."""

    def __init__(self, name: str, latitude: "int | None" = None, longitude: "int | None" = None) -> None:
        self.name = name
        self.latitude = latitude
        self.longitude = longitude


class Entry:
    """One board: id, public keys (64 bytes each), tier 0..2, digest of its credential (16 bytes), its post or None."""

    def __init__(
        self, board: str, sign_key: bytes, agree_key: bytes, tier: int, credential_digest: bytes, post: "Post | None"
    ) -> None:
        self.board = board
        self.sign_key = sign_key
        self.agree_key = agree_key
        self.tier = tier
        self.credential_digest = credential_digest
        self.post = post


class Roster:
    """What stands in a roster.

    gateway: for whom it is. version: higher than every one before. issued: Unix seconds, for people.
    entries: list of Entry, each board once. revoked: [board, kid, reason] of boards to refuse by name.
    former: digest() of the roster payload before it, 32 bytes, or None for the first.
    """

    def __init__(
        self,
        gateway: str,
        version: int,
        issued: int,
        entries: "list[Entry]",
        revoked: "list[tuple[str, bytes, str]]",
        former: "bytes | None",
    ) -> None:
        self.gateway = gateway
        self.version = version
        self.issued = issued
        self.entries = entries
        self.revoked = revoked
        self.former = former

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/roster/1."""
        return cbor.encode(
            {
                1: self.gateway,
                2: self.version,
                3: self.issued,
                4: [_entry_value(entry) for entry in self.entries],
                5: [[board, kid, reason] for board, kid, reason in self.revoked],
                6: self.former,
            }
        )


def digest(payload: bytes) -> bytes:
    """How a roster names the one before it: SHA-256 of its payload, 32 bytes."""
    return hashlib.sha256(payload).digest()


def roster_of(payload: bytes) -> Roster:
    """The roster in a payload whose signature has been verified. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_ROSTER_BYTES), "roster", (1, 2, 3, 4, 5, 6))
    entries = [_entry_of(item) for item in fields.array(parts[4], "boards", 0, MAX_BOARDS)]
    seen = set()
    for entry in entries:
        # A key under two names would let one board speak for another; the handshake finds a board by its agreement kid.
        for mark in (entry.board, entry.sign_key, entry.agree_key, credential.kid(entry.agree_key)):
            if mark in seen:
                raise ObjectError("board %s, or a key of it, stands twice in the roster" % entry.board)
            seen.add(mark)
    return Roster(
        fields.board_id(parts[1], "gateway id"),
        fields.integer(parts[2], "version"),
        fields.integer(parts[3], "issue time", 0, fields.MAX_UTC_S),
        entries,
        [_revoked_of(item) for item in fields.array(parts[5], "revoked boards", 0, MAX_REVOKED)],
        None if parts[6] is None else fields.byte_string(parts[6], "former roster", 32),
    )


def _entry_value(entry: Entry) -> "list[object]":
    post = None if entry.post is None else [entry.post.name, entry.post.latitude, entry.post.longitude]
    return [entry.board, entry.sign_key, entry.agree_key, entry.tier, entry.credential_digest, post]


def _entry_of(value: object) -> Entry:
    parts = fields.array(value, "board of a roster", 6, 6)
    return Entry(
        fields.board_id(parts[0]),
        fields.byte_string(parts[1], "signing key", credential.KEY_BYTES),
        fields.byte_string(parts[2], "agreement key", credential.KEY_BYTES),
        fields.integer(parts[3], "tier", credential.SOFTWARE, credential.SECURE_ELEMENT),
        fields.byte_string(parts[4], "credential digest", credential.DIGEST_BYTES),
        None if parts[5] is None else _post_of(parts[5]),
    )


def _post_of(value: object) -> Post:
    parts = fields.array(value, "post", 3, 3)
    if (parts[1] is None) != (parts[2] is None):
        raise ObjectError("a place has a latitude and a longitude, or neither")
    if parts[1] is None:
        return Post(fields.board_id(parts[0], "post id"))
    return Post(
        fields.board_id(parts[0], "post id"),
        fields.integer(parts[1], "latitude", -90 * _DEGREES_E7, 90 * _DEGREES_E7),
        fields.integer(parts[2], "longitude", -180 * _DEGREES_E7, 180 * _DEGREES_E7),
    )


def _revoked_of(value: object) -> "tuple[str, bytes, str]":
    parts = fields.array(value, "revoked board", 3, 3)
    return (
        fields.board_id(parts[0]),
        fields.byte_string(parts[1], "kid", 8),
        fields.text(parts[2], "reason", MAX_REASON_BYTES),
    )
