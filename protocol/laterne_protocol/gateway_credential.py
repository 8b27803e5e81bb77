"""Who a gateway is: its id and the key with which it shakes hands, signed by the roster key (protocol/README.md, 5.4).

The key that says which boards a gateway may serve also says which gateways there are. A board is shown this object
before the first handshake and keeps it. Parse and verify with `cose` under laterne/gateway/1, then read the payload
with this module.
"""

from laterne_protocol import cbor, fields, public_keys

MAX_GATEWAY_CREDENTIAL_BYTES = fields.MAX_CREDENTIAL_BYTES


class GatewayCredential:
    """What stands in a gateway's credential.

    gateway: its id. agree_key: 64 bytes. versions: (first, last), the versions of the trust under which it is valid,
    both included. issued: Unix seconds, for people: no board decides by it.
    """

    def __init__(self, gateway: str, agree_key: bytes, versions: "tuple[int, int]", issued: int) -> None:
        self.gateway = gateway
        self.agree_key = agree_key
        self.versions = versions
        self.issued = issued

    def is_valid_under(self, version: int) -> bool:
        """Whether a board or gateway whose trust has this version may believe it."""
        return self.versions[0] <= version <= self.versions[1]

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/gateway/1."""
        return cbor.encode(
            {
                1: self.gateway,
                2: public_keys.cose_key(self.agree_key),
                3: [self.versions[0], self.versions[1]],
                4: self.issued,
            }
        )


def gateway_credential_of(payload: bytes) -> GatewayCredential:
    """The gateway's credential in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_GATEWAY_CREDENTIAL_BYTES), "gateway credential", (1, 2, 3, 4))
    versions = fields.array(parts[3], "trust versions", 2, 2)
    first = fields.integer(versions[0], "first trust version", 1)
    return GatewayCredential(
        fields.board_id(parts[1], "gateway id"),
        public_keys.key_of(parts[2], "agreement key"),
        (first, fields.integer(versions[1], "last trust version", first)),
        fields.integer(parts[4], "issue time", 0, fields.MAX_UTC_S),
    )
