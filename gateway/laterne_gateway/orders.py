"""Orders: from the broker to the board that is meant, in its session, and the board's receipt back.

Nothing of this is on our disk, and need not be: the order lies retained at the broker until the operator's command has
the receipt, and a board gives the receipt of its last order again, byte for byte, whenever it gets that order again
(protocol/README.md, 12.5). What happens in which order:

1. The order comes, again at each connection and each time the operator's command is given again. It is verified before
   a board is bothered: a signature costs a board a second, and whoever may write at the broker is not an operator.
2. The board is asked, again every AGAIN_S while it works, for PATIENCE_S in all. Its reports are fetched meanwhile.
3. The receipt is published, retained: whoever waits for it may be away.
4. After the broker's PUBACK, never before, the board is told that its receipt has arrived. A decommissioned board then
   forgets the last key it has, and nobody can ask it again.
5. The receipt is published once more, as noted by the board. Then the operator's command takes order and receipt away;
   earlier, a gateway that was killed after 3 would not know that there is something to tell.

Killed between any two of these, we begin at 1 and the same receipt comes. We carry both and can make neither: no check
of counter or kid here, the board knows better; and none of the receipt's signature, it came in the board's session and
the operator's command judges it. One thing only we can judge: a board knows no date, so an order to arm a release that
has an end is held back while this machine has no time, and is not relayed after its end.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from laterne_gateway import primitives
from laterne_gateway.clock import Clock, rfc3339
from laterne_gateway.health import Health
from laterne_gateway.roster import RosterKeeper
from laterne_protocol import cose, credential, fields, messages, order, receipt, trust
from laterne_protocol.errors import ObjectError, SignatureError, WireError

log = logging.getLogger("laterne")

SUBJECT = "orders"
AGAIN_S = 2.0  # two new key pairs take an RP2040 about a second, in steps; a report's closing as long
PATIENCE_S = 600.0  # a board that is at something else for longer needs a person
ACTIONS = {
    order.ROTATE: "rotate",
    order.TAKE: "take the new credential",
    order.DECOMMISSION: "decommission",
    order.STAGE: "fetch a release",
    order.ARM: "try the release that was fetched",
    order.ABANDON: "drop a release",
}

# What an order waits for.
BOARD = "the board's receipt"
BROKER = "the broker to take the receipt"
NOTED = "the board to note that its receipt has arrived"
LAST = "the broker to take that it has noted it"
NOTHING = "nothing"

# (what it waited for, what happened) -> what it waits for now. Whatever else happens changes nothing.
NEXT = {
    (BOARD, "receipt"): BROKER,
    (BOARD, "refused"): NOTHING,
    (BOARD, "patience over"): NOTHING,
    (BOARD, "too late"): NOTHING,
    (BROKER, "PUBACK"): NOTED,
    (NOTED, "noted"): LAST,
    (NOTED, "refused"): LAST,  # it has no such receipt any more: nothing is left to be told
    (NOTED, "patience over"): NOTHING,
    (LAST, "PUBACK"): NOTHING,
}


@dataclass
class Carried:
    """One order. digest: of its bytes. due_s: when the board may be asked (monotonic). since_s: when it first was.

    judged: the trusts under which it was found good, None before. receipt: once the board has given it.
    """

    body: bytes
    digest: bytes
    waits_for: str = BOARD
    due_s: float = 0.0
    since_s: float | None = None
    judged: Sequence[trust.Trust] | None = None
    said: order.Order | None = None
    receipt: bytes = b""


@dataclass(frozen=True)
class Errand:
    """What a board is to be asked now. step, body: of the message. digest: whose order it is."""

    step: int
    body: bytes
    digest: bytes


def verified_order(body: bytes, trusts: Sequence[trust.Trust], board: str) -> order.Order:
    """The order in these bytes, once an order key is found to have signed it for this board. Raises WireError."""
    signed = cose.parse(body, order.MAX_ORDER_BYTES)
    keys = (key for trusted in reversed(trusts) for key in trusted.keys[trust.ORDER])
    key = next((one for one in keys if credential.kid(one) == signed.kid), None)
    if key is None:
        raise SignatureError(f"key {signed.kid.hex()} is no order key of our trust")
    found = order.order_of(cose.verify(signed, cose.ORDER, partial(primitives.valid, key)))
    if found.board != board:
        raise ObjectError(f"it is for {found.board}")
    return found


class Orders:
    """At most one order for each board of the roster. trusts: those that count, the one in force last."""

    def __init__(
        self, roster: RosterKeeper, trusts: Callable[[], Sequence[trust.Trust]], clock: Clock, health: Health
    ) -> None:
        self._roster = roster
        self._trusts = trusts
        self._clock = clock
        self._health = health
        self._carried: dict[str, Carried] = {}
        self._news = asyncio.Event()

    # From and to the broker -------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """Retained orders come again now; what does not was taken away while we were not there.

        Receipts that the broker has not confirmed stay, and go out on this connection.
        """
        self._carried = {board: one for board, one in self._carried.items() if one.waits_for in (BROKER, LAST)}

    def take(self, board: str, body: bytes) -> None:
        """What came for a board; b"": its order was taken away. board: of the topic, a stranger's word."""
        if not body:
            if self._carried.pop(board, None) is not None:
                log.info("%s: no order any more", board)
            return
        try:
            fields.board_id(board)
        except ObjectError:
            self._health.count(SUBJECT, "refused: no board's topic")
            return
        if self._roster.entry(board) is None:
            self._health.count(SUBJECT, "refused: not on the roster")
            return
        if len(body) > order.MAX_ORDER_BYTES:
            self._health.count(board, "orders refused")
            return
        # The roster bounds it: at most 256 boards. Who is not on it any more is dropped here.
        self._carried = {name: one for name, one in self._carried.items() if self._roster.entry(name) is not None}
        former, digest = self._carried.get(board), order.digest(body)
        if former is not None and former.digest == digest and former.waits_for != NOTHING:
            return  # the same again, and it is under way
        self._carried[board] = Carried(body, digest)

    async def receipt(self) -> tuple[str, bytes, bool]:
        """Waits for something that the broker has not confirmed: the board, its receipt, whether it has noted (5)."""
        while True:
            for board, one in self._carried.items():
                if one.waits_for in (BROKER, LAST):
                    return board, one.receipt, one.waits_for == LAST
            self._news.clear()
            await self._news.wait()

    def published(self, board: str, body: bytes, noted: bool) -> None:
        """The broker has confirmed this receipt."""
        one = self._carried.get(board)
        if one is None or (one.receipt, one.waits_for) != (body, LAST if noted else BROKER):
            return  # another order has come meanwhile
        self._move(one, "PUBACK")
        one.due_s, one.since_s = 0.0, None
        self._health.count(board, "receipts noted" if noted else "receipts delivered")
        log.info("%s: %s", board, "knows that its receipt has arrived" if noted else "its receipt is at the broker")

    # From and to the board ------------------------------------------------------------------------------------------

    def errand(self, board: str) -> Errand | None:
        """What the board is to be asked now, if anything."""
        one, now_s = self._carried.get(board), self._clock.monotonic_s()
        if one is None or one.waits_for not in (BOARD, NOTED) or one.due_s > now_s or not self._is_good(board, one):
            return None
        if one.waits_for == BOARD and not self._is_in_time(board, one):
            return None
        if one.since_s is None:
            one.since_s = now_s
        elif now_s - one.since_s > PATIENCE_S:
            self._give_up(board, one, "patience over", f"it has not answered its order for {PATIENCE_S:.0f} s")
            return None
        one.due_s = now_s + AGAIN_S
        if one.waits_for == NOTED:
            return Errand(messages.RECEIPT_ARRIVED, receipt.digest(one.receipt), one.digest)
        return Errand(messages.ORDER, one.body, one.digest)

    def answered(self, board: str, errand: Errand, answer: "messages.Message") -> None:
        """What the board has said to an errand."""
        one = self._carried.get(board)
        if one is None or one.digest != errand.digest:
            return  # another order has come, or none is there any more
        if isinstance(answer, messages.Refusal):
            if answer.reason != messages.NOT_READY:
                why = messages.REFUSALS.get(answer.reason, f"reason {answer.reason}")
                self._give_up(board, one, "refused", f"it refuses its order: {why}")
            return
        if not isinstance(answer, messages.Enrolment):
            return
        if (errand.step, answer.step) == (messages.RECEIPT_ARRIVED, messages.ARRIVAL_NOTED):
            self._move(one, "noted")
            self._news.set()
        elif (errand.step, answer.step) == (messages.ORDER, messages.RECEIPT):
            self._take_receipt(board, one, answer.body)

    def _is_good(self, board: str, one: Carried) -> bool:
        trusts = self._trusts()
        if one.judged is not None and list(one.judged) == list(trusts):
            return one.said is not None
        one.judged, one.said = trusts, None
        try:
            one.said = verified_order(one.body, trusts, board)
            if one.said.action == order.TAKE:
                # Its new reports shall wait on it until our roster knows the key; it judges the credential itself.
                assert isinstance(one.said.argument, bytes)
                claims = credential.credential_of(
                    cose.parse(one.said.argument, credential.MAX_CREDENTIAL_BYTES).payload
                )
                self._roster.expect(board, credential.kid(claims.sign_key))
        except WireError as why:
            one.said = None  # judged again when the trust has changed
            self._health.count(board, "orders refused")
            self._health.say(board, "order refused", f"{board}: order refused: {why}", logging.WARNING)
            return False
        log.info("%s: order %d, %s", board, one.said.counter, ACTIONS[one.said.action])
        return True

    def _is_in_time(self, board: str, one: Carried) -> bool:
        if one.said is None or one.said.action != order.ARM:
            return True
        utc_ms = self._clock.utc_ms()
        if utc_ms is None:  # it waits: a board that is told hours late would reset in somebody's working day
            return False
        assert isinstance(one.said.argument, list)
        not_after_s = one.said.argument[2]
        assert isinstance(not_after_s, int)
        if utc_ms <= not_after_s * 1000:
            return True
        self._give_up(board, one, "too late", f"its order to try a release ended at {rfc3339(not_after_s * 1000)}")
        return False

    def _take_receipt(self, board: str, one: Carried, body: bytes) -> None:
        try:
            found = receipt.receipt_of(cose.parse(body, receipt.MAX_RECEIPT_BYTES).payload)
            if (found.board, found.order) != (board, one.digest):
                raise ObjectError(f"it is by {found.board}, for the order {found.order.hex()}")
        except WireError as why:
            self._give_up(board, one, "refused", f"it answers its order with what is no receipt for it: {why}")
            return
        one.receipt = body
        self._move(one, "receipt")
        self._health.clear(board, "order")
        self._health.count(board, "receipts")
        self._news.set()

    def _give_up(self, board: str, one: Carried, what: str, sentence: str) -> None:
        has_receipt = one.waits_for == NOTED
        self._move(one, what)
        self._news.set()
        if not has_receipt:  # else the operator has what was wanted
            self._health.count(board, "orders given up")
            self._health.alarm(board, "order", f"{sentence}; give the operator's command again to go on")

    def _move(self, one: Carried, what: str) -> None:
        one.waits_for = NEXT.get((one.waits_for, what), one.waits_for)
