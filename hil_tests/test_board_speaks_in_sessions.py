"""An enrolled board on the real firmware: introductions, handshakes, records, and what strangers on its line get."""

import asyncio
import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.firmware.initiator import GatewayEnd, now_ms, session_of, take
from tests.firmware.questions import WITHIN_S, Asker, asking, enrolled
from tests.gateway.fake_authority import FakeAuthority, Key

from laterne_protocol import edhoc, edhoc_keys, frame, messages, trust
from laterne_protocol.errors import WireError
from laterne_protocol.session import MAX_FAILED_TAGS, RecordError

if TYPE_CHECKING:
    from laterne_emulator.board import EmulatedBoard
    from laterne_emulator.pytest_plugin import Benches

NAME = "board-01"
SETTINGS = {"report_s": 5, "sample_ms": 250}
NO_ANSWER_S = 0.3  # a board answers within 0.1 s or never


async def _said(board: "EmulatedBoard", text: str, times: int = 1) -> None:
    async with asyncio.timeout(WITHIN_S):
        while board.usb.printed().count(text) < times:  # noqa: ASYNC110 - a count on the console, nobody tells
            await asyncio.sleep(0.02)


async def _answered(asker: Asker, sent: frame.Frame) -> frame.Frame | None:
    return await asker.exchange(sent, NO_ANSWER_S)


def _hello_record(asker: Asker, number: int = 9) -> frame.Frame:
    return asker.sealed(messages.Hello(number).to_bytes())


