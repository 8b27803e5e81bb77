"""Whom to believe: the authority's public keys by role, signed by a threshold of its root keys (protocol/README.md, 8).

A trust file is a CBOR array of byte strings, each a COSE_Sign1 under laterne/trust/1 over the same payload, one for
each root that signed. It is installed by hand once; a later one counts only when a threshold of the roots that are
trusted now has signed it, and a threshold of its own roots as well (TUF 5.3: root rotation).
"""

from hashlib import sha256

from laterne_protocol import cbor, cose, fields, public_keys
from laterne_protocol.errors import ObjectError, SignatureError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Verification = Generator[None, None, bool]

MAX_TRUST_BYTES = 16384
MAX_KEYS_A_ROLE = 8
ENROLMENT, RELEASE, ORDER, ROSTER = "enrolment", "release", "order", "roster"
ROLES = (ENROLMENT, RELEASE, ORDER, ROSTER)


class Trust:
    """The authority's keys. Public keys are 64 bytes, x and y.

    version: one more for each change. authority: its name. threshold: how many roots must sign. roots: their keys.
    keys: for each role of ROLES the list of its keys. release_threshold: how many release keys must sign a release.
    """

    def __init__(
        self,
        version: int,
        authority: str,
        threshold: int,
        roots: "list[bytes]",
        keys: "dict[str, list[bytes]]",
        release_threshold: int = 1,
    ) -> None:
        self.version = version
        self.authority = authority
        self.threshold = threshold
        self.roots = roots
        self.keys = keys
        self.release_threshold = release_threshold

    def to_payload(self) -> bytes:
        """The payload that each root signs under the domain laterne/trust/1."""
        parts = {1: self.version, 2: self.authority, 3: self.threshold, 4: self.roots, 5: self.keys}
        if self.release_threshold > 1:
            parts[6] = self.release_threshold
        return cbor.encode(parts)


