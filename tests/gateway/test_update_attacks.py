"""The attacks on updates that facts and issue list, as a gateway meets them. What is decided elsewhere is pointed to.

A gateway judges all that it can and leaves to the board what the board knows better: its floor, its class, its nonce.

attack                              shown by
RFC 9124 IMG.EXPIRED                the floor is the board's; here: below, nothing is sent that no board wants
RFC 9124 IMG.EXPIRED.OFFLINE        the same
RFC 9124 IMG.INCOMPATIBLE           the class is the board's; here: below, a release for other hardware
RFC 9124 IMG.FORMAT                 tests/gateway/test_releases.py::test_any_changed_byte_is_refused
RFC 9124 IMG.LOCATION               tests/gateway/test_releases.py::test_a_release_under_the_name_of_another_is_not_sent
RFC 9124 NET.REDIRECT               tests/gateway/test_release_fetch.py::test_what_is_not_the_release_is_not_stored_and_the_next_one_has_its_turn
RFC 9124 NET.ONPATH                 the same, and tests/protocol/test_session.py::test_a_changed_byte_anywhere_and_any_cut_is_refused_and_the_record_itself_still_opens
RFC 9124 IMG.REPLACE                tests/gateway/test_releases.py::test_what_the_card_has_changed_is_not_sent_and_is_repaired_by_the_same_release
RFC 9124 IMG.NON_AUTH               tests/gateway/test_releases.py::test_a_release_that_not_enough_release_keys_have_signed_is_refused
RFC 9124 UPD.WRONG_PRECURSOR        tests/gateway/test_updates.py::test_a_block_that_the_boards_flash_has_spoilt_comes_again_and_not_as_a_patch
RFC 9124 UPD.UNAPPROVED             below, and tests/gateway/test_orders.py::test_what_no_order_key_has_signed_for_this_board_never_reaches_it
RFC 9124 IMG.DISCLOSURE             on the line: tests/protocol/test_attacks.py::test_on_a_tapped_line_nothing_of_an_id_a_key_or_a_value_can_be_read; at the broker and on the card: not kept secret
RFC 9124 MFST.OVERRIDE              tests/gateway/test_releases.py::test_any_changed_byte_is_refused
RFC 9124 MFST.EXPOSURE              as IMG.DISCLOSURE
RFC 9124 IMG.EXTRA                  tests/gateway/test_releases.py::test_a_file_too_many_one_too_few_and_endless_data_are_refused
RFC 9124 KEY.EXPOSURE               tests/gateway/test_releases.py::test_a_release_is_not_sent_any_more_when_the_key_that_signed_it_is_retired
RFC 9124 MFST.MODIFICATION          tests/gateway/test_releases.py::test_any_changed_byte_is_refused
RFC 9124 MFST.TOCTOU                tests/gateway/test_releases.py::test_what_the_card_has_changed_is_not_sent_and_is_repaired_by_the_same_release
TUF arbitrary installation          tests/gateway/test_releases.py::test_a_release_that_not_enough_release_keys_have_signed_is_refused
TUF endless data                    tests/gateway/test_release_fetch.py::test_what_is_not_the_release_is_not_stored_and_the_next_one_has_its_turn
TUF extraneous dependencies         tests/gateway/test_releases.py::test_a_file_too_many_one_too_few_and_endless_data_are_refused
TUF fast-forward                    tests/gateway/test_releases.py::test_a_key_of_another_role_signs_no_release
TUF indefinite freeze               tests/gateway/test_release_fetch.py::test_parts_that_never_come_are_given_up_and_asked_for_again
TUF malicious mirrors               tests/gateway/test_release_fetch.py::test_what_is_not_the_release_is_not_stored_and_the_next_one_has_its_turn
TUF mix-and-match                   the same
TUF rollback                        tests/gateway/test_roster.py::test_an_older_roster_is_refused_after_a_restart_too; of releases the board's floor
TUF key compromise                  tests/gateway/test_releases.py::test_a_release_that_not_enough_release_keys_have_signed_is_refused
TUF wrong software                  below, a release for other hardware
Uptane eavesdrop                    tests/protocol/test_attacks.py::test_on_a_tapped_line_nothing_of_an_id_a_key_or_a_value_can_be_read
Uptane drop-request                 tests/gateway/test_updates.py::test_it_goes_on_where_frames_were_lost
Uptane slow retrieval               tests/gateway/test_release_fetch.py::test_parts_that_never_come_are_given_up_and_asked_for_again
Uptane freeze                       the same
Uptane partial bundle               tests/gateway/test_releases.py::test_a_file_too_many_one_too_few_and_endless_data_are_refused
Uptane rollback, endless data,
    mix-and-match, arbitrary        as TUF
order replayed, for another board   tests/gateway/test_orders.py::test_what_no_order_key_has_signed_for_this_board_never_reaches_it; replayed: the board's counter
order with an old nonce             the board's
order past not-after                tests/gateway/test_orders.py::test_an_order_to_try_a_release_waits_for_the_gateways_clock_and_is_not_relayed_after_its_end
confirmation forged                 below
confirmation of another trial       tests/gateway/test_updates.py::test_reports_from_before_a_restart_in_the_trial_do_not_confirm_it
order as release, release as order  below, and tests/protocol/test_releases.py::test_a_signature_of_a_release_key_under_an_order_is_no_signature_of_a_release
path escape, index size lie         below
decompression bomb                  below
-7 with a key of another curve      the key is the trust's, P-256 always: tests/protocol/test_releases.py::test_no_change_of_a_signed_envelope_is_accepted
kid of a retired root               tests/gateway/test_releases.py::test_a_key_of_another_role_signs_no_release
second install during a trial       the board's; here: below, a board on trial is sent nothing
hostile board                       tests/gateway/test_updates.py::test_a_board_that_wants_what_is_not_in_the_release_gets_nothing_and_is_asked_rarely
hostile board: endless wants        tests/gateway/test_updates.py::test_a_board_that_flaps_between_parts_gets_twice_a_release_and_no_more
hostile board: names a thousand     tests/gateway/test_release_fetch.py::test_a_board_wants_one_release_at_a_time_however_many_it_names
"""  # noqa: E501 - a name of a test is as long as its sentence

