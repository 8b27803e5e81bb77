"""Orders go to the board that is meant and to no other; its receipt comes back, whoever is killed in between."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import Parts, parts

from laterne_gateway import orders
from laterne_gateway.orders import Orders
from laterne_protocol import cose, messages, order, receipt


class SetClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.utc_now_ms: int | None = None

    def monotonic_s(self) -> float:
        return self.now_s

    def utc_ms(self) -> int | None:
        return self.utc_now_ms


def given(parts: Parts) -> tuple[Orders, SetClock]:
    clock = SetClock()
    return Orders(parts.roster, lambda: [parts.trusts.newest], clock, parts.health), clock


def answer(board: FakeBoard, errand: orders.Errand) -> "messages.Message":
    said = board.orders.answer(messages.Enrolment(7, errand.step, errand.body))
    assert said is not None
    return messages.message_of(said)


def flipped(signed: bytes) -> bytes:
    """With another last bit."""
    return signed[:-1] + bytes((signed[-1] ^ 1,))


FORGED: dict[str, Callable[[FakeAuthority, FakeBoard], bytes]] = {
    "by a key that is none of ours": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=Key()),
    "by the roster key": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=a.roster_key),
    "by the board itself": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=b.key),
    "for another board": lambda a, b: a.order("LE-0008", b.key.kid, order.DECOMMISSION, True),
    "another object of the order key": lambda a, b: a.order_key.sign(
        cose.RECEIPT, order.Order(b.name, b.key.kid, 1, order.ROTATE, None).to_payload()
    ),
    "no order inside": lambda a, b: a.order_key.sign(cose.ORDER, b"\xa1\x01\x02"),
    "changed on the way": lambda a, b: flipped(a.order(b.name, b.key.kid, order.ROTATE)),
    "noise": lambda a, b: os.urandom(100),
    "without end": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE) + bytes(700),
    "a credential that is none": lambda a, b: a.order(b.name, b.key.kid, order.TAKE, b"\x01"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_what_no_order_key_has_signed_for_this_board_never_reaches_it(
    tmp_path: Path, forge: Callable[[FakeAuthority, FakeBoard], bytes]
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board, FakeBoard("LE-0008")) as gateway:
        held, _ = given(gateway)
        held.take(board.name, forge(gateway.authority, board))
        assert held.errand(board.name) is None
        assert gateway.health.counted(board.name, "orders refused") == 1
        held.take(board.name, gateway.authority.order(board.name, board.key.kid, order.ROTATE))
        assert held.errand(board.name) is not None


async def test_orders_for_whoever_is_not_on_the_roster_take_no_memory(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        held, _ = given(gateway)
        for number in range(1000):
            held.take(f"LE-{number + 1000}", bytes(700))
        held.take("../etc", b"x")
        assert held._carried == {}
        assert gateway.health.counted("orders", "refused: not on the roster") == 1000
        assert gateway.health.counted("orders", "refused: no board's topic") == 1


async def test_a_board_is_told_that_its_receipt_has_arrived_after_the_broker_said_so_and_never_before(
    tmp_path: Path,
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        board.meet(gateway.authority)
        held, clock = given(gateway)
        body = gateway.authority.order(board.name, board.key.kid, order.DECOMMISSION, True)
        held.take(board.name, body)
        errand = held.errand(board.name)
        assert errand == orders.Errand(messages.ORDER, body, order.digest(body))
        assert held.errand(board.name) is None, "not before the board had its time"
        held.answered(board.name, errand, answer(board, errand))
        name, signed, noted = await held.receipt()
        assert (name, noted) == (board.name, False)
        clock.now_s += 100
        assert held.errand(board.name) is None
        held.connected()  # the connection was lost before the PUBACK: it goes out again
        assert await held.receipt() == (name, signed, False)
        held.published(name, signed, False)
        errand = held.errand(board.name)
        assert errand is not None
        assert (errand.step, errand.body) == (messages.RECEIPT_ARRIVED, receipt.digest(signed))
        held.answered(board.name, errand, answer(board, errand))
        assert board.orders.arrived == [receipt.digest(signed)]
        assert await held.receipt() == (name, signed, True)
        held.published(name, signed, True)
        clock.now_s += 100
        assert held.errand(board.name) is None
        # The operator's command lost it: it sends the order again, and the same receipt comes.
        held.take(board.name, body)
        errand = held.errand(board.name)
        assert errand is not None
        held.answered(board.name, errand, answer(board, errand))
        assert await held.receipt() == (name, signed, False)
        assert board.orders.executed == [order.DECOMMISSION]


async def test_an_order_that_was_taken_away_or_replaced_is_not_asked_for_any_more(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        board.meet(gateway.authority)
        held, clock = given(gateway)
        first = gateway.authority.order(board.name, board.key.kid, order.ROTATE)
        second = gateway.authority.order(board.name, board.key.kid, order.ROTATE)
        held.take(board.name, first)
        errand = held.errand(board.name)
        assert errand is not None
        held.take(board.name, second)
        held.answered(board.name, errand, answer(board, errand))  # to the order that does not count any more
        later = held.errand(board.name)
        assert later is not None
        assert later.body == second
        held.take(board.name, b"")
        held.answered(board.name, later, answer(board, later))
        clock.now_s += 100
        assert held.errand(board.name) is None
        held.take(board.name, first)
        held.connected()  # it did not come again: it was taken away while we were not there
        assert held.errand(board.name) is None


async def test_a_board_that_never_finishes_is_left_alone_and_a_person_is_told(tmp_path: Path) -> None:
    board = FakeBoard()
    board.orders.works = 10**6
    async with parts(tmp_path, board) as gateway:
        board.meet(gateway.authority)
        held, clock = given(gateway)
        held.take(board.name, gateway.authority.order(board.name, board.key.kid, order.ROTATE))
        while (errand := held.errand(board.name)) is not None:
            held.answered(board.name, errand, answer(board, errand))
            clock.now_s += orders.AGAIN_S
        assert len(board.orders.heard) == orders.PATIENCE_S / orders.AGAIN_S + 1
        clock.now_s += 1000
        assert held.errand(board.name) is None
        alarms = gateway.health.snapshot()[board.name]["alarms"]
        assert alarms == [
            "it has not answered its order for 600 s; give the operator's command again to go on",
        ]


async def test_an_answer_that_is_no_receipt_for_the_order_is_not_passed_on(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        held, clock = given(gateway)
        body = gateway.authority.order(board.name, board.key.kid, order.ROTATE)
        for said in (
            receipt.Receipt("LE-0008", order.digest(body), receipt.DONE, None, 1, None),
            receipt.Receipt(board.name, bytes(16), receipt.DONE, None, 1, None),
        ):
            held.take(board.name, body)
            errand = held.errand(board.name)
            assert errand is not None
            signed = board.key.sign(cose.RECEIPT, said.to_payload())
            held.answered(board.name, errand, messages.Enrolment(7, messages.RECEIPT, signed))
            clock.now_s += 100
            assert held.errand(board.name) is None
        assert gateway.health.counted(board.name, "orders given up") == 2


async def test_an_order_to_try_a_release_waits_for_the_gateways_clock_and_is_not_relayed_after_its_end(
    tmp_path: Path,
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        held, clock = given(gateway)
        until_s = 1_790_000_000
        body = gateway.authority.order(board.name, board.key.kid, order.ARM, [bytes(16), bytes(8), until_s])
        held.take(board.name, body)
        clock.now_s += 10 * orders.PATIENCE_S
        assert held.errand(board.name) is None, "nobody knows yet whether it is in time"
        clock.utc_now_ms = until_s * 1000
        errand = held.errand(board.name)
        assert errand is not None
        assert errand.body == body
        held.answered(board.name, errand, messages.Refusal(7, messages.NOT_READY))
        clock.now_s += orders.AGAIN_S
        clock.utc_now_ms += 1
        assert held.errand(board.name) is None, "not even again"
        assert gateway.health.counted(board.name, "orders given up") == 1
        clock.utc_now_ms -= 1  # a clock that is set back brings it to life only by another order
        assert held.errand(board.name) is None
        held.take(board.name, gateway.authority.order(board.name, board.key.kid, order.STAGE, [bytes(16), 1, bytes(8)]))
        clock.utc_now_ms = None
        assert held.errand(board.name) is not None, "what has no end needs no clock"
