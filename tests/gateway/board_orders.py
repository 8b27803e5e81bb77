"""What a board does with orders, as protocol/README.md, 12 says, without the flash: for FakeBoard."""

from functools import partial
from typing import TYPE_CHECKING

from tests.gateway.board_sessions import BoardSessions
from tests.gateway.fake_authority import Key

from laterne_gateway import primitives
from laterne_protocol import cose, credential, messages, order, receipt, trust
from laterne_protocol.errors import WireError

if TYPE_CHECKING:
    from tests.gateway.fake_board import FakeBoard


class BoardOrders:
    """works: so many questions are answered by "busy" before an order is done. heard: orders that came, one by one.

    arrived: digests of the receipts that the broker has, as told.
    """

    def __init__(self, board: "FakeBoard") -> None:
        self.board = board
        self.works = 0
        self.heard: list[bytes] = []
        self.executed: list[int] = []
        self.arrived: list[bytes] = []
        self.decommissioned = False
        self.deaf_to_arrival = False
        self.next: tuple[Key, Key] | None = None
        self.credential = b""
        self._counter = 0
        self._digest = b""
        self._receipt = b""

    def answer(self, question: messages.Enrolment) -> bytes | None:
        if question.step == messages.RECEIPT_ARRIVED:
            if self.deaf_to_arrival:
                return None
            if question.body != receipt.digest(self._receipt):
                return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED).to_bytes()
            self.arrived.append(question.body)
            return messages.Enrolment(question.number, messages.ARRIVAL_NOTED, question.body).to_bytes()
        if question.step != messages.ORDER:
            return None
        self.heard.append(question.body)
        if order.digest(question.body) == self._digest:
            return messages.Enrolment(question.number, messages.RECEIPT, self._receipt).to_bytes()
        try:
            found = self._verified(question.body)
        except WireError:
            return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED).to_bytes()
        if self.works:
            self.works -= 1
            return messages.Refusal(question.number, messages.NOT_READY).to_bytes()
        if found.counter <= self._counter:
            answer = self._signed(self.board.key, question.body, receipt.OLD, None)
        else:
            answer = self._execute(question.body, found)
        return messages.Enrolment(question.number, messages.RECEIPT, answer).to_bytes()

    def _verified(self, body: bytes) -> order.Order:
        assert self.board.sessions.trust is not None
        signed = cose.parse(body, order.MAX_ORDER_BYTES)
        for key in self.board.sessions.trust.keys[trust.ORDER]:
            if credential.kid(key) == signed.kid:
                found = order.order_of(cose.verify(signed, cose.ORDER, partial(primitives.valid, key)))
                if found.board == self.board.name:
                    return found
        raise WireError("not for us")

    def _execute(self, body: bytes, found: order.Order) -> bytes:
        board, former = self.board, self.board.key
        reason: int | None = None
        result: bytes | int | None = None
        if found.action == order.ROTATE:
            self.next = self.next or (Key(), Key())
            sign, agree = self.next
            proof = credential.Possession(order.digest(body), sign.public, agree.public, 0, "fake", b"\x01\x02")
            result = sign.sign(cose.POSSESSION, proof.to_payload())
        elif found.action == order.TAKE:
            reason = self._take(found.argument)
        elif found.action >= order.STAGE:
            assert isinstance(found.argument, list)
            reason = board.updates.order(found.action, found.argument)
        elif board.backlog and found.argument is False:
            reason = receipt.REPORTS_WAIT
        else:
            self.decommissioned, result = True, board.acknowledged
        self._counter = found.counter
        self._digest = order.digest(body)
        self._receipt = self._signed(former, body, reason, result)
        self.executed.append(found.action)
        return self._receipt

    def _take(self, argument: object) -> int | None:
        assert isinstance(argument, bytes)
        claims = credential.credential_of(cose.parse(argument, credential.MAX_CREDENTIAL_BYTES).payload)
        if self.next is None or claims.sign_key != self.next[0].public:
            return receipt.NO_NEXT_KEYS
        board = self.board
        board.close_reports(1)
        board.key, board.agree_key = self.next
        self.credential, self.next = argument, None
        # What it says in the session that it has goes on; the next handshake is with the new key.
        opened = board.sessions
        board.sessions = BoardSessions(board.name, board.agree_key.secret, board.agree_key.public, board.address)
        board.sessions.trust, board.sessions.session = opened.trust, opened.session
        return None

    def _signed(self, key: Key, body: bytes, reason: int | None, result: bytes | int | None) -> bytes:
        outcome = receipt.DONE if reason is None else receipt.REFUSED
        last = max(self.board.taken, default=0)
        said = receipt.Receipt(self.board.name, order.digest(body), outcome, reason, last, result)
        return key.sign(cose.RECEIPT, said.to_payload())
