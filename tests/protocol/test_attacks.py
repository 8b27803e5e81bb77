"""The attacks of issue and design, each shown by a test. What is decided elsewhere is pointed to, not repeated:

attack                              shown by
tap: records                        below, and tests/protocol/test_session.py::test_nothing_of_a_message_can_be_read_in_its_record
tap: handshake                      below
tap: a whole demo                   hil_tests/test_a_tap_on_the_line_of_a_demo_hears_nothing.py::test_the_tap_hears_records_and_nothing_in_the_clear_but_what_reveals_nothing
tap: a board without a session      hil_tests/test_board_speaks_in_sessions.py::test_what_an_enrolled_board_says_in_the_clear_reveals_nothing
replay: record                      tests/protocol/test_session.py::test_a_repeated_record_is_opened_once
replay: record of another session   tests/protocol/test_session.py::test_a_record_of_another_session_is_told_from_a_forged_one
replay: at the real firmware        hil_tests/test_board_speaks_in_sessions.py::test_replayed_reflected_and_foreign_records_get_no_answer
replay: at the gateway              tests/gateway/test_sessions_attacked.py::test_what_was_said_in_an_earlier_session_opens_nothing_later
replay: handshake                   below, and tests/protocol/test_edhoc.py::test_every_handshake_has_new_ephemeral_keys
replay: report                      tests/gateway/test_inbox.py::test_a_repeated_report_is_counted_and_stored_once
reorder: records                    tests/protocol/test_session.py::test_records_may_overtake_one_another_by_less_than_the_window
reorder: handshake                  tests/protocol/test_edhoc.py::test_a_message_out_of_order_is_dropped_and_changes_nothing
reorder: reports                    tests/gateway/test_inbox.py::test_a_report_that_does_not_follow_is_refused_and_an_alarm
reflect: record                     tests/protocol/test_session.py::test_a_record_sent_back_to_its_sender_is_refused
reflect: handshake                  tests/protocol/test_edhoc.py::test_our_own_credential_is_no_peer_even_if_the_roster_has_it
reflect: at the gateway             tests/gateway/test_sessions_attacked.py::test_frames_that_are_reflected_do_nothing
truncated tag: cut on the way       tests/protocol/test_session.py::test_a_changed_byte_anywhere_and_any_cut_is_refused_and_the_record_itself_still_opens
truncated tag: made short           below, and tests/protocol/test_edhoc_messages.py::test_a_plaintext_2_in_another_form_is_refused_though_its_mac_is_right
forged message_1: its price         below
forged message_1: a flood, firmware hil_tests/test_board_speaks_in_sessions.py::test_a_flood_of_forged_message_1_costs_a_bounded_number_of_handshakes_and_no_reading
forged handshake frames             tests/gateway/test_sessions_attacked.py::test_forged_handshake_frames_between_cost_time_only
forged hint: session lost           tests/gateway/test_sessions_attacked.py::test_a_forged_hint_ends_no_session_and_handshakes_begin_rarely
forged board without a session      tests/gateway/test_sessions_attacked.py::test_an_enrolled_board_that_speaks_in_the_clear_is_not_believed
gateway of another authority        tests/gateway/test_sessions.py::test_a_gateway_of_another_authority_gets_no_session
gateway without its key             hil_tests/test_board_speaks_in_sessions.py::test_a_gateway_without_the_key_of_its_credential_gets_no_session
forged records: guessed tags        tests/protocol/test_session.py::test_sixteen_wrong_tags_end_a_session
forged frame header                 tests/protocol/test_session.py::test_the_frame_of_a_record_cannot_be_changed
object of one type as another       below, and tests/protocol/test_vectors.py::test_an_object_verifies_under_its_own_domain_string_and_no_other
wrong algorithm                     below
high s                              below, and tests/gateway/test_inbox.py::test_a_forged_report_is_refused_counted_and_never_stored
credential of another authority     below, and tests/provisioning/test_enrol.py::test_a_board_of_another_authority_is_refused
roster: rollback                    tests/gateway/test_roster.py::test_an_older_roster_is_refused_after_a_restart_too
roster: another gateway or key      tests/gateway/test_roster.py::test_a_bad_roster_is_refused_with_a_sentence_and_the_last_good_one_stays
trust: not by the former roots      tests/gateway/test_roster.py::test_a_trust_that_the_former_roots_did_not_sign_is_refused
revoked board                       tests/gateway/test_roster.py::test_a_revoked_board_is_served_no_more
revoked board: its session          tests/gateway/test_session_identity.py::test_a_revoked_board_loses_its_session_and_gets_no_other_as_soon_as_the_roster_comes
board not on the roster             tests/protocol/test_edhoc.py::test_a_board_that_is_not_on_the_roster_is_refused
hostile gateway: re-signs           below
hostile gateway: changes            tests/provisioning/test_verify_files.py::test_one_flipped_bit_anywhere_is_refused_with_the_board_the_sequence_and_the_reason
hostile gateway: drops              tests/provisioning/test_verify_files.py::test_gaps_repetitions_and_any_order_are_told_apart
hostile board: another's report     tests/gateway/test_session_identity.py::test_a_report_of_another_board_in_a_session_is_refused_and_alarmed
cloned board: at the gateway        tests/gateway/test_inbox.py::test_two_boards_with_one_key_raise_an_alarm
cloned board: it leaves out ours    tests/gateway/test_bus.py::test_a_copy_that_leaves_out_the_numbers_which_it_does_not_know_is_noticed
cloned board: at the platform       tests/provisioning/test_verify_files.py::test_a_second_history_of_one_key_is_refused_as_a_clone
grant: of another authority         tests/provisioning/test_grant_journals_refused.py::test_a_journal_of_a_grant_of_another_authority_is_refused
grant: another object               tests/provisioning/test_grant_journals_refused.py::test_an_object_of_another_type_is_no_grant
grant: overstepped                  tests/provisioning/test_grant_boards_refused.py::test_a_board_that_the_grant_does_not_cover_is_refused_and_holds_up_no_other
grant: none                         tests/provisioning/test_grant_merge.py::test_a_technicians_key_without_its_grant_is_no_enrolment_key
grant: forged journal               tests/provisioning/test_grant_journals_refused.py::test_a_journal_forged_from_the_public_grant_alone_is_refused
grant: old or second journal        tests/provisioning/test_grant_journals_refused.py::test_an_older_copy_and_a_second_journal_of_a_grant_are_refused
hostile bytes anywhere              tests/fuzz/test_fuzz.py::test_mutated_inputs_raise_nothing_but_our_errors_and_break_no_promise
"""  # noqa: E501 - a name of a test is as long as its sentence

