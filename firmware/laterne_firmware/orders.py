"""What this board does with an order (protocol/README.md, 12.5). In memory only while one is worked at.

Who may order is judged first, by the trust on flash: what fails there costs a verification, is told to the console, and
nothing is signed. Everything comes in steps: line, sampling and watchdog go on. What reads objects and what multiplies
points are in memory in turns, so neither is imported for the whole module.
"""

from laterne_firmware import executed
from laterne_firmware.executed import Executed
from laterne_firmware.identity import TRUST, unload_arithmetic
from laterne_firmware.memory import unload
from laterne_firmware.store import Record
from laterne_protocol import board_messages as messages
from laterne_protocol import fields, report
from laterne_protocol.errors import ObjectError, SignatureError, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from laterne_firmware.sessions import Sessions
    from laterne_protocol import order
    from laterne_protocol.edhoc_keys import Steps

    # Steps; a number is for how many milliseconds there is nothing to do.
    Work = Generator[int | None, None, bytes]


READERS = (
    "laterne_protocol.trust",
    "laterne_protocol.credential",
    "laterne_protocol.public_keys",
    "laterne_protocol.cose",
)


class Refused(Exception):
    """An order that the operator gave and this board cannot execute. args: a reason of laterne_protocol.receipt."""


def work(sessions: "Sessions", step: int, body: bytes) -> "Work":
    """What `sessions` answers: the receipt of an order, the digest of one that arrived; empty for what is refused."""
    done = executed.load()
    if step == messages.RECEIPT_ARRIVED:
        return _arrived(sessions, done, body)
    digest = report.digest(body)
    if done is not None and done.order == digest:
        return done.receipt
    if sessions.identity.silent:
        return b""
    try:
        payload = yield from verified(body, fields.MAX_ORDER_BYTES, "laterne/order/1", "order")
        from laterne_protocol import order, receipt

        told = order.order_of(payload)
        if told.board != sessions.identity.board:
            raise ObjectError("it is for another board")
        if step != messages.ORDER and told.action != order.DECOMMISSION:  # a gateway judges when others are over
            raise ObjectError("by USB only the end of service is ordered")
    except WireError as why:
        sessions.log("an order was refused: %s" % why)
        return b""
    if told.kid != sessions.identity.kid:
        return (yield from signed(sessions, digest, receipt.OTHER_KEY, None))
    if done is not None and told.counter <= done.counter:
        return (yield from signed(sessions, digest, receipt.OLD, None))
    sessions.log("order %d begins" % told.counter)
    try:
        answer = yield from _executed(sessions, told, digest)
    except Refused as why:
        sessions.log("order %d is refused: %s" % (told.counter, receipt.REASONS[why.args[0]]))
        answer = yield from signed(sessions, digest, why.args[0], None)
        Executed(told.board, told.counter, digest, answer, sessions.identity.kid).save()
    return answer


def _executed(sessions: "Sessions", told: "order.Order", digest: bytes) -> "Work":
    # Each action in a module of its own, loaded when all that verified the order has left memory.
    if told.action == 3:  # order.DECOMMISSION
        from laterne_firmware import decommission

        return (yield from decommission.work(sessions, told, digest))
    if told.action > 3:
        from laterne_firmware import release_orders

        return (yield from release_orders.work(sessions, told, digest))
    from laterne_firmware import rotation

    return (yield from rotation.work(sessions, told, digest))


def verified(body: bytes, max_bytes: int, domain: str, role: str) -> "Steps":
    """The payload of an object by a key that the trust on flash has for this role. Raises WireError."""
    unload_arithmetic()
    payload, message, signature, keys = _read(body, max_bytes, domain, role)
    unload(*READERS)
    found = False
    for key in keys:
        found = found or (yield from _is_by(key, message, signature))
    unload("laterne_firmware.p256_peer")  # the rest of the arithmetic stays for what is signed next
    if not found:
        raise SignatureError("not signed by a key of ours for %ss" % role)
    return payload


def _read(body: bytes, max_bytes: int, domain: str, role: str) -> "tuple[bytes, bytes, bytes, list[bytes]]":
    # Payload, what is signed, the signature, and whose it may be.
    from laterne_protocol import cose, public_keys, trust

    one = cose.parse(body, max_bytes)
    cose.check_low_s(one.signature)
    keys = trust.trust_payload_of(Record(TRUST).load() or b"").keys[role]
    # Only the key that it names: each try costs more than a second.
    keys = [key for key in keys if public_keys.kid(key) == one.kid]
    return one.payload, cose.to_be_signed(domain, one.protected, one.payload), one.signature, keys


def _is_by(key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
    from laterne_firmware import p256_peer

    try:
        return (yield from p256_peer.verify(key, message, signature))
    except ValueError:  # KeyRefused: no signature belongs to what is no key
        return False


def signed(sessions: "Sessions", digest: bytes, reason: "int | None", result: "bytes | int | None") -> "Steps":
    """The receipt for the order with this digest, by the key that speaks now. reason: None when it was done."""
    from laterne_protocol import receipt

    identity = sessions.identity
    made = receipt.Receipt(
        identity.board or "",
        digest,
        receipt.DONE if reason is None else receipt.REFUSED,
        reason,
        sessions.reporter.backlog.next_sequence - 1,
        result,
    )
    unload(*READERS)  # also those of an object that could not be read
    answer = yield from identity.sign("laterne/receipt/1", made.to_payload(), sessions.random)
    unload_arithmetic()
    return answer


def _arrived(sessions: "Sessions", done: "Executed | None", digest: bytes) -> bytes:
    # Nobody signs this: a gateway that lies can make a board blank that its operator took out of service, no other.
    if done is None or report.digest(done.receipt) != digest:
        return b""
    if done.speaks is None and not done.blank:
        done.blank = True
        done.save()
        sessions.log("the receipt has arrived: everything is erased")
        sessions.ended = True  # the next start does it
    return digest
