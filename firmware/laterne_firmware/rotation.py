"""New keys for this board, in two orders: ROTATE makes them, TAKE makes them speak (protocol/README.md, 12.3).

ROTATE changes nothing that is in force. TAKE does all that can fail or take long first, then holds the readings back so
that no report is open or being signed, and takes everything at once with the record of the executed order.
"""

from laterne_firmware import executed, orders
from laterne_firmware.executed import KEYS_BYTES, NEXT, Executed
from laterne_firmware.identity import FORMER, Identity
from laterne_firmware.orders import Refused
from laterne_firmware.p256 import KeyRefused
from laterne_firmware.store import Record
from laterne_protocol import cose, credential, order, receipt
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from laterne_firmware.orders import Work
    from laterne_firmware.sessions import Sessions


def work(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    """The receipt of the executed order. Raises orders.Refused; OSError when the flash refuses."""
    if told.action == order.ROTATE:
        return (yield from _rotate(sessions, told, digest))
    return (yield from _take(sessions, told, digest))


def _rotate(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    from laterne_firmware import first_keys

    keys = yield from first_keys.pairs(sessions.random)
    Record(NEXT).save(keys)  # before anybody hears of them
    following = Identity()
    following.take_keys(keys)
    tier, model, hardware = sessions.about
    claims = credential.Possession(digest, following.sign_key, following.agree_key, tier, model, hardware)
    possession = yield from following.sign(cose.POSSESSION, claims.to_payload(), sessions.random)
    answer = yield from orders.signed(sessions, digest, None, possession)
    Executed(told.board, told.counter, digest, answer, told.kid).save()
    sessions.log("next keys made, kid %s" % (following.kid or b"").hex())
    return answer


def _take(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    identity, reporter = sessions.identity, sessions.reporter
    new = told.argument
    assert isinstance(new, bytes)
    keys = (Record(NEXT).load() or b"")[:KEYS_BYTES]
    try:
        claims = credential.credential_of(cose.parse(new, credential.MAX_CREDENTIAL_BYTES).payload)
        if claims.sign_key != keys[32:96] or claims.agree_key != keys[128:192]:
            raise Refused(receipt.NO_NEXT_KEYS)
        if claims.board != told.board:
            raise Refused(receipt.BAD_CREDENTIAL)
        yield from orders.verified(new, credential.MAX_CREDENTIAL_BYTES, cose.CREDENTIAL, "enrolment")
    except (WireError, KeyRefused):
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
        identity.credential_digest = credential.digest(new)
        sessions.formerly = True
    except MemoryError:
        # It may be half in force. The failed task ends this start; the next one makes it whole, or finds nothing of it.
        raise OSError("no memory while keys were taken")
    reporter.hold = False
    sessions.log("keys taken, kid %s speaks after report %d" % (speaks.hex(), reporter.backlog.next_sequence - 1))
    return answer
