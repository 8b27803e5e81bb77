"""What an operator orders one board to do, signed by an order key (protocol/README.md, 12).

An order is for one board under one signing key, and each has a higher counter than the one before: nothing here knows
a clock. Parse and verify with `cose` under laterne/order/1, then read the payload with this module.
"""

from hashlib import sha256

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError

MAX_ORDER_BYTES = fields.MAX_ORDER_BYTES

# Make the next keys · take the credential for them and speak with them · never speak again.
ROTATE, TAKE, DECOMMISSION = 1, 2, 3
# Fetch a release · try the one that was fetched · drop what was fetched or is being tried.
STAGE, ARM, ABANDON = 4, 5, 6
NONCE_BYTES = 8


class Order:
    """What stands in an order.

    board: its id. kid: of the signing key that it has when the order is made, 8 bytes: the same id on other hardware
    is another board. counter: higher than in all orders before to this board. action: ROTATE .. ABANDON.
    argument: None for ROTATE; for TAKE the new credential, 1..512 bytes; for DECOMMISSION whether reports that the
    gateway has not acknowledged may be given up; for STAGE [release digest, sequence, nonce], for ARM [release digest,
    nonce, not after (UTC, s)], for ABANDON [release digest]: digests of 16 bytes, nonces of 8, which the board told.
    """

    def __init__(
        self, board: str, kid: bytes, counter: int, action: int, argument: "bytes | bool | list[bytes | int] | None"
    ) -> None:
        self.board = board
        self.kid = kid
        self.counter = counter
        self.action = action
        self.argument = argument

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/order/1."""
        return cbor.encode({1: self.board, 2: self.kid, 3: self.counter, 4: self.action, 5: self.argument})


def digest(signed: bytes) -> bytes:
    """How a receipt names its order: SHA-256 of the whole COSE_Sign1, first 16 bytes."""
    return sha256(signed).digest()[: fields.DIGEST_BYTES]


def order_of(payload: bytes) -> Order:
    """The order in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_ORDER_BYTES), "order", (1, 2, 3, 4, 5))
    action, argument = fields.integer(parts[4], "action", ROTATE, ABANDON), parts[5]
    if action == TAKE:
        argument = fields.byte_string(argument, "new credential", 1, fields.MAX_CREDENTIAL_BYTES)
    elif action == DECOMMISSION:
        if not isinstance(argument, bool):
            raise ObjectError("whether reports may be given up is neither true nor false")
    elif action >= STAGE:
        argument = _of_release(action, argument)
    elif argument is not None:
        raise ObjectError("an argument where none belongs")
    return Order(
        fields.board_id(parts[1]),
        fields.byte_string(parts[2], "kid", 8),
        fields.integer(parts[3], "counter", 1),
        action,
        argument,
    )


def _of_release(action: int, argument: object) -> "list[bytes | int]":
    count = 1 if action == ABANDON else 3
    parts = fields.array(argument, "argument", count, count)
    fields.byte_string(parts[0], "release digest", fields.DIGEST_BYTES)
    if action == STAGE:
        fields.integer(parts[1], "sequence")
        fields.byte_string(parts[2], "nonce", NONCE_BYTES)
    elif action == ARM:
        fields.byte_string(parts[1], "nonce", NONCE_BYTES)
        fields.integer(parts[2], "not after", 0, fields.MAX_UTC_S)
    return parts  # type: ignore[return-value]  # each part was judged above