import itertools
import re
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from tests.gateway.fake_authority import ORDER, FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard
from tests.protocol.edhoc_pair import BOARD, C_I, EVERYBODY, GATEWAY, board, gateway, handshake
from tests.protocol.edhoc_primitives import PRIMITIVES, agree, new_key, run

from laterne_gateway import primitives
from laterne_gateway.examination import RefusedReport, examine
from laterne_protocol import cbor, cose, credential, edhoc, messages, report_reading, roster, session, trust
from laterne_protocol.edhoc_keys import Primitives
from laterne_protocol.edhoc_messages import EdhocError
from laterne_protocol.errors import SignatureError, WireError
from laterne_protocol.frame import HANDSHAKE, RECORD, VERSION, Frame
from laterne_protocol.session import RecordError, Session, session_of
from laterne_provisioning.verifier import KnownBoard, Refused, Verified, Verifier

REPOSITORY = Path(__file__).parents[2]
ADDRESS = 7
DOWN, UP = bytes((VERSION << 4 | RECORD, ADDRESS, 0)), bytes((VERSION << 4 | RECORD, 0, ADDRESS))


def test_every_test_that_the_table_points_to_is_there() -> None:
    pointed = re.findall(r"((?:hil_)?tests/\S+\.py)::(\w+)", __doc__ or "")
    assert len(pointed) > 20
    for file, name in pointed:
        assert re.search(rf"^(async )?def {name}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )


# The line ----------------------------------------------------------------------------------------------------------


def sessions() -> tuple[Session, Session, list[bytes]]:
    """Both ends of a session, and the four messages with which it began."""
    one, other = gateway(), board()
    said = handshake(one, other)
    return session_of(one, session.GATEWAY, ADDRESS, 0), session_of(other, session.BOARD, ADDRESS, 0), said


def test_on_a_tapped_line_nothing_of_an_id_a_key_or_a_value_can_be_read() -> None:
    """No six bytes in a row of anything that was said in the session, or of who the two are, cross the line."""
    lamp = FakeBoard("LE-0007")
    lamp.close_reports(20)
    down, up, said = sessions()
    line = b"".join(
        Frame(HANDSHAKE, *ends, bytes((1 + number,)) + message).to_bytes()
        for number, (message, ends) in enumerate(zip(said, [(ADDRESS, 0), (0, ADDRESS)] * 2, strict=True))
    )
    secrets = [b"LE-0007", b"gateway-1", BOARD.party.kid, GATEWAY.party.kid, BOARD.party.ccs, GATEWAY.party.ccs]
    secrets.append(messages.Identity(1, "LE-0007", lamp.key.kid, 3, "1.0.0", "pico").to_bytes())
    for number, body in lamp.taken.items():
        question = messages.Poll(number, number - 1, number, (3, 1_790_000_000_000, 40)).to_bytes()
        answer = messages.ReportAnswer(number, 3, 60_000 * number, 500, 20 - number, [body]).to_bytes()
        line += Frame(RECORD, ADDRESS, 0, down.seal(DOWN, question, 0)).to_bytes()
        line += Frame(RECORD, 0, ADDRESS, up.seal(UP, answer, 0)).to_bytes()
        secrets += [question, answer, body]
    assert len(line) > 4000
    for secret in secrets:
        assert not [at for at in range(len(secret) - 5) if secret[at : at + 6] in line], secret.hex()


def test_a_recorded_handshake_played_again_opens_no_session() -> None:
    said = handshake(gateway(), board())
    victim = board()
    again = run(victim.take(edhoc.MESSAGE_1, said[0]))
    assert again != said[1]
    with pytest.raises(EdhocError):
        run(victim.take(edhoc.MESSAGE_3, said[2]))
    assert victim.peer is None
    caller = gateway()
    run(caller.take(edhoc.START))
    with pytest.raises(EdhocError):
        run(caller.take(edhoc.MESSAGE_2, said[1]))
    assert caller.peer is None


@pytest.mark.parametrize("tag_bytes", [4, 6, 10, 16])
def test_a_tag_of_another_length_is_refused_though_the_key_made_it(tag_bytes: int) -> None:
    """Four bytes are guessed in hours: what counts is the receiver's length, never the sender's."""
    down, up, _ = sessions()
    # The sender as it is, with a cipher that cuts or stretches its tags.
    down._primitives = other_tags(tag_bytes)
    with pytest.raises(RecordError):
        up.open(DOWN, down.seal(DOWN, b"a message", 0), 0)


def other_tags(tag_bytes: int) -> Primitives:
    given = PRIMITIVES
    return Primitives(
        given.make_key,
        given.decompress,
        given.agree,
        given.hkdf_extract,
        given.hkdf_expand,
        lambda key, nonce, message, associated, _: given.ccm_seal(key, nonce, message, associated, tag_bytes),
        given.ccm_open,
    )


# What a forged message_1 costs -------------------------------------------------------------------------------------


def counting(count: Counter[str]) -> tuple[Primitives, Callable[[bytes], Generator[None, None, bytes]]]:
    """Primitives that count the arithmetic of the curve, and the agreement with the board's own key."""

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: object) -> Any:
            count[name] += 1
            return function(*given)

        return call

    given = PRIMITIVES
    made = Primitives(
        counted("new key", given.make_key),
        counted("find y", given.decompress),
        counted("agree", given.agree),
        given.hkdf_extract,
        given.hkdf_expand,
        given.ccm_seal,
        given.ccm_open,
    )
    return made, counted("agree", partial(agree, BOARD.private))


