"""What people decide about boards: accepted, rejected, revoked, replaced; and who believes them afterwards."""

import os
import pty
import sqlite3
from pathlib import Path

import pytest
from tests.provisioning.commands import WITHIN_S, Ended, enrol, laterne, running
from tests.provisioning.fake_board import FakeBoard, Key
from tests.provisioning.test_roster_export import read

from laterne_protocol import credential
from laterne_provisioning import registry
from laterne_provisioning.words import words


def decide(act: str, authority: Path, *arguments: object, code: int = 0) -> Ended:
    return laterne("board", act, "--authority", authority, *arguments, code=code)


def show(board_id: str, authority: Path) -> dict[str, object]:
    shown: dict[str, object] = laterne("board", "show", board_id, "--authority", authority, "--json").json()
    return shown


def export(authority: Path, out: Path) -> tuple[list[str], list[tuple[str, bytes, str]]]:
    """Who is served, and who is denied."""
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", out)
    found, _ = read(out, authority)
    return [entry.board for entry in found.entries], found.revoked


def verified(authority: Path, reports: Path, *more: object) -> list[str]:
    """The reasons of the refusals."""
    done = laterne("verify", reports, "--authority", authority, "--json", *more, code=None)
    return [str(refused["reason"]) for refused in done.json()["refused"]]


def test_a_pending_board_is_in_no_roster_until_a_second_person_has_compared_its_words(
    authority: Path, board: FakeBoard, tmp_path: Path
) -> None:
    done = enrol(board, "LE-0001", authority, "--pending")
    assert done.out.startswith("LE-0001 is pending, and waits for `laterne board accept`.")
    assert (show("LE-0001", authority)["state"], show("LE-0001", authority)["awaits"]) == ("pending", "decision")
    assert export(authority, tmp_path / "r") == ([], [])
    reports = tmp_path / "reports"
    reports.write_bytes(board.next_report())
    assert verified(authority, reports) == ["LE-0001 is pending: it was never accepted"]
    # Enrolling again, without the word, is no way around the second person.
    assert "is pending already" in enrol(board, "LE-0001", authority).out
    board.board = board.credential = None
    enrol(board, "LE-0001", authority)
    assert export(authority, tmp_path / "r") == ([], [])
    others = words(credential.kid(Key().public))
    assert "it is another board than the one" in decide("accept", authority, "LE-0001", "--words", others, code=1).err
    assert "--words WORDS, or --yes" in decide("accept", authority, "LE-0001", code=2).err
    assert export(authority, tmp_path / "r") == ([], [])
    decide("accept", authority, "LE-0001", "--words", words(board.kid).upper().replace("-", " "))
    assert show("LE-0001", authority)["state"] == "enrolled"
    assert export(authority, tmp_path / "r") == (["LE-0001"], [])
    assert verified(authority, reports) == []
    assert "enrolled already" in decide("accept", authority, "LE-0001", "--yes").out


def test_accept_all_takes_those_that_have_confirmed_and_no_others(authority: Path) -> None:
    with FakeBoard() as first, FakeBoard() as second, FakeBoard() as third:
        enrol(first, "LE-0001", authority, "--pending")
        enrol(second, "LE-0002", authority, "--pending")
        third.forget_digest = True
        enrol(third, "LE-0003", authority, "--pending", code=1)
    assert "has not confirmed" in decide("accept", authority, "LE-0003", "--yes", code=1).err
    decide("reject", authority, "LE-0002")
    accepted = decide("accept", authority, "--all", "--yes", "--json").json()
    assert [row["id"] for row in accepted] == ["LE-0001"]
    states = {row["id"]: row["state"] for row in laterne("board", "list", "--authority", authority, "--json").json()}
    assert states == {"LE-0001": "enrolled", "LE-0002": "rejected", "LE-0003": "pending"}
    assert "Nothing was to be done" in decide("accept", authority, "--all", "--yes").out
    assert decide("accept", authority, code=2).err.startswith("Which boards?")


@pytest.mark.parametrize(("typed", "state"), [(b"y\n", "enrolled"), (b"n\n", "pending")])
def test_at_a_terminal_the_words_are_shown_and_asked_about(
    authority: Path, board: FakeBoard, typed: bytes, state: str
) -> None:
    enrol(board, "LE-0001", authority, "--pending")
    master, slave = pty.openpty()
    with running("board", "accept", "--all", "--authority", authority, terminal=slave) as command:
        os.close(slave)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(master, 1000)
        os.write(master, typed)
        code = command.wait(WITHIN_S)
    os.close(master)
    assert words(board.kid).encode() in shown
    assert (code == 0) == (state == "enrolled")
    assert show("LE-0001", authority)["state"] == state


