"""Who a board is: its public keys, their short name (kid), its proof of possession, its signed credential.

A credential is a CWT (RFC 8392) in a COSE_Sign1 by the enrolment key. Nothing here makes or checks a signature;
parse and verify with `cose`, then read the payload with this module (protocol/README.md, 5).
"""

import hashlib

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError
from laterne_protocol.public_keys import KEY_BYTES, cose_key, key_of, kid, thumbprint

__all__ = (
    "CHIP",
    "DIGEST_BYTES",
    "KEY_BYTES",
    "MAX_AUTHORITY_BYTES",
    "MAX_CREDENTIAL_BYTES",
    "MAX_MODEL_BYTES",
    "MAX_POSSESSION_BYTES",
    "NONCE_BYTES",
    "SECURE_ELEMENT",
    "SOFTWARE",
    "TIERS",
    "Credential",
    "Possession",
    "cose_key",
    "credential_of",
    "digest",
    "key_of",
    "kid",
    "possession_of",
    "thumbprint",
)

NONCE_BYTES = DIGEST_BYTES = fields.DIGEST_BYTES
MAX_CREDENTIAL_BYTES = MAX_POSSESSION_BYTES = fields.MAX_CREDENTIAL_BYTES
MAX_MODEL_BYTES = fields.MAX_MODEL_BYTES
MAX_AUTHORITY_BYTES = fields.MAX_AUTHORITY_BYTES

# What protects a board's private keys (facts of the hardware, claimed by the operator who enrols).
SOFTWARE, CHIP, SECURE_ELEMENT = 0, 1, 2
TIERS = ("software", "chip", "secure element")

# RFC 8392, 3.1 and RFC 8747, 3.1: registered CWT claims.
_ISS, _SUB, _IAT, _CTI, _CNF = 1, 2, 6, 7, 8
_CNF_COSE_KEY = 1
# RFC 8392, 9.1: claims below -65536 are for private use.
_AGREE_KEY, _TIER, _MODEL, _EPOCH = -65537, -65538, -65539, -65540


def digest(credential: bytes) -> bytes:
    """What the first report of a board names as its predecessor: SHA-256 of the credential, first 16 bytes."""
    return hashlib.sha256(credential).digest()[:DIGEST_BYTES]


class Possession:
    """What a board says of itself at enrolment, signed with its signing key over the asker's nonce.

    nonce: 16 bytes. sign_key, agree_key: 64 bytes each. tier: 0..2. model: such as "pico".
    hardware: machine.unique_id(), 1..16 bytes.
    """

    def __init__(self, nonce: bytes, sign_key: bytes, agree_key: bytes, tier: int, model: str, hardware: bytes) -> None:
        self.nonce = nonce
        self.sign_key = sign_key
        self.agree_key = agree_key
        self.tier = tier
        self.model = model
        self.hardware = hardware

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/possession/1."""
        return cbor.encode(
            {
                1: self.nonce,
                2: cose_key(self.sign_key),
                3: cose_key(self.agree_key),
                4: self.tier,
                5: self.model,
                6: self.hardware,
            }
        )


def possession_of(payload: bytes) -> Possession:
    """The payload of a possession object. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_POSSESSION_BYTES), "possession", (1, 2, 3, 4, 5, 6))
    sign_key, agree_key = _two_keys(parts[2], parts[3])
    return Possession(
        fields.byte_string(parts[1], "nonce", NONCE_BYTES),
        sign_key,
        agree_key,
        fields.integer(parts[4], "tier", SOFTWARE, SECURE_ELEMENT),
        fields.text(parts[5], "model", MAX_MODEL_BYTES),
        fields.byte_string(parts[6], "hardware id", 1, 16),
    )


class Credential:
    """The claims of a board's credential.

    authority: who signed (iss). board: its id (sub). issued: Unix seconds (iat), for people: no board decides by it.
    number: 8..16 bytes that no other credential has (cti). sign_key, agree_key: 64 bytes each. tier: 0..2.
    model: hardware model. epoch: (from, to), the trust epochs in which it is valid, both included.
    """

    def __init__(
        self,
        authority: str,
        board: str,
        issued: int,
        number: bytes,
        sign_key: bytes,
        agree_key: bytes,
        tier: int,
        model: str,
        epoch: "tuple[int, int]",
    ) -> None:
        self.authority = authority
        self.board = board
        self.issued = issued
        self.number = number
        self.sign_key = sign_key
        self.agree_key = agree_key
        self.tier = tier
        self.model = model
        self.epoch = epoch

    def to_payload(self) -> bytes:
        """The CWT claims to sign under the domain laterne/credential/1."""
        return cbor.encode(
            {
                _ISS: self.authority,
                _SUB: self.board,
                _IAT: self.issued,
                _CTI: self.number,
                _CNF: {_CNF_COSE_KEY: cose_key(self.sign_key)},
                _AGREE_KEY: cose_key(self.agree_key),
                _TIER: self.tier,
                _MODEL: self.model,
                _EPOCH: [self.epoch[0], self.epoch[1]],
            }
        )


def credential_of(payload: bytes) -> Credential:
    """The claims in a credential's payload. Raises CborError or ObjectError."""
    claims = fields.mapping(
        cbor.decode(payload, MAX_CREDENTIAL_BYTES),
        "credential",
        (_ISS, _SUB, _IAT, _CTI, _CNF, _AGREE_KEY, _TIER, _MODEL, _EPOCH),
    )
    confirmation = fields.mapping(claims[_CNF], "cnf", (_CNF_COSE_KEY,))
    epoch = fields.array(claims[_EPOCH], "epoch range", 2, 2)
    first = fields.integer(epoch[0], "first epoch")
    sign_key, agree_key = _two_keys(confirmation[_CNF_COSE_KEY], claims[_AGREE_KEY])
    return Credential(
        fields.text(claims[_ISS], "authority", MAX_AUTHORITY_BYTES),
        fields.board_id(claims[_SUB]),
        fields.integer(claims[_IAT], "issue time", 0, fields.MAX_UTC_S),
        fields.byte_string(claims[_CTI], "credential number", 8, 16),
        sign_key,
        agree_key,
        fields.integer(claims[_TIER], "tier", SOFTWARE, SECURE_ELEMENT),
        fields.text(claims[_MODEL], "model", MAX_MODEL_BYTES),
        (first, fields.integer(epoch[1], "last epoch", first)),
    )


def _two_keys(signs: object, agrees: object) -> "tuple[bytes, bytes]":
    # RFC 9528, 9.1: one key is not used with two algorithms.
    sign_key, agree_key = key_of(signs, "signing key"), key_of(agrees, "agreement key")
    if sign_key == agree_key:
        raise ObjectError("one key both signs and agrees")
    return sign_key, agree_key
