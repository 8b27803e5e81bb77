"""What a field technician may do away from the authority: enrol so many boards, of these ids, there, until then.

A grant is signed by the enrolment key and names the technician's own key, which then signs credentials under it. Parse
and verify with `cose` under laterne/grant/1, then read the payload with this module (protocol/README.md, 5.5). No board
and no gateway ever sees a grant: whoever takes boards into the registry, or verifies their credentials, does.
"""

import hashlib

from laterne_protocol import cbor, fields, public_keys
from laterne_protocol.errors import ObjectError

MAX_GRANT_BYTES = 2048
NUMBER_BYTES = 8
SERIAL_BYTES = 8  # after the grant's number, in the number of each credential made under it
MAX_BOARDS = 1000  # of a grant: a month's work of a crew
MAX_PATTERNS = 8
MAX_NAME_BYTES = 64  # of a technician, of a site

_DIGITS = "0123456789"
_ANY, _TO = "*", ":"  # neither can stand in an id


class Grant:
    """What stands in a grant.

    number: 8 bytes that no other grant of the authority has. authority: who grants. technician: to whom, for people.
    key: the technician's public key, 64 bytes. site: where, for people. ids, posts: patterns (covers()) of the ids
    that boards may get and of the posts where they may hang; without posts they may hang anywhere. most: how many
    boards. valid: (from, to), Unix seconds by the technician's clock. versions: (first, last) of the trust, under which
    it counts. All ranges include both ends.
    """

    def __init__(
        self,
        number: bytes,
        authority: str,
        technician: str,
        key: bytes,
        site: str,
        ids: "list[str]",
        posts: "list[str]",
        most: int,
        valid: "tuple[int, int]",
        versions: "tuple[int, int]",
    ) -> None:
        self.number = number
        self.authority = authority
        self.technician = technician
        self.key = key
        self.site = site
        self.ids = ids
        self.posts = posts
        self.most = most
        self.valid = valid
        self.versions = versions

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/grant/1."""
        return cbor.encode(
            {
                1: self.number,
                2: self.authority,
                3: self.technician,
                4: public_keys.cose_key(self.key),
                5: self.site,
                6: self.ids,
                7: self.posts,
                8: self.most,
                9: [self.valid[0], self.valid[1]],
                10: [self.versions[0], self.versions[1]],
            }
        )

    def is_valid_under(self, version: int) -> bool:
        """Whether it counts under a trust of this version."""
        return self.versions[0] <= version <= self.versions[1]

    def credential_number(self, serial: int) -> bytes:
        """The number (cti, 16 bytes) of the credential that is made under it by the journal's entry `serial`."""
        return self.number + serial.to_bytes(SERIAL_BYTES, "big")

    def why_not(self, board: str, moment: int) -> "str | None":
        """Why it does not allow to enrol a board with this id at that moment (Unix seconds); None: it does."""
        if moment < self.valid[0]:
            return "the grant is not valid yet"
        if moment > self.valid[1]:
            return "the grant is over"
        if not any(covers(pattern, board) for pattern in self.ids):
            return "the grant is for boards %s, not %s" % (", ".join(self.ids), board)
        return None

    def why_not_there(self, post: "str | None") -> "str | None":
        """Why it does not allow a board to hang at this post, None for nowhere; None: it does."""
        if self.posts and (post is None or not any(covers(pattern, post) for pattern in self.posts)):
            return "the grant is for posts %s, not %s" % (", ".join(self.posts), post or "for boards that hang nowhere")
        return None


def number_in(credential_number: bytes) -> "bytes | None":
    """The number of the grant under which a credential with this number (cti) was made; None: under none."""
    if len(credential_number) != NUMBER_BYTES + SERIAL_BYTES:
        return None
    return credential_number[:NUMBER_BYTES]


def digest(signed: bytes) -> bytes:
    """How a journal names the grant that it belongs to: SHA-256 of the COSE_Sign1, first 16 bytes."""
    return hashlib.sha256(signed).digest()[: fields.DIGEST_BYTES]


def covers(pattern: str, name: str) -> bool:
    """Whether a pattern means this id: the id, "LE-01*" what begins so, "LE-0101:LE-0125" from one to another."""
    if pattern[-1] == _ANY:
        return name.startswith(pattern[:-1])
    first, to, last = pattern.partition(_TO)
    if not to:
        return name == pattern
    # Digits of the same length compare as their numbers do.
    return len(name) == len(first) and _stem(name) == _stem(first) and first <= name <= last


def pattern_of(value: object, name: str) -> str:
    """The value as a pattern. Raises ObjectError."""
    if not isinstance(value, str) or not value:
        raise ObjectError("%s is not a text" % name)
    if value[-1] == _ANY:
        if len(value) > 1:
            fields.board_id(value[:-1], name)
        return value
    first, to, last = value.partition(_TO)
    fields.board_id(first, name)
    if to:
        fields.board_id(last, name)
        if len(first) != len(last) or _stem(first) != _stem(last) or first > last or _stem(first) == first:
            raise ObjectError("%s does not count up from one number to another: %s" % (name, value))
    return value


def grant_of(payload: bytes) -> Grant:
    """The grant in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_GRANT_BYTES), "grant", (1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    valid = fields.array(parts[9], "time of the grant", 2, 2)
    begins = fields.integer(valid[0], "begin of the grant", 0, fields.MAX_UTC_S)
    versions = fields.array(parts[10], "trust versions", 2, 2)
    first = fields.integer(versions[0], "first trust version", 1)
    return Grant(
        fields.byte_string(parts[1], "grant number", NUMBER_BYTES),
        fields.text(parts[2], "authority", fields.MAX_AUTHORITY_BYTES),
        fields.text(parts[3], "technician", MAX_NAME_BYTES),
        public_keys.key_of(parts[4], "technician's key"),
        fields.text(parts[5], "site", MAX_NAME_BYTES),
        [pattern_of(item, "pattern of board ids") for item in fields.array(parts[6], "board ids", 1, MAX_PATTERNS)],
        [pattern_of(item, "pattern of posts") for item in fields.array(parts[7], "posts", 0, MAX_PATTERNS)],
        fields.integer(parts[8], "number of boards", 1, MAX_BOARDS),
        (begins, fields.integer(valid[1], "end of the grant", begins, fields.MAX_UTC_S)),
        (first, fields.integer(versions[1], "last trust version", first)),
    )


def _stem(name: str) -> str:
    return name.rstrip(_DIGITS)
