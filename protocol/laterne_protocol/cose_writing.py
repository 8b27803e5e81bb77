"""Making signed objects: the half of `cose` that a board needs while it runs. What an object is, `cose` says."""

from laterne_protocol import cbor
from laterne_protocol.errors import CoseError

TAG_SIGN1 = 18
ESP256 = -9  # RFC 9864: ECDSA, P-256, SHA-256
KID_BYTES = 8
SIGNATURE_BYTES = 64  # r and s, 32 bytes each, big endian

POSSESSION = "laterne/possession/1"
REPORT = "laterne/report/1"

_ALGORITHM, _KID = 1, 4  # RFC 9052, 3.1: header labels


def protected_header(kid: bytes, algorithm: int = ESP256) -> bytes:
    """The protected header of an object signed by the key with this kid (8 bytes)."""
    if len(kid) != KID_BYTES:
        raise CoseError("a kid of %d bytes, it has %d" % (len(kid), KID_BYTES))
    return cbor.encode({_ALGORITHM: algorithm, _KID: kid})


def to_be_signed(domain: str, protected: bytes, payload: bytes) -> bytes:
    """RFC 9052, 4.4: the Sig_structure whose SHA-256 is signed; external_aad is the domain string."""
    return cbor.encode(["Signature1", protected, domain.encode(), payload])


def assemble(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    """The object's bytes. signature: 64 bytes over to_be_signed()."""
    if len(signature) != SIGNATURE_BYTES:
        raise CoseError("a signature of %d bytes, it has %d" % (len(signature), SIGNATURE_BYTES))
    return cbor.encode(cbor.Tag(TAG_SIGN1, [protected, {}, payload, signature]))