def price(message_1: bytes) -> dict[str, int]:
    """What a board computes for a message_1, taken or not."""
    count: Counter[str] = Counter()
    made, own_agree = counting(count)
    end = edhoc.Responder(made, BOARD.party, own_agree, EVERYBODY, b"\x20")
    try:
        run(end.take(edhoc.MESSAGE_1, message_1))
    except WireError:
        assert end.state in (edhoc.FAILED, edhoc.AWAITS_1)
    return dict(count)


G_X = new_key()[1][:32]
TRUE = b"\x03\x02" + cbor.encode(G_X) + C_I
CHEAP = {
    "nothing": b"",
    "noise": bytes(range(255, 200, -1)),
    "another method": b"\x00" + TRUE[1:],
    "another suite": b"\x03\x00" + TRUE[2:],
    "a suite in an array": b"\x03\x81\x02" + TRUE[2:],
    "an x of 31 bytes": b"\x03\x02" + cbor.encode(G_X[:31]) + C_I,
    "an x of 33 bytes": b"\x03\x02" + cbor.encode(G_X + b"\x00") + C_I,
    "a connection of two bytes": TRUE[:-1] + b"\x42ab",
    "cut off": TRUE[:-1],
    "bytes behind it": TRUE + b"\xf6",
    "critical authorization data": TRUE + b"\x20",
    "longer than any message": TRUE + b"\x00\x59\x02\x00" + bytes(512),
}


