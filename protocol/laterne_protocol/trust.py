"""Whom to believe: the authority's public keys by role, signed by a threshold of its root keys (protocol/README.md, 8).

A trust file is a CBOR array of byte strings, each a COSE_Sign1 under laterne/trust/1 over the same payload, one for
each root that signed. It is installed by hand once; a later one counts only when a threshold of the roots that are
trusted now has signed it, and a threshold of its own roots as well (TUF 5.3: root rotation).
"""

from laterne_protocol import cbor, cose, credential, fields
from laterne_protocol.errors import ObjectError, SignatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TRUST_BYTES = 16384
MAX_KEYS_A_ROLE = 8
ENROLMENT, RELEASE, ORDER, ROSTER = "enrolment", "release", "order", "roster"
ROLES = (ENROLMENT, RELEASE, ORDER, ROSTER)


class Trust:
    """The authority's keys. Public keys are 64 bytes, x and y.

    version: one more for each change. authority: its name. threshold: how many roots must sign. roots: their keys.
    keys: for each role of ROLES the list of its keys.
    """

    def __init__(
        self, version: int, authority: str, threshold: int, roots: "list[bytes]", keys: "dict[str, list[bytes]]"
    ) -> None:
        self.version = version
        self.authority = authority
        self.threshold = threshold
        self.roots = roots
        self.keys = keys

    def to_payload(self) -> bytes:
        """The payload that each root signs under the domain laterne/trust/1."""
        return cbor.encode({1: self.version, 2: self.authority, 3: self.threshold, 4: self.roots, 5: self.keys})


def trust_payload_of(payload: bytes) -> Trust:
    """The trust in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_TRUST_BYTES), "trust", (1, 2, 3, 4, 5))
    roots = _keys_of(parts[4], "root keys")
    by_role = parts[5]
    if not isinstance(by_role, dict) or len(by_role) != len(ROLES):
        raise ObjectError("the roles are not %s" % ", ".join(ROLES))
    keys = {}
    held = set(roots)
    for role in ROLES:
        if role not in by_role:
            raise ObjectError("the roles are not %s" % ", ".join(ROLES))
        keys[role] = _keys_of(by_role[role], role + " keys")
        for key in keys[role]:
            if key in held:  # whoever holds one role must not hold another by accident
                raise ObjectError("the %s key %s has another role, too" % (role, credential.kid(key).hex()))
            held.add(key)
    return Trust(
        fields.integer(parts[1], "version", 1),
        fields.text(parts[2], "authority", credential.MAX_AUTHORITY_BYTES),
        fields.integer(parts[3], "threshold", 1, len(roots)),
        roots,
        keys,
    )


def trust_file(signed: "list[bytes]") -> bytes:
    """The file that holds these COSE_Sign1 of one payload."""
    return cbor.encode(signed)


def trust_of(data: bytes, valid: "Callable[[bytes, bytes, bytes], bool]", former: "Trust | None" = None) -> Trust:
    """The trust in a file, once enough roots have been found to have signed it.

    valid(key, message, signature): whether the signature (64 bytes) is that key's (64 bytes). former: what is
    trusted now; None when the file itself is the beginning of trust, installed by hand.
    Raises CborError, CoseError, ObjectError, SignatureError.
    """
    signed = []
    for item in fields.array(cbor.decode(data, MAX_TRUST_BYTES), "trust file", 1, MAX_KEYS_A_ROLE):
        signed.append(cose.parse(fields.byte_string(item, "signed trust", 1, MAX_TRUST_BYTES), MAX_TRUST_BYTES))
    payload = signed[0].payload
    for one in signed:
        if one.payload != payload:
            raise ObjectError("the roots have not signed the same trust")
    found = trust_payload_of(payload)
    _require(signed, found.roots, found.threshold, valid)
    if former is not None:
        if found.version < former.version:
            raise ObjectError("trust version %d is older than %d" % (found.version, former.version))
        if found.version == former.version and payload != former.to_payload():
            raise ObjectError("two different trusts of version %d" % found.version)
        _require(signed, former.roots, former.threshold, valid)
    return found


def _require(
    signed: "list[cose.Sign1]", roots: "list[bytes]", threshold: int, valid: "Callable[[bytes, bytes, bytes], bool]"
) -> None:
    # Count keys, not signatures: one root that signs twice is one.
    found = set()
    for one in signed:
        for root in roots:
            if root not in found and _is_by(one, root, valid):
                found.add(root)
                break
    if len(found) < threshold:
        raise SignatureError("%d of %d roots have signed, %d are needed" % (len(found), len(roots), threshold))


def _is_by(one: "cose.Sign1", key: bytes, valid: "Callable[[bytes, bytes, bytes], bool]") -> bool:
    try:
        cose.verify(one, cose.TRUST, lambda message, signature: valid(key, message, signature))
    except SignatureError:
        return False
    return True


def _keys_of(value: object, name: str) -> "list[bytes]":
    keys = []
    for item in fields.array(value, name, 1, MAX_KEYS_A_ROLE):
        key = fields.byte_string(item, name, credential.KEY_BYTES)
        if key in keys:
            raise ObjectError("the %s hold one key twice" % name)
        keys.append(key)
    return keys