def trust_payload_of(payload: bytes) -> Trust:
    """The trust in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_TRUST_BYTES), "trust", (1, 2, 3, 4, 5), (6,))
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
                raise ObjectError("the %s key %s has another role, too" % (role, public_keys.kid(key).hex()))
            held.add(key)
    return Trust(
        fields.integer(parts[1], "version", 1),
        fields.text(parts[2], "authority", fields.MAX_AUTHORITY_BYTES),
        fields.integer(parts[3], "threshold", 1, len(roots)),
        roots,
        keys,
        # One signature is what is meant when nothing is said: so a trust has one form.
        fields.integer(parts[6], "release threshold", 2, len(keys[RELEASE])) if 6 in parts else 1,
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

    def at_once(key: bytes, message: bytes, signature: bytes) -> "Verification":
        return valid(key, message, signature)
        yield

    steps = verified(signed_of(data), at_once, former)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]  # a StopIteration's value is Any


def verified(
    signed: "list[cose.Sign1]", valid: "Callable[[bytes, bytes, bytes], Verification]", former: "Trust | None" = None
) -> "Generator[None, None, Trust]":
    """As trust_of(), for what unpack() gave, in steps: each signature costs a board more than a second.

    valid(key, message, signature): steps to whether the signature is that key's.
    """
    payload = signed[0].payload
    found = trust_payload_of(payload)
    judged = {}  # type: dict[bytes, bool]  # roots that are in both trusts are asked once
    if former is not None:
        # All that is cheap comes first.
        if found.version < former.version:
            raise ObjectError("trust version %d is older than %d" % (found.version, former.version))
        if found.version == former.version and payload != former.to_payload():
            raise ObjectError("two different trusts of version %d" % found.version)
        yield from _require(signed, former.roots, former.threshold, valid, judged)
    yield from _require(signed, found.roots, found.threshold, valid, judged)
    return found


def pack(data: bytes) -> bytes:
    """The trust bundle: what a trust file says, its payload once, so that it fits into one message to a board.

    Raises CborError, CoseError, ObjectError: not a trust file, or one that does not fit.
    """
    signed = signed_of(data)
    for one in signed:
        if one.algorithm != cose.ESP256:
            raise ObjectError("a signature under the former name of its algorithm has no place in a trust bundle")
    bundle = cbor.encode([signed[0].payload, [[one.kid, one.signature] for one in signed]])
    if len(bundle) > fields.MAX_TRUST_BUNDLE_BYTES:
        raise ObjectError(
            "the trust has %d bytes for a board, at most %d fit: it needs fewer keys"
            % (len(bundle), fields.MAX_TRUST_BUNDLE_BYTES)
        )
    return bundle


def unpack(bundle: bytes) -> "list[cose.Sign1]":
    """The signed objects in a bundle, all of one payload, nothing verified yet. Raises CborError or ObjectError."""
    parts = fields.array(cbor.decode(bundle, fields.MAX_TRUST_BUNDLE_BYTES), "trust bundle", 2, 2)
    payload = fields.byte_string(parts[0], "trust", 1, fields.MAX_TRUST_BUNDLE_BYTES)
    signed = []
    for item in fields.array(parts[1], "signatures", 1, MAX_KEYS_A_ROLE):
        pair = fields.array(item, "signature with its kid", 2, 2)
        kid = fields.byte_string(pair[0], "kid", cose.KID_BYTES)
        signature = fields.byte_string(pair[1], "signature", cose.SIGNATURE_BYTES)
        signed.append(cose.Sign1(cose.protected_header(kid), cose.ESP256, kid, payload, signature))
    return signed


def digest(payload: bytes) -> bytes:
    """How a board says which trust it has taken: SHA-256 of the payload, first 16 bytes."""
    return sha256(payload).digest()[: fields.DIGEST_BYTES]


def signed_of(data: bytes) -> "list[cose.Sign1]":
    """The signed objects in a trust file, all of one payload, nothing verified.

    Raises CborError, CoseError, ObjectError.
    """
    signed = []
    for item in fields.array(cbor.decode(data, MAX_TRUST_BYTES), "trust file", 1, MAX_KEYS_A_ROLE):
        signed.append(cose.parse(fields.byte_string(item, "signed trust", 1, MAX_TRUST_BYTES), MAX_TRUST_BYTES))
    for one in signed:
        if one.payload != signed[0].payload:
            raise ObjectError("the roots have not signed the same trust")
    return signed


def _require(
    signed: "list[cose.Sign1]",
    roots: "list[bytes]",
    threshold: int,
    valid: "Callable[[bytes, bytes, bytes], Verification]",
    judged: "dict[bytes, bool]",
) -> "Generator[None, None, None]":
    # Count keys, not signatures: one root that signs twice is one. judged: root and signature -> whether it is its.
    found = set()  # type: set[bytes]
    for one in signed:
        for root in roots:
            # Only the root that it names, and none when there are enough: on a board each costs more than a second.
            if len(found) >= threshold or root in found or public_keys.kid(root) != one.kid:
                continue
            if root + one.signature not in judged:
                judged[root + one.signature] = yield from _is_by(one, root, valid)
            if judged[root + one.signature]:
                found.add(root)
                break
    if len(found) < threshold:
        raise SignatureError("%d of %d roots have signed, %d are needed" % (len(found), len(roots), threshold))


def _is_by(one: "cose.Sign1", key: bytes, valid: "Callable[[bytes, bytes, bytes], Verification]") -> "Verification":
    try:
        cose.check_low_s(one.signature)
    except SignatureError:
        return False
    return (yield from valid(key, cose.to_be_signed(cose.TRUST, one.protected, one.payload), one.signature))


def _keys_of(value: object, name: str) -> "list[bytes]":
    keys = []
    for item in fields.array(value, name, 1, MAX_KEYS_A_ROLE):
        key = fields.byte_string(item, name, public_keys.KEY_BYTES)
        if key in keys:
            raise ObjectError("the %s hold one key twice" % name)
        keys.append(key)
    return keys