@pytest.mark.parametrize("message_1", CHEAP.values(), ids=CHEAP)
def test_a_message_1_that_is_wrong_in_form_costs_a_board_no_arithmetic(message_1: bytes) -> None:
    assert price(message_1) == {}


def test_a_message_1_without_a_point_costs_a_board_the_search_for_it_and_a_forged_one_three_scalars() -> None:
    no_point = b"\x03\x02" + cbor.encode((1).to_bytes(32, "big")) + C_I
    assert price(no_point) == {"find y": 1}
    # All that a stranger can make a board do at once: seconds, so the link bounds how often (protocol/README.md, 9).
    assert price(TRUE) == {"find y": 1, "new key": 1, "agree": 2}


def test_a_message_1_said_twice_costs_once() -> None:
    count: Counter[str] = Counter()
    made, own_agree = counting(count)
    end = edhoc.Responder(made, BOARD.party, own_agree, EVERYBODY, b"\x20")
    for _ in range(5):
        run(end.take(edhoc.MESSAGE_1, TRUE))
    assert count == {"find y": 1, "new key": 1, "agree": 2}


# Objects -----------------------------------------------------------------------------------------------------------


def domains() -> list[str]:
    """Every domain string there is: whoever adds one has it tried here against all others."""
    found = set()
    for file in sorted((REPOSITORY / "protocol" / "laterne_protocol").glob("*.py")):
        found |= set(re.findall(r'"(laterne/\w+/\d+)"', file.read_text(encoding="utf-8")))
    return sorted(found)


def payloads() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """A true payload of each kind of object, and its reader."""
    lamp, made = FakeBoard(), FakeAuthority()
    proof = credential.Possession(bytes(16), lamp.key.public, lamp.agree_key.public, 0, "pico", b"id")
    claims = credential.Credential(
        "Testingen", lamp.name, 0, bytes(8), lamp.key.public, lamp.agree_key.public, 0, "pico", (1, 2)
    )
    signed_trust = cbor.decode(made.trust_file())
    assert isinstance(signed_trust, list)
    return {
        cose.REPORT: (cose.parse(lamp.make(1, bytes(16))[0], 1000).payload, report_reading.report_of),
        cose.CREDENTIAL: (claims.to_payload(), credential.credential_of),
        cose.POSSESSION: (proof.to_payload(), credential.possession_of),
        cose.ROSTER: (cose.parse(made.roster_file([lamp.entry()]), 1000).payload, roster.roster_of),
        cose.TRUST: (cose.parse(signed_trust[0], 1000).payload, trust.trust_payload_of),
    }


def test_a_signature_under_one_domain_string_is_none_under_any_other() -> None:
    key = Key()
    assert {*payloads(), "laterne/link/1"} <= set(domains())
    for made_for, used_for in itertools.product(domains(), domains()):
        signed = cose.parse(key.sign(made_for, b"\xa0"), 1000)
        valid = partial(primitives.valid, key.public)
        if made_for == used_for:
            assert cose.verify(signed, used_for, valid) == b"\xa0"
            continue
        with pytest.raises(SignatureError):
            cose.verify(signed, used_for, valid)


def test_the_payload_of_one_kind_of_object_is_read_as_no_other() -> None:
    """The second wall: a reader that forgot the domain string would still find the wrong keys."""
    found = payloads()
    for made_for, used_for in itertools.product(found, found):
        payload, read = found[made_for][0], found[used_for][1]
        if made_for == used_for:
            read(payload)
            continue
        with pytest.raises(WireError):
            read(payload)


