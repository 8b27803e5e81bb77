"""Attacks on updates as a gateway meets them. Which test shows which is a table in protocol/README.md, 11.6.

A gateway judges all that it can and leaves to the board what the board knows better: its floor, its class, its nonce.
"""

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
from tests.gateway.updating import updating

from laterne_gateway.health import Health
from laterne_gateway.orders import verified_order
from laterne_gateway.releases import ReleaseError, Releases
from laterne_protocol import cbor, cose, manifest, manifest_writing, order, release_index
from laterne_protocol.errors import WireError
from laterne_protocol.release_file import MAX_RELEASE_FILE_BYTES, Release, base_bytes

LineOf = Callable[..., FakeLine]


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
            await case.asked_again()
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
        case.board.updates.claims["wanted"] = (case.old.digest, 2, 0, 8192, 0, 10, 0)
        async with case.parts.asking(case.line):
            await case.asked_again()
        assert case.parts.health.counted("line line", "messages malformed") == 0  # it was heard, and got nothing
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
            await case.on_trial()
            updates.claims["running"] = case.old.digest
            await case.asked_again()
            board.close_reports(2)
            await board.forgets(2)
            del updates.claims["running"]
            await case.asked_again()
            board.close_reports(1)
            await board.forgets(3)
            await case.is_not_confirmed()


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
