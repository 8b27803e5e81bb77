"""Orders about releases: STAGE, ARM, ABANDON (protocol/README.md, 12.6). In memory only while one is executed.

What an order does is on flash before its receipt is: the power may fail in between, and then the same order comes again
and finds that it was executed. So each first looks whether its effect is there, and only then at the nonce.
"""

from laterne_firmware import executed, ordered, orders
from laterne_firmware.executed import Executed
from laterne_firmware.identity import unload_arithmetic
from laterne_firmware.memory import unload
from laterne_firmware.orders import Refused
from laterne_firmware.slots import State
from laterne_protocol import order, receipt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from laterne_firmware.orders import Work
    from laterne_firmware.sessions import Sessions


def work(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    """The receipt of the executed order. Raises orders.Refused; OSError when the flash refuses."""
    assert isinstance(told.argument, list)
    state = State()
    state.load()
    state.floor = max(state.floor, sessions.floor)  # its nonce came from an answer that had found this one out
    release = bytes(told.argument[0])  # type: ignore[arg-type]  # protocol/order.py has judged it
    if told.action == order.STAGE:
        return (yield from _stage(sessions, told, digest, state, release))
    if told.action == order.ARM:
        return (yield from _arm(sessions, told, digest, state, release))
    return (yield from _abandon(sessions, told, digest, state, release))


def _stage(sessions: "Sessions", told: order.Order, digest: bytes, state: State, release: bytes) -> "Work":
    assert isinstance(told.argument, list)
    _, sequence, nonce = told.argument
    named = ordered.load()
    if named is None or named[2] != digest:
        _refuse_if(nonce != sessions.nonce, receipt.OLD_NONCE)
        _refuse_if(state.trial is not None, receipt.TRIAL_OPEN)
        _refuse_if(int(sequence) < state.floor, receipt.BELOW_FLOOR)
        _refuse_if(release == state.refused, receipt.FAILED_BEFORE)
    answer = yield from orders.signed(sessions, digest, None, None)
    ordered.save(release, int(sequence), digest)
    sessions.begin_updating_anew()
    return _done(sessions, told, digest, answer)


def _arm(sessions: "Sessions", told: order.Order, digest: bytes, state: State, release: bytes) -> "Work":
    assert isinstance(told.argument, list)
    if _tried(state) != release:
        staged = sessions.staged
        _refuse_if(told.argument[1] != sessions.nonce, receipt.OLD_NONCE)
        _refuse_if(state.trial is not None, receipt.TRIAL_OPEN)
        if staged is None or staged[0] != release:
            raise Refused(receipt.NOT_STAGED)
        _, slot, index, sequence = staged
        if (yield from _damage("/" + slot, index)):
            sessions.staged = None  # the next question finds what is missing
            raise Refused(receipt.NOT_STAGED)
        _refuse_if(slot == state.active, receipt.NOT_STAGED)
        yield from _quiet(sessions)
        answer = yield from orders.signed(sessions, digest, None, None)
        state.arm(slot, release, index, sequence)
        sessions.begin_updating_anew()
    else:
        answer = yield from orders.signed(sessions, digest, None, None)
    sessions.ended = True
    return _done(sessions, told, digest, answer)


def _damage(folder: str, index: bytes) -> "Work":
    unload_arithmetic()  # it verified the order, and comes back for the receipt
    from laterne_firmware import slot_check

    steps = slot_check.whole(folder, index)
    unload("laterne_firmware.slot_check", "laterne_protocol.release_index")
    found = yield from steps
    del steps
    return b"damaged" if found else b""


def _quiet(sessions: "Sessions") -> "Work":
    # What was read so far goes into a report: the start that follows would lose it.
    sessions.reporter.hold = True
    while not sessions.reporter.is_quiet:
        yield 20
    return b""


def _abandon(sessions: "Sessions", told: order.Order, digest: bytes, state: State, release: bytes) -> "Work":
    is_tried = _tried(state) == release
    if is_tried:
        yield from _quiet(sessions)
    answer = yield from orders.signed(sessions, digest, None, None)
    named = ordered.load()
    if named is not None and named[0] == release:
        executed.erase(ordered.RECORD)
    if is_tried:
        state.abandon()
    sessions.begin_updating_anew()
    if sessions.identity.trial and state.trial is None:
        sessions.ended = True  # also when memory failed a moment ago, after the trial had been ended
    return _done(sessions, told, digest, answer)


def _tried(state: State) -> "bytes | None":
    return state.slots[state.trial][0] if state.trial in state.slots else None


def _refuse_if(wrong: bool, reason: int) -> None:
    if wrong:
        raise Refused(reason)


def _done(sessions: "Sessions", told: order.Order, digest: bytes, answer: bytes) -> bytes:
    Executed(told.board, told.counter, digest, answer, sessions.identity.kid).save()
    sessions.nonce = sessions.random(order.NONCE_BYTES)
    return answer
