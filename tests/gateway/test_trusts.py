"""Boards follow the authority's signed rotations: what the gateway keeps, whom it tells what, who it is meanwhile."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.gateway.board_sessions import Bucket
from tests.gateway.fake_authority import FakeAuthority, Key
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.parts import Parts, parts, until

from laterne_gateway.identity import IdentityError
from laterne_protocol import cose, frame, messages, trust
from laterne_protocol.frame import Frame

MakeLine = Callable[..., FakeLine]


class Rotating(FakeAuthority):
    """An authority whose keys change. files: each trust file by its version, signed by the roots before and after."""

    def __init__(self) -> None:
        super().__init__("gw-1")
        self.files = {1: self.trust_file(1, signed_by=3)}

    def rotate(self, *, roots: int = 0, roster: bool = False) -> bytes:
        """The next trust file. roots: so many of the three are new. roster: the roster key is new."""
        signers = list(self.roots)
        self.roots = [Key() for _ in range(roots)] + self.roots[roots:]
        if roster:
            self.roster_key = Key()
        version = len(self.files) + 1
        payload = self.trust(version).to_payload()
        signers += [key for key in self.roots if key not in signers]
        self.files[version] = trust.trust_file([key.sign(cose.TRUST, payload) for key in signers])
        return self.files[version]


@contextlib.asynccontextmanager
async def rotating(directory: Path, board: FakeBoard) -> AsyncIterator[tuple[Parts, Rotating]]:
    """A gateway's parts for this board, and the authority of both: one that rotates."""
    made = Rotating()

    def begin(gateway: Parts, board: FakeBoard) -> None:
        gateway.authority = made
        gateway.trust_file.write_bytes(made.files[1])
        board.sessions.trust = made.trust(1)
        board.sessions.bucket = Bucket(100.0)  # here restarts and rotations come within a second
        sign(gateway, board, 1)

    async with parts(directory, board, before=begin) as gateway:
        yield gateway, made


def sign(gateway: Parts, board: FakeBoard, version: int) -> None:
    """Roster and credential by the roster key of now."""
    made = gateway.authority
    gateway.roster_file.write_bytes(made.roster_file([board.entry()], version))
    sign_credential(gateway, version)


def sign_credential(gateway: Parts, version: int) -> None:
    public = gateway.key.public
    (gateway.directory / "gateway.cbor").write_bytes(
        gateway.authority.gateway_file(public, versions=(version, version + 9))
    )


def followed(gateway: Parts, board: FakeBoard, version: int) -> bool:
    return gateway.trusts.boards_by_version([board.name]) == {str(version): 1}


