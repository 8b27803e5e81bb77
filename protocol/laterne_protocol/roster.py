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
MAX_FORMER_KEYS = 2

_DEGREES_E7 = 10_000_000


class Post:
    """Where a board hangs. name: the post's id. latitude, longitude: WGS 84, 1e-7 degrees, or both None."""

    def __init__(self, name: str, latitude: "int | None" = None, longitude: "int | None" = None) -> None:
        self.name = name
        self.latitude = latitude
        self.longitude = longitude


class Former:
    """A signing key that a board had before its keys were rotated: good for reports up to `last`, for later ones not.

    sign_key: 64 bytes. credential_digest: of the credential that named it, 16 bytes. last: the sequence in the receipt
    with which the board took the keys after it, 0 when it had closed no report.
    """

    def __init__(self, sign_key: bytes, credential_digest: bytes, last: int) -> None:
        self.sign_key = sign_key
        self.credential_digest = credential_digest
        self.last = last


class Entry:
    """One board: id, public keys (64 bytes each), tier 0..2, credential digest (16 bytes), its post or None.

    credential_digest: of the credential with which its chain began; rotated keys begin none.
    former: its signing keys before these, the oldest first, at most MAX_FORMER_KEYS, none with an earlier `last`.
    """

    def __init__(
        self,
        board: str,
        sign_key: bytes,
        agree_key: bytes,
        tier: int,
        credential_digest: bytes,
        post: "Post | None",
        former: "tuple[Former, ...]" = (),
    ) -> None:
        self.board = board
        self.sign_key = sign_key
        self.agree_key = agree_key
        self.tier = tier
        self.credential_digest = credential_digest
        self.post = post
        self.former = former


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
        marks = [entry.board, entry.sign_key, entry.agree_key, credential.kid(entry.agree_key)]
        for mark in marks + [former.sign_key for former in entry.former]:
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
    value = [entry.board, entry.sign_key, entry.agree_key, entry.tier, entry.credential_digest, post]
    if entry.former:
        value.append([[former.sign_key, former.credential_digest, former.last] for former in entry.former])
    return value


def _entry_of(value: object) -> Entry:
    parts = fields.array(value, "board of a roster", 6, 7)
    return Entry(
        fields.board_id(parts[0]),
        fields.byte_string(parts[1], "signing key", credential.KEY_BYTES),
        fields.byte_string(parts[2], "agreement key", credential.KEY_BYTES),
        fields.integer(parts[3], "tier", credential.SOFTWARE, credential.SECURE_ELEMENT),
        fields.byte_string(parts[4], "credential digest", credential.DIGEST_BYTES),
        None if parts[5] is None else _post_of(parts[5]),
        () if len(parts) == 6 else _former_of(parts[6]),
    )


def _former_of(value: object) -> "tuple[Former, ...]":
    found = []
    last = 0
    for item in fields.array(value, "former keys", 1, MAX_FORMER_KEYS):
        parts = fields.array(item, "former key", 3, 3)
        last = fields.integer(parts[2], "last report of a former key", last)
        key = fields.byte_string(parts[0], "former signing key", credential.KEY_BYTES)
        found.append(Former(key, fields.byte_string(parts[1], "credential digest", credential.DIGEST_BYTES), last))
    return tuple(found)


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
