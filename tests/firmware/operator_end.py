"""An operator's part of orders, for tests of the real firmware: what the authority signs, how a gateway asks for it.

Orders go to one board, each with the next counter. Receipts are checked with `cryptography`, by the key that must have
signed them.
"""

from __future__ import annotations

import asyncio

from tests.firmware.questions import WITHIN_S, Asker, verify
from tests.gateway.fake_authority import Key

from laterne_protocol import cose, credential, messages, order, receipt

ASKED_AGAIN_AFTER_S = 0.1


class Operator:
    """Orders for the board that an Asker has enrolled. counter: of the last order."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.counter = 0
        self.numbers = 0  # of credentials

    def order(
        self,
        action: int,
        argument: bytes | bool | list[bytes | int] | None = None,
        *,
        board: str | None = None,
        sign_key: bytes | None = None,
        counter: int | None = None,
        key: Key | None = None,
        domain: str = cose.ORDER,
    ) -> bytes:
        """A signed order; whatever is not given is as it should be."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        kid = credential.kid(sign_key or self.asker.sign_key)
        made = order.Order(board or self.asker.name, kid, counter, action, argument)
        return (key or self.asker.authority.order_key).sign(domain, made.to_payload())

    def new_credential(
        self,
        keys: credential.Possession,
        *,
        board: str | None = None,
        key: Key | None = None,
        domain: str = cose.CREDENTIAL,
    ) -> bytes:
        """A new credential for the keys that a board has proved."""
        self.numbers += 1
        claims = credential.Credential(
            "Testingen", board or self.asker.name, 1_770_000_000, self.numbers.to_bytes(8, "big"),
            keys.sign_key, keys.agree_key, keys.tier, keys.model, (1, 9),
        )  # fmt: skip
        return (key or self.asker.authority.enrolment_key).sign(domain, claims.to_payload())

    async def tell(self, signed: bytes, *, polling: bool = True) -> bytes:
        """What the board answers to an order, b"" when it refuses it; asked again while it works."""
        async with asyncio.timeout(3 * WITHIN_S):
            while True:
                answer = await self.asker.ask(lambda number: messages.Enrolment(number, messages.ORDER, signed))
                if isinstance(answer, messages.Enrolment):
                    assert answer.step == messages.RECEIPT
                    return answer.body
                if answer.reason == messages.CREDENTIAL_REFUSED:
                    return b""
                assert answer.reason == messages.NOT_READY, answer.reason
                if polling:
                    await self.asker.poll()
                await asyncio.sleep(ASKED_AGAIN_AFTER_S)

    async def told(self, signed: bytes, *, sign_key: bytes | None = None, polling: bool = True) -> receipt.Receipt:
        """The receipt for an order, by the board's present key or another one."""
        return self.read(signed, await self.tell(signed, polling=polling), sign_key)

    def read(self, signed: bytes, answer: bytes, sign_key: bytes | None = None) -> receipt.Receipt:
        """The receipt in an answer, checked."""
        found = receipt.receipt_of(verify(sign_key or self.asker.sign_key, answer, cose.RECEIPT))
        assert found.board == self.asker.name
        assert found.order == order.digest(signed)
        return found

    async def rotate(self) -> credential.Possession:
        """The next keys of the board, as it has proved them."""
        signed = self.order(order.ROTATE)
        return self.proved(signed, await self.told(signed))

    def proved(self, signed: bytes, found: receipt.Receipt) -> credential.Possession:
        """The next keys in a receipt, checked."""
        assert found.outcome == receipt.DONE, found.reason
        assert isinstance(found.result, bytes)
        keys = credential.possession_of(cose.parse(found.result, 512).payload)
        verify(keys.sign_key, found.result, cose.POSSESSION)
        assert keys.nonce == order.digest(signed)
        return keys

    async def arrived(self, answer: bytes) -> bool:
        """Tells the board that a receipt has arrived; whether it takes note."""
        digest = receipt.digest(answer)
        async with asyncio.timeout(WITHIN_S):
            while True:
                noted = await self.asker.ask(
                    lambda number: messages.Enrolment(number, messages.RECEIPT_ARRIVED, digest)
                )
                if isinstance(noted, messages.Enrolment):
                    assert (noted.step, noted.body) == (messages.ARRIVAL_NOTED, digest)
                    return True
                if noted.reason == messages.CREDENTIAL_REFUSED:
                    return False
                assert noted.reason == messages.NOT_READY