async def test_a_board_follows_a_rotation_of_roots_and_roster_key_and_no_report_is_lost(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    board.close_reports(2)
    async with rotating(tmp_path, board) as (gateway, made), gateway.asking(line_of(board)):
        await board.forgets(2)
        assert followed(gateway, board, 1)
        gateway.trust_file.write_bytes(made.rotate(roots=1, roster=True))
        sign(gateway, board, 2)
        await gateway.reload()
        await until(lambda: followed(gateway, board, 2))
        board.close_reports(3)
        await board.forgets(5)
        assert board.sessions.counts["trusts taken"] == 1
        assert board.sessions.counts["trusts refused"] == 0
        assert gateway.health.counted(board.name, "trusts followed") == 1
        # Two of the former roots, of which both are roots now: each is verified once.
        assert board.sessions.signatures == [2]
        assert await gateway.stored() == {board.name: [1, 2, 3, 4, 5]}


async def test_a_trust_is_told_once_and_nothing_else_is_asked_while_the_board_judges_it(
    tmp_path: Path, line_of: MakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laterne_gateway.questions.TRUST_AGAIN_S", 0.1)
    board = FakeBoard()
    board.sessions.judging = 9
    line = line_of(board)
    async with rotating(tmp_path, board) as (gateway, made):
        async with gateway.asking(line):
            await until(lambda: followed(gateway, board, 1))
            gateway.trust_file.write_bytes(made.rotate())
            sign(gateway, board, 2)
            await gateway.reload()
            await until(lambda: board.sessions.judging == 7)
            board.close_reports(1)
            await until(lambda: board.sessions.judging == 4)
            assert board.acknowledged == 0
            await until(lambda: followed(gateway, board, 2))
            await board.forgets(1)
        for _ in range(2):  # a new session, and a gateway that has started anew: the board says that it has followed
            board.restart()
            await gateway.reopen()
            async with gateway.asking(line):
                await until(lambda: followed(gateway, board, 2))
                board.close_reports(1)
                await board.forgets(board._sequence)
        assert board.sessions.counts["trusts taken"] == 1


async def test_a_board_that_was_away_follows_version_by_version_where_the_roots_have_changed(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    line = line_of(board)
    async with rotating(tmp_path, board) as (gateway, made):
        async with gateway.asking(line):
            await until(lambda: followed(gateway, board, 1))
        # Meanwhile the board has no power. New are: in 2 two roots, 3 the roster key, 4 two roots, 5 the roster key.
        for version, (roots, roster) in enumerate(((2, True), (0, True), (2, False), (0, True)), 2):
            gateway.trust_file.write_bytes(made.rotate(roots=roots, roster=roster))
            sign(gateway, board, version)
            await gateway.reload()
        await gateway.reopen()  # what is kept is in the database
        board.close_reports(3)
        async with gateway.asking(line):
            await board.forgets(3)
            await until(lambda: followed(gateway, board, 5))
        # 2, because who holds 1 cannot judge 3; 4, because who holds 2 cannot judge 5; then 5.
        assert board.sessions.counts["trusts taken"] == 3
        assert board.sessions.counts["trusts refused"] == 0


async def test_without_the_new_credential_no_board_is_told_a_trust_that_would_leave_us_unknown(
    tmp_path: Path, line_of: MakeLine
) -> None:
    board = FakeBoard()
    async with rotating(tmp_path, board) as (gateway, made), gateway.asking(line_of(board)):
        await until(lambda: followed(gateway, board, 1))
        gateway.trust_file.write_bytes(made.rotate(roster=True))
        gateway.roster_file.write_bytes(made.roster_file([board.entry()], 2))
        await gateway.reload()
        board.restart()  # so that it says once more what it holds
        board.close_reports(2)
        await board.forgets(2)
        assert followed(gateway, board, 1)
        assert board.sessions.counts["trusts taken"] == 0
        assert "laterne gateway enrol" in str(gateway.health.snapshot()["gateway"]["alarms"])
        sign_credential(gateway, 2)
        await gateway.reload()
        await until(lambda: followed(gateway, board, 2))
        assert gateway.health.snapshot()["gateway"]["alarms"] == []


@pytest.mark.parametrize("missing", ["roster", "credential", "both"])
async def test_a_gateway_that_has_only_the_new_trust_starts_again_and_serves_its_boards(
    tmp_path: Path, line_of: MakeLine, missing: str
) -> None:
    """Files come one after the other, and the power may fail in between: what was in force goes on."""
    board = FakeBoard()
    async with rotating(tmp_path, board) as (gateway, made):
        gateway.trust_file.write_bytes(made.rotate(roster=True))
        if missing == "roster":
            sign_credential(gateway, 2)
        elif missing == "credential":
            gateway.roster_file.write_bytes(made.roster_file([board.entry()], 2))
        await gateway.roster.reload()
        await gateway.reopen()
        board.close_reports(2)
        async with gateway.asking(line_of(board)):
            await board.forgets(2)
            alarms = str(gateway.health.snapshot())
            assert ("export this gateway's roster anew" in alarms) == (missing != "credential")
            assert ("laterne gateway enrol" in alarms) == (missing != "roster")
            sign(gateway, board, 2)
            await gateway.reload()
            await until(lambda: followed(gateway, board, 2))
            board.close_reports(1)
            await board.forgets(3)


async def test_after_a_rotation_the_former_roster_key_signs_no_new_roster(tmp_path: Path) -> None:
    board, guest = FakeBoard("LE-1"), FakeBoard("LE-2")
    async with rotating(tmp_path, board) as (gateway, made):
        thief = made.roster_key
        gateway.trust_file.write_bytes(made.rotate(roster=True))
        gateway.roster_file.write_bytes(made.roster_file([board.entry(), guest.entry()], 7, key=thief))
        for _ in range(2):
            problem = await gateway.roster.reload()
            assert problem is not None
            assert "is not a roster key" in problem
            assert gateway.roster.names == ["LE-1"]
            await gateway.reopen()


async def test_versions_that_the_gateway_missed_are_taken_from_the_files_beside_the_newest(tmp_path: Path) -> None:
    board = FakeBoard()
    async with rotating(tmp_path, board) as (gateway, made):
        for roots in (2, 0, 2):
            gateway.trust_file.write_bytes(made.rotate(roots=roots))
        problem = await gateway.roster.reload()
        assert problem is not None
        assert "roots have signed" in problem
        assert gateway.trusts.newest.version == 1
        (tmp_path / "trust-2.cbor").write_bytes(FakeAuthority("gw-1").trust_file(2))
        assert await gateway.roster.reload() is not None
        assert gateway.trusts.newest.version == 1
        (tmp_path / "trust-2.cbor").write_bytes(made.files[2])
        assert await gateway.roster.reload() is None
        assert [one.version for one in gateway.trusts.all] == [1, 2, 4]
        await gateway.reopen()
        assert [one.version for one in gateway.trusts.all] == [1, 2, 4]


async def test_what_boards_say_of_their_trust_is_counted_and_what_cannot_be_is_an_alarm(tmp_path: Path) -> None:
    async with rotating(tmp_path, FakeBoard()) as (gateway, _):
        trusts = gateway.trusts
        ours = trust.digest(trusts.newest.to_payload())
        for board, held, sentence in (
            ("LE-1", (1, ours), ""),
            ("LE-2", (1, bytes(16)), "another trust of version 1"),
            ("LE-3", (2, bytes(16)), "bring the trust published last"),
            ("LE-4", None, "it holds no trust"),
        ):
            trusts.note(board, held)
            assert trusts.next_for(held) is None
            alarms = gateway.health.snapshot()[board]["alarms"]
            assert (sentence in str(alarms)) if sentence else alarms == []
        assert trusts.boards_by_version(["LE-1", "LE-2", "LE-3", "LE-4", "LE-5"]) == {"1": 2, "2": 1, "unknown": 2}


async def test_a_board_that_refuses_a_trust_is_left_alone_and_alarmed(tmp_path: Path, line_of: MakeLine) -> None:
    """Its authority is another one by its roots: the gateway cannot know, the board does."""
    board = FakeBoard()
    line = line_of(board)
    told = 0

    async with rotating(tmp_path, board) as (gateway, made):
        answer = board.answer

        def refuse(question: "messages.Message") -> bytes | None:
            nonlocal told
            if isinstance(question, messages.Enrolment):
                told += 1
                return messages.Refusal(question.number, messages.CREDENTIAL_REFUSED).to_bytes()
            return answer(question)

        board.answer = refuse  # type: ignore[method-assign]  # of this board only
        gateway.trust_file.write_bytes(made.rotate())
        sign(gateway, board, 2)
        await gateway.reopen()
        board.close_reports(3)
        async with gateway.asking(line):
            await board.forgets(3)
            board.restart()
            board.close_reports(3)
            await board.forgets(6)
            assert told == 1
            assert "does not follow to trust version 2" in str(gateway.health.snapshot()[board.name]["alarms"])


async def test_a_credential_of_the_former_roster_key_serves_a_board_until_it_has_followed(
    tmp_path: Path, line_of: MakeLine
) -> None:
    """The thief of the former roster key makes himself a credential: only who has not followed believes it."""
    board = FakeBoard()
    async with rotating(tmp_path, board) as (gateway, made):
        thief, stolen = Key(), made.roster_key
        gateway.trust_file.write_bytes(made.rotate(roster=True))
        sign(gateway, board, 2)
        await gateway.reopen()
        async with gateway.asking(line_of(board)):
            await until(lambda: followed(gateway, board, 2))
        forged = made.gateway_file(thief.public, gateway="gw-9", versions=(1, 99), key=stolen)
        asked = Frame(frame.HANDSHAKE, board.address, frame.GATEWAY, b"\x06" + forged)
        refused = board.sessions.counts["introductions refused"]
        assert board.receive(asked) is None
        assert board.sessions.counts["introductions refused"] == refused + 1


async def test_a_database_of_another_key_or_authority_brings_no_credential_back(tmp_path: Path) -> None:
    async with rotating(tmp_path, FakeBoard()) as (gateway, _):
        (gateway.directory / "gateway.cbor").unlink()
        assert len((await gateway.identity()).introductions) == 1, "the kept one"
        gateway.settings.key.write_bytes(Key().pem())
        with pytest.raises(IdentityError, match="cannot be read"):
            await gateway.identity()


async def test_a_trust_that_cannot_be_stored_is_not_followed_yet(tmp_path: Path) -> None:
    async with rotating(tmp_path, FakeBoard()) as (gateway, made):
        await gateway.buffer._writer.write(lambda db, _: db.execute("pragma max_page_count = 1"))
        problem = None
        while problem is None:  # one after the other, until there is no page left
            gateway.trust_file.write_bytes(made.rotate())
            problem = await gateway.roster.reload()
        assert "cannot be stored" in problem
        assert gateway.trusts.newest.version == len(made.files) - 1
        assert len(await gateway.buffer.kept_files("trust")) == len(made.files) - 1