import re
import tracemalloc
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from tests.gateway.fake_authority import FakeAuthority
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.fake_releases import BILL, contents, release, signed
from tests.gateway.parts import parts, until
from tests.gateway.test_updates import asked_again, updating

from laterne_gateway.health import Health
from laterne_gateway.orders import verified_order
from laterne_gateway.releases import ReleaseError, Releases
from laterne_protocol import cbor, cose, manifest, manifest_writing, order, release_index
from laterne_protocol.errors import WireError
from laterne_protocol.release_file import MAX_RELEASE_FILE_BYTES, Release, base_bytes

REPOSITORY = Path(__file__).parents[2]
LineOf = Callable[..., FakeLine]


def test_every_test_that_the_table_points_to_is_there() -> None:
    pointed = re.findall(r"(tests/\S+\.py)::(\w+)", __doc__ or "")
    assert len(pointed) > 30
    for file, name in pointed:
        assert re.search(rf"^(async )?def {name}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), (
            name
        )


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def store(tmp_path: Path, authority: FakeAuthority) -> Releases:
    return Releases(tmp_path, authority.trust, Health())


async def test_nothing_is_sent_to_a_board_that_was_ordered_nothing(tmp_path: Path, line_of: LineOf) -> None:
    """Two good releases lie here, and the board runs the older one."""
    async with updating(tmp_path, line_of) as case:
        case.board.updates.ordered = None
        async with case.parts.asking(case.line):
            await until(lambda: case.board.updates.asked > 0)
            await asked_again(case)
        assert case.board.updates.bytes_taken == case.board.updates.bytes_dropped == 0


async def test_nothing_is_sent_to_a_board_on_trial_whatever_it_says_that_it_wants(
    tmp_path: Path, line_of: LineOf
) -> None:
    async with updating(tmp_path, line_of) as case:
        async with case.parts.asking(case.line):
            await case.staged()
        taken = case.board.updates.bytes_taken
        case.board.updates.arm()
        case.board.restart()
        case.board.updates.claims["wanted"] = (case.old.digest, 2, 0, 0)
        async with case.parts.asking(case.line):
            await asked_again(case)
        assert (case.board.updates.bytes_taken, case.board.updates.bytes_dropped) == (taken, 0)


async def test_a_release_for_other_hardware_goes_to_nobody_who_does_not_want_it(
    tmp_path: Path, line_of: LineOf
) -> None:
    """It is signed, so it may be kept: another line may have such boards. No board of ours is told of it."""
    board = FakeBoard()
    async with parts(tmp_path, board) as made:
        files = contents()
        index = release(made.authority, files).manifest.index
        assert index is not None
        text = manifest_writing.text_bytes("for others", BILL)
        envelope = manifest_writing.envelope_bytes(9, index, text, class_id=bytes(16))
        other = Release(envelope, {sha256(body).digest(): body for body in files.values()}, BILL)
        await made.releases.add(signed(other, made.authority.release_key).to_bytes(), ())
        async with made.asking(line_of(board)):
            await until(lambda: board.updates.asked > 0)
        assert board.updates.bytes_dropped == 0