def test_a_rejected_board_is_denied_and_never_comes_back(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    enrol(board, "LE-0001", authority, "--pending")
    decide("reject", authority, "LE-0001", "--reason", "unknown adapter")
    decide("reject", authority, "LE-0001")
    assert export(authority, tmp_path / "r") == ([], [("LE-0001", board.kid, "unknown adapter")])
    assert "cannot be accepted any more" in decide("accept", authority, "LE-0001", "--yes", code=1).err
    assert "is rejected (unknown adapter)" in enrol(board, "LE-0001", authority, code=1).err
    board.board = board.credential = None
    assert "LE-0001 (rejected)" in enrol(board, "LE-0009", authority, code=1).err
    with FakeBoard() as other:
        enrol(other, "LE-0002", authority)
        assert "is enrolled, not pending" in decide("reject", authority, "LE-0002", code=1).err


def test_a_revoked_board_is_on_the_deny_list_of_every_roster_with_its_kid(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    assert "Missing option" in decide("revoke", authority, "LE-0001", code=2).err
    for wrong in ("", "x" * 65, "a\x1bb"):
        assert "give a short one" in decide("revoke", authority, "LE-0001", "--reason", wrong, code=2).err
    decide("revoke", authority, "LE-0001", "--reason", "stolen")
    decide("revoke", authority, "LE-0001", "--reason", "stolen again")
    row = show("LE-0001", authority)
    assert (row["state"], row["reason"]) == ("revoked", "stolen")
    assert isinstance(row["ended"], str)
    for _ in range(2):
        assert export(authority, tmp_path / "r") == (["LE-0002"], [("LE-0001", boards[0].kid, "stolen")])
    named = (
        "roster",
        "export",
        "--gateway",
        "gw",
        "--authority",
        authority,
        "-o",
        tmp_path / "r",
        "--board",
        "LE-0001",
    )
    assert "LE-0001 is revoked: leave it out" in laterne(*named, code=1).err
    assert "is revoked (stolen)" in enrol(boards[0], "LE-0001", authority, code=1).err
    assert "not in the registry" in decide("revoke", authority, "LE-0009", "--reason", "x", code=2).err


def test_reports_of_a_revoked_board_are_refused_whatever_its_clock_says(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    reports, roster, trust = tmp_path / "reports", tmp_path / "r", tmp_path / "trust"
    reports.write_bytes(boards[0].next_report() + boards[1].next_report())  # their clocks say 2026-09
    assert verified(authority, reports) == []
    decide("revoke", authority, "LE-0001", "--reason", "stolen")
    (reason,) = verified(authority, reports)
    assert reason.startswith("LE-0001 was revoked at ")
    assert reason.endswith("Z (stolen)")
    # Who kept the file knows since when: nothing in it can.
    assert verified(authority, reports, "--received-by", "2020-01-01") == []
    assert len(verified(authority, reports, "--received-by", "2099-01-01T00:00:00Z")) == 1
    done = laterne("verify", reports, "--received-by", "2020-01-01", "--roster", roster, "--trust", trust, code=2)
    assert "--received-by belongs to" in done.err
    export(authority, roster)
    laterne("trust", "export", "--authority", authority, "-o", trust)
    public = laterne("verify", reports, "--roster", roster, "--trust", trust, "--json", code=1).json()
    assert [refused["reason"] for refused in public["refused"]] == [
        "it names a key that is not to be believed: LE-0001 is on the roster's deny list (stolen)"
    ]
    assert public["reports_verified"] == 1


def test_the_successor_takes_the_post_and_the_post_keeps_its_history(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    enrol(boards[0], "LE-0001", authority, "--post", "P-17", "--latitude", "48.1", "--longitude", "11.5")
    before = decide("replace", authority, "LE-0001", "LE-0002", "--json").json()
    assert decide("replace", authority, "LE-0001", "LE-0002", "--json").json() == before
    old, new = show("LE-0001", authority), show("LE-0002", authority)
    assert (old["state"], old["replaced_by"], old["post"]) == ("replaced", "LE-0002", None)
    assert (new["state"], new["post"], new["latitude"]) == ("enrolled", "P-17", 48.1)
    (was,) = old["posts"] if isinstance(old["posts"], list) else []
    (now,) = new["posts"] if isinstance(new["posts"], list) else []
    assert was["post"] == now["post"] == "P-17"
    assert was["until"] == now["since"]
    assert now["until"] is None
    assert export(authority, tmp_path / "r") == (["LE-0002"], [("LE-0001", boards[0].kid, "replaced by LE-0002")])
    entry = read(tmp_path / "r", authority)[0].entries[0]
    assert entry.post is not None
    assert entry.post.name == "P-17"


def test_the_post_of_a_revoked_board_can_be_taken_and_it_stays_revoked(
    authority: Path, boards: list[FakeBoard]
) -> None:
    enrol(boards[0], "LE-0001", authority, "--post", "P-17")
    decide("revoke", authority, "LE-0001", "--reason", "stolen")
    decide("replace", authority, "LE-0001", "LE-0002")
    assert (show("LE-0001", authority)["state"], show("LE-0002", authority)["post"]) == ("revoked", "P-17")


def test_who_cannot_replace_is_told_why(authority: Path, boards: list[FakeBoard], board: FakeBoard) -> None:
    enrol(boards[0], "LE-0001", authority, "--post", "P-1")
    enrol(boards[1], "LE-0002", authority, "--post", "P-2")
    enrol(board, "LE-0003", authority, "--pending")
    assert "LE-0002 hangs at P-2" in decide("replace", authority, "LE-0001", "LE-0002", code=1).err
    assert "LE-0003 is pending: enrol it first" in decide("replace", authority, "LE-0001", "LE-0003", code=1).err
    assert "only a board that was enrolled" in decide("replace", authority, "LE-0003", "LE-0001", code=1).err
    assert "cannot replace itself" in decide("replace", authority, "LE-0001", "LE-0001", code=2).err
    decide("accept", authority, "LE-0003", "--yes")
    decide("replace", authority, "LE-0001", "LE-0003")
    with FakeBoard() as fourth:
        enrol(fourth, "LE-0004", authority)
        assert "is replaced by LE-0003 already" in decide("replace", authority, "LE-0001", "LE-0004", code=1).err
    assert "LE-0001 is replaced" in decide("replace", authority, "LE-0002", "LE-0001", code=1).err


def test_a_board_that_names_a_key_of_another_is_not_enrolled(authority: Path, board: FakeBoard) -> None:
    enrol(board, "LE-0001", authority)
    for taken in (board.agree_key, board.key):  # a copy; and a liar: the others' signing keys stand in rosters
        with FakeBoard() as other:
            other.agree_key = taken
            assert "agrees by a key of LE-0001" in enrol(other, "LE-0002", authority, code=1).err
            assert other.credential is None


def test_two_boards_with_one_agreement_key_are_in_no_roster(
    authority: Path, boards: list[FakeBoard], tmp_path: Path
) -> None:
    with sqlite3.connect(authority / "registry.db") as database:
        database.execute("update board set agree_key = (select agree_key from board where id = 'LE-0001')")
    database.close()
    done = laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r", code=1)
    assert "stands twice in the roster. Leave one of the boards out" in done.err
    assert not (tmp_path / "r").exists()


def test_a_registry_of_version_1_is_brought_up_to_date_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    database = sqlite3.connect(path)
    database.executescript((Path(__file__).parent / "registry_1.sql").read_text())
    database.close()
    with registry.Registry(path) as opened:
        first, second, third = opened.boards()
        assert (first.id, first.state, first.delivered, first.decision) == ("LE-1", "enrolled", 20, False)
        assert first.hangings == (registry.Hanging(registry.Place("P-1", 481, 115), 20, None),)
        assert (second.state, second.delivered, second.hangings) == ("pending", None, ())
        assert (third.state, third.ended, third.reason, third.place) == ("revoked", 30, "stolen", None)
        assert third.hangings == (registry.Hanging(registry.Place("P-3"), 25, 30),)
        assert opened.newest_roster("gw") == registry.IssuedRoster(1, bytes(32))
    with registry.Registry(path) as opened:
        assert len(opened.boards()) == 3


def test_a_registry_of_version_2_is_brought_up_to_date_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    database = sqlite3.connect(path)
    database.executescript((Path(__file__).parent / "registry_2.sql").read_text())
    database.close()
    with registry.Registry(path) as opened:
        boards = opened.boards()
        assert [board.state for board in boards] == ["enrolled", "pending", "revoked", "rejected", "replaced"]
        assert boards[0].place == registry.Place("P-1", 481, 115)
        assert (boards[4].replaced_by, boards[4].ended, boards[4].hangings[0].until) == ("LE-1", 32, 20)
        assert all(board.formers == () and board.chain_digest == b"\x03" for board in boards)
        assert (opened.newest_roster("gw"), opened.roster_floor()) == (registry.IssuedRoster(1, bytes(32)), 10000)
        opened.end("LE-1", registry.DECOMMISSIONED, 50, "scrapped")
        assert opened.execute("select count(*) from receipt") == [(0,)]
    with registry.Registry(path) as opened:
        assert opened.boards()[0].state == "decommissioned"


def test_the_audit_log_tells_the_same_story_as_the_registry(authority: Path, boards: list[FakeBoard]) -> None:
    enrol(boards[0], "LE-0001", authority, "--post", "P-1")
    with FakeBoard() as third, FakeBoard() as fourth:
        enrol(third, "LE-0003", authority, "--pending")
        enrol(fourth, "LE-0004", authority, "--pending")
    assert laterne("audit", "verify", "--authority", authority, code=None).code == 0
    decide("accept", authority, "LE-0003", "--yes")
    decide("reject", authority, "LE-0004")
    decide("replace", authority, "LE-0001", "LE-0003")
    decide("revoke", authority, "LE-0002", "--reason", "stolen")
    decide("replace", authority, "LE-0002", "LE-0003", code=1)
    done = laterne("audit", "verify", "--authority", authority, code=None)
    assert done.code == 0, done.out + done.err
