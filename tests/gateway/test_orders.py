"""Orders go to the board that is meant and to no other; its receipt comes back, whoever is killed in between."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
import pytest
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import GATEWAY, TENANT, GatewayProcess, Parts, parts, until
from tests.servers import Mosquitto

from laterne_gateway import orders
from laterne_gateway.inbox import ACCEPTED, AWAITS_ROSTER, REFUSED
from laterne_gateway.orders import Orders
from laterne_protocol import cose, credential, messages, order, receipt, report, roster

MakeLine = Callable[..., FakeLine]


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


FORGED: dict[str, Callable[[FakeAuthority, FakeBoard], bytes]] = {
    "by a key that is none of ours": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=Key()),
    "by the roster key": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=a.roster_key),
    "by the board itself": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE, key=b.key),
    "for another board": lambda a, b: a.order("LE-0008", b.key.kid, order.DECOMMISSION, True),
    "another object of the order key": lambda a, b: a.order_key.sign(
        cose.RECEIPT, order.Order(b.name, b.key.kid, 1, order.ROTATE, None).to_payload()
    ),
    "no order inside": lambda a, b: a.order_key.sign(cose.ORDER, b"\xa1\x01\x02"),
    "changed on the way": lambda a, b: a.order(b.name, b.key.kid, order.ROTATE)[:-1] + b"\x00",
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


# With the board at a line --------------------------------------------------------------------------------------------


def rotated(board: FakeBoard, former: Key, last: int, version: int, gateway: Parts) -> bytes:
    """The next roster, which names the board's new key and the former one with its last report."""
    entry = board.entry()
    entry.former = (roster.Former(former.public, board.credential_digest, last),)
    return gateway.authority.roster_file([entry], version)


async def test_reports_go_on_while_the_keys_of_a_board_change_and_none_is_passed_over(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 3
    former = board.key
    async with parts(tmp_path, board) as gateway, gateway.asking(line_of(board)):
        board.close_reports(3)
        await board.forgets(3)
        gateway.orders.take(board.name, gateway.authority.order(board.name, former.kid, order.ROTATE))
        board.close_reports(1)
        await board.forgets(4)  # while it works
        name, signed, _ = await gateway.orders.receipt()
        proof = credential.possession_of(cose.parse(_result(signed), 512).payload)
        body = gateway.authority.credential(name, proof.sign_key, proof.agree_key)
        gateway.orders.take(name, gateway.authority.order(name, former.kid, order.TAKE, body))
        await gateway.orders.receipt()
        assert board.key is not former
        last = max(board.taken)
        board.close_reports(2)
        await board.forgets(last)
        await until(lambda: "reports wait" in str(gateway.health.snapshot()[name]["alarms"]))
        assert sorted(board.backlog) == [last + 1, last + 2], "by a key that no roster names: they wait on the board"
        gateway.roster_file.write_bytes(rotated(board, former, last, 2, gateway))
        assert await gateway.roster.reload() is None
        for bus in gateway.buses:
            bus.wake()
        await board.forgets(last + 2)
        assert (await gateway.stored())[name] == list(range(1, last + 3))
        assert gateway.health.counted(name, "reports missing") == 0
        assert gateway.health.counted(name, "refused: signature") == 0


async def test_a_gateway_that_starts_between_the_change_of_keys_and_the_roster_asks_for_no_report(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    former, agree = board.key, board.agree_key
    async with parts(tmp_path, board) as gateway:
        board.close_reports(1)
        board.key = Key()  # the next one; the agreement key is still good, as on a board whose receipt is on its way
        board.close_reports(1)
        async with gateway.asking(line_of(board)):
            await until(lambda: gateway.health.counted(board.name, "answers with another key") > 0)
        assert await gateway.stored() == {}
        gateway.roster_file.write_bytes(rotated(board, former, 1, 2, gateway))
        assert await gateway.roster.reload() is None
        async with gateway.asking(line_of(board, name="again")):
            await board.forgets(2)
        assert agree is board.agree_key
        assert (await gateway.stored())[board.name] == [1, 2]


async def test_a_former_key_counts_up_to_its_last_report_and_the_next_one_from_there(tmp_path: Path) -> None:
    board = FakeBoard()
    former = board.key
    async with parts(tmp_path, board) as gateway:
        board.close_reports(2)
        forged, _ = board.make(3, cose_digest(board.taken[2]), key=former)
        early, _ = board.make(2, cose_digest(board.taken[1]), key=(new := Key()))
        board.key = new
        board.close_reports(1)
        gateway.roster_file.write_bytes(rotated(board, former, 2, 2, gateway))
        assert await gateway.roster.reload() is None
        entry = gateway.roster.entry(board.name)
        assert entry is not None
        assert gateway.inbox.take(entry, board.taken[1]) == ACCEPTED
        assert gateway.inbox.take(entry, early) == REFUSED
        assert gateway.inbox.take(entry, board.taken[2]) == ACCEPTED
        assert gateway.inbox.take(entry, forged) == REFUSED
        assert gateway.inbox.take(entry, board.taken[3]) == ACCEPTED
        await gateway.inbox.settle()
        assert await gateway.stored() == {board.name: [1, 2, 3]}


async def test_a_former_agreement_key_names_its_board_and_opens_nothing(tmp_path: Path) -> None:
    board = FakeBoard()
    former, agree = Key(), board.agree_key
    async with parts(tmp_path, board) as gateway:
        for version in (2, 3):
            board.agree_key = Key()
            gateway.roster_file.write_bytes(rotated(board, former, 2, version, gateway))
            assert await gateway.roster.reload() is None
            assert gateway.roster.name_of_key(agree.kid) == board.name
            assert gateway.roster.entry_of_key(agree.kid) is None
            entry = gateway.roster.entry_of_key(board.agree_key.kid)
            assert entry is not None
            assert entry.board == board.name
            agree = board.agree_key
        assert len(gateway.roster._boards_of_keys) == 2


async def test_only_the_key_that_an_order_brings_makes_a_report_wait(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        stranger, following = Key(), Key()
        gateway.roster.expect(board.name, following.kid)
        assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=following)[0]) == (
            AWAITS_ROSTER
        )
        assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=stranger)[0]) == REFUSED