async def test_a_confirmation_is_for_the_release_that_is_on_trial_and_for_no_other(
    tmp_path: Path, line_of: LineOf
) -> None:
    """The board has reported three times on trial of one release, and then says that it tries another."""
    async with updating(tmp_path, line_of) as case:
        board, updates = case.board, case.board.updates
        async with case.parts.asking(case.line):
            await case.staged()
            updates.arm()
            board.restart()
            updates.told.clear()
            await until(lambda: len(updates.told) >= 1)
            updates.claims["running"] = case.old.digest
            await asked_again(case)
            board.close_reports(2)
            await board.forgets(2)
            del updates.claims["running"]
            await asked_again(case)
            board.close_reports(1)
            await board.forgets(3)
            await asked_again(case)
            assert updates.trial
            assert set(updates.told) == {None}


def test_an_order_is_no_release_and_a_release_is_no_order(store: Releases, authority: FakeAuthority) -> None:
    made = release(authority)
    kid = authority.release_key.kid
    stage = order.Order("LE-0007", kid, 1, order.STAGE, [made.digest, 2, bytes(8)])
    for body in (
        authority.order_key.sign(cose.ORDER, stage.to_payload()),
        authority.release_key.sign(cose.ORDER, stage.to_payload()),
        made.envelope,
        made.severed,
    ):
        with pytest.raises(ReleaseError):
            store.add_file(body)
    for body in (made.to_bytes(), made.envelope, made.severed):
        with pytest.raises(WireError):
            verified_order(body, [authority.trust()], "LE-0007")
    assert store.stored() == []


@pytest.mark.parametrize("path", ["../boot.py", "/boot.py", "a/../../b", "M", "E", "x.n", "a//b", "a/./b", "é.mpy"])
def test_a_path_out_of_the_slot_is_refused_even_when_a_release_key_has_signed_it(
    store: Releases, authority: FakeAuthority, path: str
) -> None:
    with pytest.raises(ReleaseError, match="refused"):
        store.add_file(insider(authority, [[path, 3, sha256(b"abc").digest()]], {b"abc"}))
    assert store.stored() == []


@pytest.mark.parametrize("size", [2, 4, 32_769, 1 << 40])
def test_a_size_that_lies_is_refused_even_when_a_release_key_has_signed_it(
    store: Releases, authority: FakeAuthority, size: int
) -> None:
    with pytest.raises(ReleaseError, match="refused"):
        store.add_file(insider(authority, [["a.mpy", size, sha256(b"abc").digest()]], {b"abc"}))


def insider(authority: FakeAuthority, entries: list[list[object]], files: set[bytes]) -> bytes:
    """A release file with this index, signed by the release key, made without our own checks."""
    head = {1: "1", 2: 6, 3: len(entries), 4: release_index.LOADER, 6: "laterne_firmware.app"}
    index = cbor.encode([cbor.encode(head), *[cbor.encode(entry) for entry in entries]])
    envelope = manifest_writing.envelope_bytes(3, index, manifest_writing.text_bytes("insider", BILL))
    protected = cose.protected_header(authority.release_key.kid)
    found = manifest.envelope_of(envelope, manifest.MAX_ENVELOPE_BYTES)
    signature = authority.release_key.signature(found.to_be_signed(protected))
    packed = [[0, body] for body in sorted(files, key=lambda body: sha256(body).digest())]
    whole = manifest_writing.with_signature(envelope, protected, signature)
    return cbor.encode(["laterne release 1", whole, packed, zlib.compress(BILL), zlib.compress(base_bytes({}))])


def test_the_insiders_release_is_refused_for_its_index_and_nothing_else(
    store: Releases, authority: FakeAuthority
) -> None:
    store.add_file(insider(authority, [["a.mpy", 3, sha256(b"abc").digest()]], {b"abc"}))


def test_a_content_that_would_inflate_to_a_gigabyte_takes_no_memory(store: Releases, authority: FakeAuthority) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 10)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(30))[:32_768]
    parts_of_it = cbor.decode(release(authority).to_bytes(), MAX_RELEASE_FILE_BYTES)
    assert isinstance(parts_of_it, list)
    tracemalloc.start()
    try:
        for wrong in (
            [*parts_of_it[:2], [[1, bomb]], *parts_of_it[3:]],
            [*parts_of_it[:3], zlib.compress(bytes(30 << 20)), parts_of_it[4]],
            [*parts_of_it[:4], zlib.compress(bytes(30 << 20))],
        ):
            data = cbor.encode(wrong)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(ReleaseError, match="larger than"):
                store.add_file(data)
            assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    finally:
        tracemalloc.stop()
