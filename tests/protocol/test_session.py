"""Records of a session: opened once, by the right end, in the right frame, for a bounded time."""

import itertools
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.firmware.micropython import BoardError
from tests.protocol.edhoc_ends import Here, Someone, initiator, responder, shake_hands, there
from tests.protocol.edhoc_primitives import PRIMITIVES, agree, run

from laterne_protocol import edhoc, session
from laterne_protocol.edhoc_messages import EdhocError
from laterne_protocol.frame import MAX_PAYLOAD_BYTES, RECORD, Frame
from laterne_protocol.messages import MAX_MESSAGE_BYTES
from laterne_protocol.session import (
    BOARD,
    GATEWAY,
    LinkKey,
    RecordError,
    ReplayWindow,
    Session,
    SessionError,
    session_of,
)

ADDRESS = 7
DOWN = bytes((0x13, ADDRESS, 0))  # frame headers: version 1, kind RECORD, destination, source
UP = bytes((0x13, 0, ADDRESS))
HOUR_MS = 3600 * 1000


def handshakes() -> tuple[edhoc.Handshake, edhoc.Handshake]:
    """Both ends of a finished handshake: the gateway's, the board's."""
    one, other = Someone("gateway-1"), Someone("LE-0007")
    find = {one.party.kid: one.party, other.party.kid: other.party}.get
    gateway = edhoc.Initiator(PRIMITIVES, one.party, lambda public: agree(one.private, public), find, b"\x01")
    board = edhoc.Responder(PRIMITIVES, other.party, lambda public: agree(other.private, public), find, b"\x20")
    message = run(gateway.take(edhoc.START))
    for step, end in ((1, board), (2, gateway), (3, board), (4, gateway)):
        message = run(end.take(step, message))
    return gateway, board


def a_session() -> tuple[Session, Session]:
    """Both ends of a session: the gateway's, the board's."""
    gateway, board = handshakes()
    return session_of(gateway, GATEWAY, ADDRESS, 0), session_of(board, BOARD, ADDRESS, 0)


# What it carries -------------------------------------------------------------------------------------------------


def test_what_one_end_seals_the_other_opens_in_both_directions() -> None:
    gateway, board = a_session()
    for number in range(40):
        message = bytes((number,)) * number
        assert board.open(DOWN, gateway.seal(DOWN, message, 0), 0) == message
        assert gateway.open(UP, board.seal(UP, message, 0), 0) == message


def test_a_record_is_twelve_bytes_longer_than_its_message_and_the_longest_message_fits_a_frame() -> None:
    gateway, _ = a_session()
    for size in (0, 1, 15, 16, 17, MAX_MESSAGE_BYTES):
        assert len(gateway.seal(DOWN, bytes(size), 0)) == size + session.OVERHEAD_BYTES == size + 12
    assert MAX_MESSAGE_BYTES + session.OVERHEAD_BYTES <= MAX_PAYLOAD_BYTES


def test_nothing_of_a_message_can_be_read_in_its_record() -> None:
    gateway, _ = a_session()
    records = [gateway.seal(DOWN, b"LE-0007 LE-0007", 0) for _ in range(20)]
    assert not any(b"LE-" in record or b"0007" in record for record in records)
    assert len({record[4:] for record in records}) == 20


def test_the_header_of_the_test_is_that_of_a_frame() -> None:
    assert Frame(RECORD, ADDRESS, 0, b"").to_bytes()[1:3] == DOWN[:2]  # then the first zero of COBS


@pytest.mark.parametrize("the_board_is", ["responder", "initiator"])
def test_a_session_joins_cpython_and_micropython(the_board_is: str) -> None:
    gateway, board = Someone("gateway-1"), Someone("LE-0007")
    here = Here()
    with there() as end:
        pair = (here, end) if the_board_is == "responder" else (end, here)
        pair[0].ask(initiator(gateway, [board.party]))
        pair[1].ask(responder(board, [gateway.party]))
        shake_hands(*pair)
        for sender, one in ((GATEWAY, pair[0]), (BOARD, pair[1])):
            one.ask({"do": "open_session", "sender": sender, "address": ADDRESS})
        for size in (0, 1, 16, 100, MAX_MESSAGE_BYTES):
            message = (b"\xa5" * size).hex()
            for one, other, header in ((*pair, DOWN), (*pair[::-1], UP)):
                record = one.ask({"do": "seal", "header": header.hex(), "message": message})
                opened = {"do": "open", "header": header.hex(), "record": record}
                changed = {**opened, "record": record[:-1] + ("0" if record[-1] != "0" else "1")}
                for question, kind in ((changed, "RecordError"), (opened, ""), (opened, "RecordError")):
                    if not kind:
                        assert other.ask(question) == message
                        continue
                    with pytest.raises(BoardError) as why:
                        other.ask(question)
                    assert why.value.kind == kind