async def test_a_known_gateway_is_introduced_at_once_and_a_stranger_is_not(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        known = asker.gateway.credential
        forged = bytearray(known)
        forged[-1] ^= 1
        of_another = GatewayEnd(FakeAuthority()).credential
        of_another_key = asker.authority.gateway_file(asker.gateway.key.public, key=Key())
        not_yet_valid = GatewayEnd(asker.authority, versions=(2, 9)).credential
        for refused in (bytes(forged), of_another, of_another_key):
            assert await asker.step(edhoc.INTRODUCTION, refused, repeated=False) is None
        await _said(board, "introduction was refused", 3)
        await asker.introduce()
        for _ in range(20):  # no work for the board, so no bound
            assert await asker.step(edhoc.INTRODUCTION, known, repeated=False) == (
                edhoc.INTRODUCED,
                asker.gateway.party.kid,
            )
        assert await asker.step(edhoc.INTRODUCTION, not_yet_valid, repeated=False) is None
        assert "was introduced" in board.usb.printed()
        assert board.usb.printed().count("was introduced") == 1


async def test_the_gateway_is_known_after_a_reset_and_the_session_is_gone(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        await asker.shake_hands()
        assert (await asker.hello()).boot == 1
        board.reset()
        await board.wait_for_life(0)
        await _said(board, "start 2")
        answer = None
        async with asyncio.timeout(WITHIN_S):
            while answer is None:
                answer = await _answered(asker, _hello_record(asker))
        assert answer.kind == frame.MESSAGE
        assert answer.payload == messages.HINT.to_bytes()
        asker.session = None
        assert (await asker.hello()).boot == 2
        assert "was introduced" not in board.usb.printed()  # since the reset


async def test_what_an_enrolled_board_says_in_the_clear_reveals_nothing(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        bundle = trust.pack(asker.authority.trust_file())
        for question in (
            messages.Hello(0),
            messages.Poll(1, None, 0),
            messages.Enrolment(2, messages.PROVE, bytes(16)),
            messages.Enrolment(3, messages.ENROL, asker.credential[:-1] + b"x"),
            messages.Enrolment(4, messages.TRUST, bundle),
        ):
            received = await asker.exchange(asker.clear(question.to_bytes()))
            assert received is not None
            assert received.payload == messages.Refusal(question.to_bytes()[2], messages.SESSION_NEEDED).to_bytes()
        again = await asker.ask_in_the_clear(messages.Enrolment(7, messages.ENROL, asker.credential))
        assert isinstance(again, messages.Enrolment)
        assert again.step == messages.ENROLLED


async def test_the_same_message_gets_the_same_answer_without_work(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        await asker.introduce()
        assert asker.board is not None
        made = asker.gateway.handshake(asker.board)
        message = take(made, edhoc.START)
        for sent, came in ((edhoc.MESSAGE_1, edhoc.MESSAGE_2), (edhoc.MESSAGE_3, edhoc.MESSAGE_4)):
            answer = await asker.step(sent, message)
            assert answer is not None
            for _ in range(5):
                assert await asker.step(sent, message, repeated=False) == answer
            message = take(made, came, answer[1])
        assert board.usb.printed().count("handshake 1 begins") == 1
        assert "handshake 2" not in board.usb.printed()


async def test_a_second_session_replaces_the_first_only_with_its_first_record(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        await asker.shake_hands()
        await asker.hello()
        second = session_of(await asker.handshake(), frame.FIRST_BOARD)
        await asker.hello()  # still in the first
        first, asker.session = asker.session, second
        await asker.hello()
        asker.session = first
        answer = await _answered(asker, _hello_record(asker))
        assert answer is not None
        assert answer.payload == messages.HINT.to_bytes()
        asker.session = second
        await asker.hello()
        assert asker.handshakes == 2


async def test_replayed_reflected_and_foreign_records_get_no_answer(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        await asker.shake_hands()
        sent = _hello_record(asker)
        answer = await _answered(asker, sent)
        assert answer is not None
        assert asker.opened(answer)
        with pytest.raises(RecordError):
            asker.opened(answer)
        assert await _answered(asker, sent) is None
        assert asker.session is not None
        named = sent.payload[:1] + answer.payload[1:]  # the board's own record, turned round and named as one for it
        assert await _answered(asker, frame.Frame(frame.RECORD, frame.ANY_BOARD, frame.GATEWAY, named)) is None
        later = _hello_record(asker)
        assert await _answered(asker, frame.Frame(frame.RECORD, frame.FIRST_BOARD, 0, later.payload)) is None  # to 255
        await asker.hello()


async def test_records_with_wrong_tags_end_a_session_at_their_limit_and_not_before(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        await asker.shake_hands()
        await asker.hello()
        good = asker.session
        assert good is not None
        for _ in range(MAX_FAILED_TAGS):
            answer = await _answered(asker, _hello_record(asker))
            assert answer is not None
            assert answer.kind == frame.RECORD  # the session is as good as before
            forged = bytearray(_hello_record(asker).payload)
            forged[-1] ^= 1
            await asker.send(frame.Frame(frame.RECORD, frame.ANY_BOARD, frame.GATEWAY, bytes(forged)).to_bytes())
        answer = await _answered(asker, _hello_record(asker))
        assert answer is not None
        assert answer.payload == messages.HINT.to_bytes()
        asker.session = None
        await asker.hello()


async def test_reports_are_polled_in_records_while_sessions_change(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (_, asker):
        for _ in range(3):
            await asker.shake_hands()
            await asker.wait_for_reports(1)
        assert [report.sequence for report in asker.reports] == [1, 2, 3]
        assert asker.handshakes == 3


async def test_a_flood_of_forged_message_1_costs_a_bounded_number_of_handshakes_and_no_reading(
    emulated_boards: "Benches",
) -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        await asker.enrol(NAME)
        await asker.shake_hands()
        await asker.wait_for_reports(1)
        before = bench.readings_served(NAME)
        began = now_ms()
        flood = 0
        while now_ms() - began < 12_000:
            x = hashlib.sha256(flood.to_bytes(4, "big")).digest()
            forged = bytes((edhoc.MESSAGE_1, 3, 2, 0x58, 32)) + x + b"\x05"
            await asker.send(frame.Frame(frame.HANDSHAKE, frame.ANY_BOARD, frame.GATEWAY, forged).to_bytes())
            flood += 1
            if not flood % 100:
                await asker.poll()
            await asyncio.sleep(0.01)
        assert flood > 200
        assert board.usb.printed().count(" begins") <= 1 + 4 + 1  # the bucket, and one more in half a minute
        assert bench.readings_served(NAME) > before + 12 * 4  # four readings a row, at least a row in a second
        made = await asker.wait_for_reports(2)
        assert made[-1].boot == 1
        assert asker.handshakes == 1  # the session went on
    assert board.lives == []


async def test_a_stranger_s_message_1_does_not_displace_a_handshake_under_way(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        await asker.introduce()
        assert asker.board is not None
        ours = asker.gateway.handshake(asker.board)
        answer = await asker.step(edhoc.MESSAGE_1, take(ours, edhoc.START))
        assert answer is not None
        stranger = GatewayEnd(FakeAuthority()).handshake(asker.board)
        assert await asker.step(edhoc.MESSAGE_1, take(stranger, edhoc.START), repeated=False) is None
        answer = await asker.step(edhoc.MESSAGE_3, take(ours, edhoc.MESSAGE_2, answer[1]))
        assert answer is not None
        assert answer[0] == edhoc.MESSAGE_4
        take(ours, edhoc.MESSAGE_4, answer[1])
    assert board.usb.printed().count(" begins") == 1


async def test_a_newer_trust_is_taken_in_a_session_and_an_older_or_forged_one_is_not(
    emulated_boards: "Benches",
) -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        authority = asker.authority
        await asker.give_trust(authority.trust_file(1))
        await asker.give_trust(authority.trust_file(2))
        assert "trust version 2 replaces version 1" in board.usb.printed()
        await asker.give_trust(authority.trust_file(2))
        for refused in (authority.trust_file(1), FakeAuthority().trust_file(3)):
            with pytest.raises(AssertionError, match="3"):
                await asker.give_trust(refused)
        assert board.usb.printed().count("a trust was refused") == 2
        await asker.hello()


async def test_a_gateway_that_a_newer_trust_does_not_know_loses_its_session(emulated_boards: "Benches") -> None:
    bench = await emulated_boards(settings=SETTINGS, paced=False)
    board = bench.boards[NAME]
    async with asking(bench.lines[NAME].path) as asker:
        asker.gateway = GatewayEnd(asker.authority, versions=(1, 1))
        await asker.enrol(NAME)
        await asker.shake_hands()
        bundle = trust.pack(asker.authority.trust_file(2))
        await asker.send(asker.sealed(messages.Enrolment(1, messages.TRUST, bundle).to_bytes()).to_bytes())
        await _said(board, "the gateway is not believed any more")
        answer = None
        async with asyncio.timeout(WITHIN_S):
            while answer is None or answer.kind == frame.RECORD:  # the answer to the trust may still be on the way
                answer = await _answered(asker, _hello_record(asker))
        assert answer.payload == messages.HINT.to_bytes()
        assert await asker.step(edhoc.INTRODUCTION, asker.gateway.credential, repeated=False) is None
        asker.gateway = GatewayEnd(asker.authority, versions=(1, 2))
        await asker.introduce()


async def test_a_gateway_without_the_key_of_its_credential_gets_no_session(emulated_boards: "Benches") -> None:
    async with enrolled(emulated_boards, SETTINGS) as (board, asker):
        await asker.introduce()
        assert asker.board is not None
        thief = GatewayEnd(FakeAuthority())
        thief.party = edhoc_keys.party("gw-1", thief.key.public)
        made = thief.handshake(asker.board)
        answer = await asker.step(edhoc.MESSAGE_1, take(made, edhoc.START))
        assert answer is not None
        answer = await asker.step(edhoc.MESSAGE_3, take(made, edhoc.MESSAGE_2, answer[1]))
        assert answer is not None
        assert answer[0] == edhoc.ERROR
        assert "a handshake was refused" in board.usb.printed()
        with pytest.raises(WireError):
            made.exporter(32768, b"", 29)
