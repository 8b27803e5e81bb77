"""Signed objects: COSE_Sign1 (RFC 9052) in the one shape that laterne uses.

What an object is stands in its signature: external_aad is the domain string, so that no object passes for
another. The primitives are passed in: this module says which bytes are signed and what an object looks like.
Everything an object carries is under its signature: algorithm and kid are protected, the unprotected
header is empty. So every byte of an object counts, and an object has one form (protocol/README.md, 4).
"""

from laterne_protocol import cbor
from laterne_protocol.cose_writing import (
    ESP256,
    KID_BYTES,
    POSSESSION,
    REPORT,
    SIGNATURE_BYTES,
    TAG_SIGN1,
    assemble,
    protected_header,
    to_be_signed,
)
from laterne_protocol.errors import CoseError, SignatureError

__all__ = (
    "CREDENTIAL",
    "ES256",
    "ESP256",
    "GATEWAY",
    "GRANT",
    "KID_BYTES",
    "ORDER",
    "POSSESSION",
    "RECEIPT",
    "REPORT",
    "ROSTER",
    "SIGNATURE_BYTES",
    "TAG_SIGN1",
    "TRUST",
    "Sign1",
    "assemble",
    "check_low_s",
    "parse",
    "protected_header",
    "sign1_of",
    "to_be_signed",
    "verify",
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ES256 = -7  # the former name of the same, still written by others

CREDENTIAL = "laterne/credential/1"
ROSTER = "laterne/roster/1"
TRUST = "laterne/trust/1"
GATEWAY = "laterne/gateway/1"
ORDER = "laterne/order/1"
RECEIPT = "laterne/receipt/1"
GRANT = "laterne/grant/1"

_ALGORITHM, _KID = 1, 4  # RFC 9052, 3.1: header labels
# {1: -9, 4: the 8 bytes that follow}, in the one encoding that it has: nothing else begins like this and is as long.
_USUAL = b"\xa2\x01\x28\x04\x48"
_HALF_ORDER = 0x7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8


class Sign1:
    """A COSE_Sign1 taken apart, nothing verified yet.

    protected: the header's bytes as received. algorithm: -9 or -7. kid: 8 bytes, a hint which key to try.
    payload: the signed bytes. signature: 64 bytes.
    """

    def __init__(self, protected: bytes, algorithm: int, kid: bytes, payload: bytes, signature: bytes) -> None:
        self.protected = protected
        self.algorithm = algorithm
        self.kid = kid
        self.payload = payload
        self.signature = signature


def parse(data: bytes, max_bytes: int) -> Sign1:
    """Take an object apart without believing it.

    Raises CborError or CoseError: not a COSE_Sign1 of our shape. Verify before the payload is used.
    """
    return sign1_of(cbor.decode(data, max_bytes, (TAG_SIGN1,)))


def sign1_of(value: object) -> Sign1:
    """As parse(), for a value that the strict decoder has already read."""
    if not isinstance(value, cbor.Tag) or value.number != TAG_SIGN1:
        raise CoseError("not a COSE_Sign1 with its tag 18")
    parts = value.value
    if not isinstance(parts, list) or len(parts) != 4:
        raise CoseError("a COSE_Sign1 has four parts")
    protected, unprotected, payload, signature = parts
    if not isinstance(protected, bytes) or not isinstance(payload, bytes) or not isinstance(signature, bytes):
        raise CoseError("header, payload and signature of a COSE_Sign1 are byte strings")
    if unprotected != {}:  # what is not signed could be changed on the way
        raise CoseError("the unprotected header is not empty")
    if len(signature) != SIGNATURE_BYTES:
        raise CoseError("a signature of %d bytes, it has %d" % (len(signature), SIGNATURE_BYTES))
    if len(protected) == len(_USUAL) + KID_BYTES and protected.startswith(_USUAL):
        return Sign1(protected, ESP256, protected[len(_USUAL) :], payload, signature)
    header = cbor.decode(protected, 64)
    if not isinstance(header, dict) or len(header) != 2 or _ALGORITHM not in header or _KID not in header:
        raise CoseError("the protected header names an algorithm and a kid, nothing else")
    algorithm, kid = header[_ALGORITHM], header[_KID]
    if isinstance(algorithm, bool) or algorithm not in (ESP256, ES256):
        raise CoseError("the algorithm is neither ESP256 nor ES256")
    if not isinstance(kid, bytes) or len(kid) != KID_BYTES:
        raise CoseError("a kid has %d bytes" % KID_BYTES)
    return Sign1(protected, algorithm, kid, payload, signature)


def check_low_s(signature: bytes) -> None:
    """Raises SignatureError for the second form that every ECDSA signature has: ours has one form."""
    if int.from_bytes(signature[32:], "big") > _HALF_ORDER:
        raise SignatureError("the signature is not in its low-s form")


def verify(sign1: Sign1, domain: str, valid: "Callable[[bytes, bytes], bool]") -> bytes:
    """The payload, once its signature has been found good.

    valid(message, signature): whether the 64 bytes r and s are the key's ECDSA signature (P-256, SHA-256)
    of the message.
    Raises SignatureError.
    """
    check_low_s(sign1.signature)
    if not valid(to_be_signed(domain, sign1.protected, sign1.payload), sign1.signature):
        raise SignatureError("the signature is not that of key %s for %s" % (sign1.kid.hex(), domain))
    return sign1.payload