# The line is hostile -----------------------------------------------------------------------------------------------


def test_a_repeated_record_is_opened_once() -> None:
    gateway, board = a_session()
    records = [gateway.seal(DOWN, bytes((number,)), 0) for number in range(100)]
    for number, record in enumerate(records):
        assert board.open(DOWN, record, 0) == bytes((number,))
    for record in records:
        with pytest.raises(RecordError):
            board.open(DOWN, record, 0)
    assert board.failed_tags == 0  # a repetition is no forgery


def test_records_may_overtake_one_another_by_less_than_the_window() -> None:
    gateway, board = a_session()
    records = [gateway.seal(DOWN, bytes((number,)), 0) for number in range(session.WINDOW + 1)]
    board.open(DOWN, records[-1], 0)
    for record in reversed(records[1:-1]):
        board.open(DOWN, record, 0)
    with pytest.raises(RecordError, match="came before, or long after"):
        board.open(DOWN, records[0], 0)


def test_a_record_sent_back_to_its_sender_is_refused() -> None:
    gateway, board = a_session()
    for one, header, other in ((gateway, DOWN, UP), (board, UP, DOWN)):
        record = one.seal(header, b"a", 0)
        for changed in (record, one.connection + record[1:]):
            for frame_header in (header, other):
                with pytest.raises((RecordError, SessionError)):
                    one.open(frame_header, changed, 0)


def test_both_directions_have_keys_of_their_own_and_so_has_every_address() -> None:
    gateway, board = handshakes()
    made: dict[tuple[int, int], LinkKey] = {}
    for address, sender in itertools.product((1, 2, 255), (GATEWAY, BOARD)):
        made[address, sender] = session.link_key(gateway.exporter, address, sender)
        assert session.link_key(board.exporter, address, sender).key == made[address, sender].key
    assert len({key.key for key in made.values()}) == len({key.nonce(0) for key in made.values()}) == len(made)


def test_the_keys_are_those_of_the_exporter_under_the_context_of_the_link() -> None:
    gateway, _ = handshakes()
    key = session.link_key(gateway.exporter, ADDRESS, BOARD)
    made = gateway.exporter(32768, b"\x6elaterne/link/1\x07\x01", 29)
    assert key.key + key.nonce(0) == made
    assert int.from_bytes(key.nonce(0x0A0B0C), "big") == int.from_bytes(made[16:], "big") ^ 0x0A0B0C


def test_a_changed_byte_anywhere_and_any_cut_is_refused_and_the_record_itself_still_opens() -> None:
    for where in range(12 + 20):
        gateway, board = a_session()
        record = gateway.seal(DOWN, bytes(20), 0)
        for mask in (0x01, 0x80, 0xFF):
            changed = record[:where] + bytes((record[where] ^ mask,)) + record[where + 1 :]
            with pytest.raises((RecordError, SessionError)):
                board.open(DOWN, changed, 0)
        with pytest.raises(RecordError):
            board.open(DOWN, record[:where], 0)
        assert board.open(DOWN, record, 0) == bytes(20)


def test_a_record_with_bytes_behind_it_is_refused() -> None:
    gateway, board = a_session()
    record = gateway.seal(DOWN, b"abc", 0)
    for changed in (record + b"\x00", record + record, record[:4] + b"\x00" + record[4:]):
        with pytest.raises(RecordError):
            board.open(DOWN, changed, 0)


def test_the_frame_of_a_record_cannot_be_changed() -> None:
    gateway, board = a_session()
    record = gateway.seal(DOWN, b"abc", 0)
    for at in range(3):
        with pytest.raises(RecordError):
            board.open(DOWN[:at] + bytes((DOWN[at] ^ 1,)) + DOWN[at + 1 :], record, 0)
    assert board.open(DOWN, record, 0) == b"abc"


def test_a_forged_counter_does_not_move_the_window() -> None:
    gateway, board = a_session()
    record = gateway.seal(DOWN, b"abc", 0)
    for counter in (session.MAX_RECORDS - 1, 1000):
        with pytest.raises(RecordError):
            board.open(DOWN, record[:1] + counter.to_bytes(3, "big") + record[4:], 0)
    assert board.open(DOWN, record, 0) == b"abc"


def test_a_record_of_another_session_is_told_from_a_forged_one() -> None:
    gateway, board = a_session()
    _, former = a_session()
    former.connection = b"\x05"
    with pytest.raises(SessionError):
        former.open(DOWN, gateway.seal(DOWN, b"", 0), 0)
    assert former.failed_tags == 0
    # Under the same name it is a forgery like any other.
    _, other = a_session()
    with pytest.raises(RecordError):
        other.open(DOWN, gateway.seal(DOWN, b"", 0), 0)
    assert other.failed_tags == 1
    assert board.failed_tags == 0


# Its end -----------------------------------------------------------------------------------------------------------


