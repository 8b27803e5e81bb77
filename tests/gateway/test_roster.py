"""Trust and roster: who signed them, for whom, and never back."""

from pathlib import Path

import pytest
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard
from tests.gateway.parts import Parts, parts

from laterne_gateway.trusts import RosterError


def names(gateway: Parts, *boards: FakeBoard) -> list[str]:
    return [board.name for board in boards if gateway.roster.entry(board.name) is not None]


async def test_a_newer_roster_is_taken_and_an_older_one_refused(tmp_path: Path) -> None:
    first, second = FakeBoard("LE-1"), FakeBoard("LE-2")
    async with parts(tmp_path, first) as gateway:
        gateway.roster_file.write_bytes(gateway.authority.roster_file([first.entry(), second.entry()], 2))
        assert await gateway.roster.reload() is None
        assert names(gateway, first, second) == ["LE-1", "LE-2"]
        gateway.roster_file.write_bytes(gateway.authority.roster_file([first.entry()], 1))
        problem = await gateway.roster.reload()
        assert problem is not None
        assert "version 1 is older than 2" in problem
        assert names(gateway, first, second) == ["LE-1", "LE-2"]


async def test_an_older_roster_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    first, second = FakeBoard("LE-1"), FakeBoard("LE-2")
    async with parts(tmp_path, first) as gateway:
        gateway.roster_file.write_bytes(gateway.authority.roster_file([first.entry(), second.entry()], 5))
        await gateway.reopen()
        gateway.roster_file.write_bytes(gateway.authority.roster_file([first.entry()], 4))
        await gateway.reopen()
        assert gateway.roster.version == 5
        assert names(gateway, first, second) == ["LE-1", "LE-2"]
        assert gateway.health.counted("roster", "refused") == 1


async def test_without_its_file_the_last_good_roster_stays_in_force(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        gateway.roster_file.unlink()
        await gateway.reopen()
        assert names(gateway, board) == [board.name]
        assert "cannot be read" in str(gateway.health.snapshot()["roster"]["alarms"])


async def test_a_revoked_board_is_served_no_more(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        revoked = [(board.name, board.key.kid, "stolen")]
        gateway.roster_file.write_bytes(gateway.authority.roster_file([board.entry()], 2, revoked=revoked))
        assert await gateway.roster.reload() is None
        assert names(gateway, board) == []
        assert gateway.roster.is_revoked(board.name)


async def test_a_board_whose_old_key_is_revoked_is_served_with_its_new_one(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        revoked = [(board.name, Key().kid, "lost")]
        gateway.roster_file.write_bytes(gateway.authority.roster_file([board.entry()], 2, revoked=revoked))
        assert await gateway.roster.reload() is None
        assert names(gateway, board) == [board.name]


def flipped(signed: bytes) -> bytes:
    """With another last bit."""
    return signed[:-1] + bytes((signed[-1] ^ 1,))


BAD = [
    (
        "another gateway",
        lambda made, board: made.roster_file([board.entry()], 9, gateway="gw-2"),
        "is for gateway gw-2",
    ),
    ("another key", lambda made, board: made.roster_file([board.entry()], 9, key=Key()), "not a roster key"),
    ("a flipped bit", lambda made, board: flipped(made.roster_file([board.entry()], 9)), "signature"),
    ("a trust file", lambda made, board: made.trust_file(), "export this gateway's roster anew"),
    ("nothing", lambda made, board: b"", "export this gateway's roster anew"),
    ("too long", lambda made, board: bytes(70_000), "more than 65536 bytes"),
    ("another of this version", lambda made, board: made.roster_file([], 1), "another roster with the version 1"),
]


@pytest.mark.parametrize(("name", "make", "sentence"), BAD, ids=[one[0] for one in BAD])
async def test_a_bad_roster_is_refused_with_a_sentence_and_the_last_good_one_stays(
    tmp_path: Path, name: str, make: object, sentence: str
) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        assert callable(make)
        gateway.roster_file.write_bytes(make(gateway.authority, board))
        problem = await gateway.roster.reload()
        assert problem is not None
        assert sentence in problem
        assert names(gateway, board) == [board.name]


async def test_the_same_roster_signed_again_is_no_problem(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        gateway.roster_file.write_bytes(gateway.authority.roster_file([board.entry()], 1))
        assert await gateway.roster.reload() is None


async def test_too_few_roots_are_not_believed(tmp_path: Path) -> None:
    board = FakeBoard()
    made = Parts(tmp_path, [board])
    made.trust_file.write_bytes(made.authority.trust_file(signed_by=1))
    with pytest.raises(RosterError, match="1 of 3 roots have signed, 2 are needed"):
        await made.open()
    await made.buffer.close()


async def test_a_trust_that_the_former_roots_did_not_sign_is_refused(tmp_path: Path) -> None:
    board = FakeBoard()
    async with parts(tmp_path, board) as gateway:
        gateway.trust_file.write_bytes(FakeAuthority().trust_file(version=2))
        assert await gateway.roster.reload() is not None
        await gateway.reopen()
        assert names(gateway, board) == [board.name]
        assert gateway.health.counted("roster", "refused") == 2
