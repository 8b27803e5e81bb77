"""What a board answers to an order, signed by the key that it had before (protocol/README.md, 12).

Parse and verify with `cose` under laterne/receipt/1, then read the payload with this module.
"""

from hashlib import sha256

from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError

MAX_RECEIPT_BYTES = fields.MAX_RECEIPT_BYTES

DONE, REFUSED = 0, 1

# Why an order was refused; the first two change nothing on the board, its counter neither.
OLD, OTHER_KEY, NO_NEXT_KEYS, BAD_CREDENTIAL, REPORTS_WAIT = 1, 2, 3, 4, 5
OLD_NONCE, BELOW_FLOOR, NOT_STAGED, TRIAL_OPEN, NO_SPACE, FAILED_BEFORE = 6, 7, 8, 9, 10, 11
REASONS = {
    OLD: "the board has executed an order with this counter or a higher one",
    OTHER_KEY: "the order is for another signing key of the board",
    NO_NEXT_KEYS: "the board has no next keys, or others than the credential names: rotate again",
    BAD_CREDENTIAL: "the new credential is not for this board, or not by an enrolment key of the board's trust",
    REPORTS_WAIT: "reports wait that the gateway does not acknowledge",
    OLD_NONCE: "the board tells another nonce now",
    BELOW_FLOOR: "the release's sequence is too low",
    NOT_STAGED: "this release is not staged",
    TRIAL_OPEN: "a trial is open",
    NO_SPACE: "no space",
    FAILED_BEFORE: "this release failed here before",
}


class Receipt:
    """What stands in a receipt.

    board: its id. order: order.digest() of the order, 16 bytes. outcome: DONE or REFUSED. reason: None when done, else
    1..255, a key of REASONS. sequence: of the last report that the board closed before, 0 when there is none.
    result: of ROTATE the next keys, a possession object over the order's digest; of DECOMMISSION the sequence up to
    which the gateway has acknowledged all reports: those up to `sequence` after it may be lost; else None.
    """

    def __init__(
        self,
        board: str,
        order: bytes,
        outcome: int,
        reason: "int | None",
        sequence: int,
        result: "bytes | int | None",
    ) -> None:
        self.board = board
        self.order = order
        self.outcome = outcome
        self.reason = reason
        self.sequence = sequence
        self.result = result

    def to_payload(self) -> bytes:
        """The payload to sign under the domain laterne/receipt/1."""
        return cbor.encode(
            {1: self.board, 2: self.order, 3: self.outcome, 4: self.reason, 5: self.sequence, 6: self.result}
        )


def digest(signed: bytes) -> bytes:
    """How a gateway says which receipt has arrived: SHA-256 of the whole COSE_Sign1, first 16 bytes."""
    return sha256(signed).digest()[: fields.DIGEST_BYTES]


def receipt_of(payload: bytes) -> Receipt:
    """The receipt in a payload. Raises CborError or ObjectError."""
    parts = fields.mapping(cbor.decode(payload, MAX_RECEIPT_BYTES), "receipt", (1, 2, 3, 4, 5, 6))
    outcome = fields.integer(parts[3], "outcome", DONE, REFUSED)
    sequence = fields.integer(parts[5], "sequence")
    reason, result = parts[4], parts[6]
    if (reason is None) != (outcome == DONE):
        raise ObjectError("an order was done, or there is a reason why not")
    if isinstance(result, bytes):
        fields.byte_string(result, "next keys", 1, fields.MAX_CREDENTIAL_BYTES)
    elif result is not None:
        fields.integer(result, "acknowledged reports", 0, sequence)
    if result is not None and outcome == REFUSED:
        raise ObjectError("a refused order has no result")
    return Receipt(
        fields.board_id(parts[1]),
        fields.byte_string(parts[2], "digest of the order", fields.DIGEST_BYTES),
        outcome,
        None if reason is None else fields.integer(reason, "reason", 1, 255),
        sequence,
        result,  # type: ignore[arg-type]  # narrowed above, by what no checker follows
    )
