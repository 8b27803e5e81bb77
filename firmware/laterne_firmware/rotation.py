"""New keys for this board, in two orders: ROTATE makes them, TAKE makes them speak (protocol/README.md, 12.3).

ROTATE changes nothing that is in force. TAKE does all that can fail or take long first, then holds the readings back so
that no report is open or being signed, and takes everything at once with the record of the executed order.
"""

from laterne_firmware import executed, orders
from laterne_firmware.executed import KEYS_BYTES, NEXT, Executed
from laterne_firmware.identity import FORMER, Identity, unload_arithmetic
from laterne_firmware.memory import unload
from laterne_firmware.orders import READERS, Refused
from laterne_firmware.store import Record
from laterne_protocol import fields, order, receipt, report
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from laterne_firmware.orders import Work
    from laterne_firmware.sessions import Sessions
    from laterne_protocol.edhoc_keys import Steps


def work(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    """The receipt of the executed order. Raises orders.Refused; OSError when the flash refuses."""
    if told.action == order.ROTATE:
        return (yield from _rotate(sessions, told, digest))
    return (yield from _take(sessions, told, digest))


def _rotate(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    keys = yield from _pairs(sessions)
    unload("laterne_firmware.first_keys", "laterne_protocol.public_keys")
    unload_arithmetic()
    Record(NEXT).save(keys)  # before anybody hears of them
    following = Identity()
    following.take_keys(keys)
    claims = _claims_of(following, digest, sessions.about)
    unload(*READERS)
    possession = yield from following.sign("laterne/possession/1", claims, sessions.random)
    answer = yield from orders.signed(sessions, digest, None, possession)
    Executed(told.board, told.counter, digest, answer, told.kid).save()
    sessions.log("next keys made, kid %s" % (following.kid or b"").hex())
    return answer


def _pairs(sessions: "Sessions") -> "Steps":
    from laterne_firmware import first_keys

    return (yield from first_keys.pairs(sessions.random))


def _claims_of(following: Identity, nonce: bytes, about: "tuple[int, str, bytes]") -> bytes:
    from laterne_protocol.credential import Possession

    return Possession(nonce, following.sign_key, following.agree_key, *about).to_payload()


def _take(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    identity, reporter = sessions.identity, sessions.reporter
    new = told.argument
    assert isinstance(new, bytes)
    keys = (Record(NEXT).load() or b"")[:KEYS_BYTES]
    try:
        unload_arithmetic()
        board, sign_key, agree_key = _named_in(new)
        unload(*READERS)
        if sign_key != keys[32:96] or agree_key != keys[128:192]:
            raise Refused(receipt.NO_NEXT_KEYS)
        if board != told.board:
            raise Refused(receipt.BAD_CREDENTIAL)
        yield from orders.verified(new, fields.MAX_CREDENTIAL_BYTES, "laterne/credential/1", "enrolment")
    except WireError:
        raise Refused(receipt.BAD_CREDENTIAL)
    speaks = keys[192:]
    Record(NEXT).save(keys + new)
    reporter.hold = True
    while not reporter.is_quiet:
        yield 20
    # From here to the end of the hold nothing is signed but this: the last report of the present key has its number.
    answer = yield from orders.signed(sessions, digest, None, None)
    try:
        done = Executed(told.board, told.counter, digest, answer, speaks)
        done.save()
        yield from executed.finish(done)
        identity.take_keys(keys)
        identity.former_agree_key = (Record(FORMER).load() or b"")[32:]
        identity.credential_digest = report.digest(new)
        sessions.formerly = True
    except MemoryError:
        # It may be half in force. The failed task ends this start; the next one makes it whole, or finds nothing of it.
        raise OSError("no memory while keys were taken")
    reporter.hold = False
    sessions.log("keys taken, kid %s speaks after report %d" % (speaks.hex(), reporter.backlog.next_sequence - 1))
    return answer


def _named_in(signed: bytes) -> "tuple[str, bytes, bytes]":
    # Whom a credential names and with which keys, not verified yet. Raises WireError.
    from laterne_protocol import cose, credential

    claims = credential.credential_of(cose.parse(signed, fields.MAX_CREDENTIAL_BYTES).payload)
    return claims.board, claims.sign_key, claims.agree_key