async def test_reports_wait_for_the_roster_also_when_keys_are_rotated_twice_before_it_comes(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        second, third = Key(), Key()
        for key in (second, third):
            gateway.roster.expect(board.name, key.kid)
        for key in (second, third):
            assert gateway.inbox.take(board.entry(), board.make(1, board.credential_digest, key=key)[0]) == (
                AWAITS_ROSTER
            )
        gateway.roster_file.write_bytes(rotated(board, second, 1, 2, gateway))
        assert await gateway.roster.reload() is None
        assert not gateway.roster.awaits(board.name, second.kid)
        assert gateway.roster.awaits(board.name, third.kid)


def cose_digest(body: bytes) -> bytes:
    return report.digest(cose.parse(body, report.MAX_REPORT_BYTES).payload)


def _result(signed: bytes) -> bytes:
    found = receipt.receipt_of(cose.parse(signed, receipt.MAX_RECEIPT_BYTES).payload)
    assert isinstance(found.result, bytes)
    return found.result


# With a broker --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def operator(broker: Mosquitto) -> AsyncIterator[tuple[aiomqtt.Client, "asyncio.Queue[aiomqtt.Message]"]]:
    """Who sends orders, and the receipts that come."""
    found: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"laterne/v1/{TENANT}/{GATEWAY}/+/receipt", qos=1)

        async def listen() -> None:
            async for message in client.messages:
                await found.put(message)

        task = asyncio.create_task(listen())
        yield client, found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def noted(message: aiomqtt.Message) -> bool:
    assert message.properties is not None
    return ("noted", "true") in message.properties.UserProperty  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, broker: Mosquitto, boards: list[FakeBoard], *lines: FakeLine
) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path, boards, list(lines), broker)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.end()
    assert "Traceback" not in gateway.said(), gateway.said()


def topic(board: FakeBoard) -> str:
    return f"laterne/v1/{TENANT}/{GATEWAY}/order/{board.name}"


async def test_a_gateway_that_is_killed_before_the_board_knows_goes_on_where_it_was(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.deaf_to_arrival = True
    async with operator(mosquitto) as (client, receipts), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.DECOMMISSION, True)
        await client.publish(topic(board), body, qos=1, retain=True)
        first = await receipts.get()
        assert not noted(first)
        await run.kill()
        assert board.orders.arrived == []
        board.orders.deaf_to_arrival = False
        await run.start()
        second = await receipts.get()
        assert (second.payload, noted(second)) == (first.payload, False)
        last = await receipts.get()
        assert (last.payload, noted(last)) == (first.payload, True)
        assert board.orders.executed == [order.DECOMMISSION], "it was done once"
        assert isinstance(first.payload, bytes)
        assert board.orders.arrived == [receipt.digest(first.payload)]
    # The operator's command was away: the broker has it all the same.
    async with operator(mosquitto) as (client, receipts):
        kept = await receipts.get()
        assert (kept.payload, kept.retain, noted(kept)) == (first.payload, True, True)


async def test_while_the_broker_confirms_nothing_the_board_hears_of_no_arrival(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 10**6
    async with operator(mosquitto) as (client, receipts), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.ROTATE)
        await client.publish(topic(board), body, qos=1, retain=True)
        await until(lambda: bool(board.orders.heard))
        mosquitto.pause()
        board.orders.works = 0
        await until(lambda: bool(board.orders.executed))
        asked = board.questions
        await until(lambda: board.questions > asked + 3)
        assert board.orders.arrived == []
        mosquitto.resume()
        while not noted(await receipts.get()):
            pass
        assert len(board.orders.arrived) == 1


async def test_an_order_that_the_operator_took_away_while_the_gateway_was_gone_is_not_carried_out(
    tmp_path: Path, mosquitto: Mosquitto, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.orders.works = 10**6
    async with operator(mosquitto) as (client, _), running(tmp_path, mosquitto, [board], line_of(board)) as run:
        body = run.authority.order(board.name, board.key.kid, order.ROTATE)
        await client.publish(topic(board), body, qos=1, retain=True)
        await until(lambda: bool(board.orders.heard))
        await run.kill()
        await client.publish(topic(board), b"", qos=1, retain=True)
        heard = len(board.orders.heard)
        board.orders.works = 0
        await run.start()
        board.close_reports(1)
        await board.forgets(1)
        asked = board.questions
        await until(lambda: board.questions > asked + 3)
        assert len(board.orders.heard) == heard
        assert board.orders.executed == []