def test_sixteen_wrong_tags_end_a_session() -> None:
    gateway, board = a_session()
    record = gateway.seal(DOWN, b"abc", 0)
    for _ in range(15):
        with pytest.raises(RecordError):
            board.open(DOWN, record[:-1] + bytes((record[-1] ^ 1,)), 0)
    assert not board.is_due(0)
    assert board.open(DOWN, record, 0) == b"abc"
    record = gateway.seal(DOWN, b"abc", 0)
    with pytest.raises(RecordError):
        board.open(DOWN, record[:-1] + bytes((record[-1] ^ 1,)), 0)
    assert board.is_due(0)
    with pytest.raises(SessionError):
        board.open(DOWN, record, 0)
    with pytest.raises(SessionError):
        board.seal(UP, b"", 0)


def test_a_day_ends_a_session_and_before_that_it_is_due() -> None:
    gateway, board = a_session()
    now_ms = 24 * HOUR_MS - 1
    record = gateway.seal(DOWN, b"", now_ms)
    assert board.open(DOWN, record, now_ms) == b""
    record = gateway.seal(DOWN, b"", now_ms)
    with pytest.raises(SessionError):
        gateway.seal(DOWN, b"", now_ms + 1)
    with pytest.raises(SessionError):
        board.open(DOWN, record, now_ms + 1)
    assert not gateway.is_due(21 * HOUR_MS - 1)
    assert gateway.is_due(21 * HOUR_MS)


def test_the_last_record_of_a_session_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_RECORDS", 40)
    monkeypatch.setattr(session, "_DUE_RECORDS", 35)
    gateway, board = a_session()
    for number in range(40):
        assert gateway.is_due(0) == board.is_due(0) == (number >= 35)
        board.open(DOWN, gateway.seal(DOWN, b"", 0), 0)
    with pytest.raises(SessionError):
        gateway.seal(DOWN, b"", 0)
    # Nor does the other end take one that a broken sender made all the same.
    monkeypatch.setattr(session, "MAX_RECORDS", 41)
    record = gateway.seal(DOWN, b"", 0)
    monkeypatch.setattr(session, "MAX_RECORDS", 40)
    with pytest.raises(RecordError, match="counter 40"):
        board.open(DOWN, record, 0)


def test_every_counter_of_a_session_fits_its_three_bytes() -> None:
    assert session.MAX_RECORDS - 1 < 1 << 8 * session.COUNTER_BYTES


def test_a_nonce_is_never_used_again_even_if_the_cipher_fails() -> None:
    gateway, board = a_session()
    with pytest.raises(TypeError):
        gateway.seal(DOWN, None, 0)  # type: ignore[arg-type]  # what no cipher takes
    record = gateway.seal(DOWN, b"", 0)
    assert record[1:4] == b"\x00\x00\x01"
    assert board.open(DOWN, record, 0) == b""


def test_there_is_no_session_before_the_handshake_is_done() -> None:
    someone = Someone("gateway-1")
    own_agree = partial(agree, someone.private)
    unfinished = edhoc.Initiator(PRIMITIVES, someone.party, own_agree, lambda kid: None, b"\x01")
    run(unfinished.take(edhoc.START))
    with pytest.raises(EdhocError):
        session_of(unfinished, GATEWAY, ADDRESS, 0)


def test_a_handshake_opens_one_session_and_can_still_repeat_its_last_message() -> None:
    _, board = handshakes()
    message_4 = board.answer
    session_of(board, BOARD, ADDRESS, 0)
    with pytest.raises(EdhocError):
        session_of(board, BOARD, ADDRESS, 0)
    assert board._answered is not None
    assert run(board.take(*board._answered)) == message_4


# The window ------------------------------------------------------------------------------------------------------

COUNTERS = st.one_of(
    st.integers(0, 80),
    st.integers(0, session.MAX_RECORDS - 1),
    st.integers(session.MAX_RECORDS - 80, session.MAX_RECORDS - 1),
)


@settings(max_examples=300, deadline=None)
@given(counters=st.lists(COUNTERS, max_size=120))
def test_the_window_judges_as_one_that_remembers_everything(counters: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for counter in counters:
        expected = counter not in seen and counter > max(seen, default=-1) - session.WINDOW
        assert window.is_new(counter) == expected
        if expected:
            window.take(counter)
            seen.add(counter)
            assert not window.is_new(counter)
        assert window.above == max(seen, default=-1) + 1
        assert window._seen < 1 << session.WINDOW  # it does not grow


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.integers(-40, 40), max_size=200))
def test_the_window_follows_a_stream_that_jumps_to_and_fro(steps: list[int]) -> None:
    window, seen, at = ReplayWindow(), set[int](), 50
    for step in steps:
        at = max(0, at + step)
        expected = at not in seen and at > max(seen, default=-1) - session.WINDOW
        assert window.is_new(at) == expected
        if expected:
            window.take(at)
            seen.add(at)
