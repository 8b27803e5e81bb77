"""The end of a board's service (protocol/README.md, 12.4): it delivers what it has, and never signs again.

The receipt is signed before the key goes and is on flash with the record that ends the key; `executed.finish` erases.
Flash keeps what was erased until its block is used again: who takes the chip off the board can find it there.
"""

from micropython import const

from laterne_firmware import executed, orders
from laterne_firmware.executed import Executed
from laterne_firmware.orders import Refused
from laterne_protocol import order, receipt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from laterne_firmware.orders import Work
    from laterne_firmware.sessions import Sessions

# A gateway polls every 2 s while an order is under way (protocol/README.md, 12.5), and commits in less than one.
_NOTHING_ACKNOWLEDGED_MS = const(15000)
_LOOK_MS = const(100)


def work(sessions: "Sessions", told: order.Order, digest: bytes) -> "Work":
    """The receipt of the executed order. Raises orders.Refused; OSError when the flash refuses."""
    reporter, backlog, clock = sessions.reporter, sessions.reporter.backlog, sessions.clock
    reporter.hold = True
    while not reporter.is_quiet:
        yield 20
    acknowledged, since_ms = backlog.acknowledged, clock.now_ms()
    while backlog.waiting:
        yield _LOOK_MS
        if backlog.acknowledged > acknowledged:
            acknowledged, since_ms = backlog.acknowledged, clock.now_ms()
        elif clock.now_ms() - since_ms > _NOTHING_ACKNOWLEDGED_MS:
            if told.argument:
                break
            reporter.hold = False
            raise Refused(receipt.REPORTS_WAIT)
    last = backlog.next_sequence - 1
    # What was acknowledged may be known one report late after a start; that none waits is certain.
    delivered = backlog.acknowledged if backlog.waiting else last
    answer = yield from orders.signed(sessions, digest, None, delivered)
    try:
        done = Executed(told.board, told.counter, digest, answer, None)
        sessions.identity.silence()  # before it is on flash: whatever happens now, this start signs nothing more
        done.save()
        yield from executed.finish(done)
    except MemoryError:
        raise OSError("no memory while the key was erased")  # ends this start; the next one goes on from flash
    sessions.log("out of service after report %d: nothing is signed any more" % last)
    return answer