# ES384, ES512, EdDSA, RS256, ES256K, Ed25519, HMAC 256/256, AES-CCM, none, and what is no number
@pytest.mark.parametrize("algorithm", [-35, -36, -8, -257, -47, -19, 5, 10, 0, True, None, "ES256", -6, -10])
def test_an_object_with_another_algorithm_is_refused_though_its_signature_is_right(algorithm: object) -> None:
    key = Key()
    protected = cbor.encode({1: algorithm, 4: key.kid})
    signature = raw_signature(key, cose.to_be_signed(cose.REPORT, protected, b"\xa0"))
    with pytest.raises(WireError):
        cose.parse(cose.assemble(protected, b"\xa0", signature), 1000)


def raw_signature(key: Key, message: bytes) -> bytes:
    """The key's signature of any bytes."""
    r, s = decode_dss_signature(key._private.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")


@pytest.mark.parametrize("domain", sorted(payloads()))
def test_no_object_has_a_second_signature_with_high_s(domain: str) -> None:
    key = Key()
    one = key.sign(domain, b"\xa0")
    other = one[:-32] + (ORDER - int.from_bytes(one[-32:], "big")).to_bytes(32, "big")
    valid = partial(primitives.valid, key.public)
    signed = cose.parse(other, 1000)
    # It is a signature, for everybody but us: an object would have two names.
    assert valid(cose.to_be_signed(domain, signed.protected, signed.payload), signed.signature)
    assert cose.verify(cose.parse(one, 1000), domain, valid) == b"\xa0"
    with pytest.raises(SignatureError, match="low-s"):
        cose.verify(signed, domain, valid)


def test_a_credential_of_another_authority_of_the_same_name_is_not_believed() -> None:
    """Name, board, numbers and all: only the keys differ, and only the keys count."""
    ours, theirs = FakeAuthority(), FakeAuthority()
    trusted = trust.trust_of(ours.trust_file(), primitives.valid)
    payload = payloads()[cose.CREDENTIAL][0]
    for key in (*theirs.roots, theirs.roster_key, Key(), *ours.roots, ours.roster_key):
        forged = cose.parse(key.sign(cose.CREDENTIAL, payload), 1000)
        for enrols in trusted.keys[trust.ENROLMENT]:
            with pytest.raises(SignatureError):
                cose.verify(forged, cose.CREDENTIAL, partial(primitives.valid, enrols))


# The gateway -------------------------------------------------------------------------------------------------------


def test_a_gateway_with_all_its_keys_and_all_reports_makes_no_report_that_verifies() -> None:
    """It holds its agreement key, every session's keys, the roster, and everything that the board ever signed."""
    lamp, own = FakeBoard(), Key()
    lamp.close_reports(2)
    proof = credential.Possession(bytes(16), lamp.key.public, lamp.agree_key.public, 0, "pico", b"id").to_payload()
    signed_proof = cose.parse(lamp.key.sign(cose.POSSESSION, proof), 1000)
    seen = [cose.parse(body, 1000) for body in lamp.taken.values()]
    wanted = cose.parse(lamp.make(3, bytes(16))[0], 1000).payload  # what it would like to have said
    named = cose.protected_header(lamp.key.kid)
    to_sign = cose.to_be_signed(cose.REPORT, named, wanted)
    forged = {
        "its own key under the board's kid": cose.assemble(named, wanted, raw_signature(own, to_sign)),
        "its own key under its own kid": own.sign(cose.REPORT, wanted),
        "an old signature on another report": cose.assemble(named, wanted, seen[0].signature),
        "the signature of a proof": cose.assemble(named, wanted, signed_proof.signature),
        "a proof as a report": cose.assemble(named, proof, signed_proof.signature),
        "two reports' halves": cose.assemble(named, seen[0].payload, seen[0].signature[:32] + seen[1].signature[32:]),
        "no signature": cose.assemble(named, wanted, bytes(64)),
        "r and s that are one": cose.assemble(named, wanted, (bytes(31) + b"\x01") * 2),
        "r and s that are the order": cose.assemble(named, wanted, ORDER.to_bytes(32, "big") * 2),
    }
    for name, body in forged.items():
        verifier = Verifier([KnownBoard(lamp.name, lamp.key.public, lamp.credential_digest)])
        assert isinstance(verifier.check(body), Refused), name
        with pytest.raises(RefusedReport):
            examine(body, lamp.entry())
    verifier = Verifier([KnownBoard(lamp.name, lamp.key.public, lamp.credential_digest)])
    assert all(isinstance(verifier.check(body), Verified) for body in lamp.taken.values())
