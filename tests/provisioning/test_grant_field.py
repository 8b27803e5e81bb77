"""Away from the authority: a technician enrols boards under a grant, and what the tool does not let him do."""

import itertools
import json
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.provisioning.commands import LATERNE, Ended, killed_at, laterne, running
from tests.provisioning.fake_board import WAIT_S, FakeBoard, Key
from tests.provisioning.technician import DAY, NOW, Technician, granted

from laterne_protocol import cbor, cose, credential
from laterne_protocol.grant import digest
from laterne_provisioning import authority as authorities
from laterne_provisioning import enrol, field, grant_journal, grants, keys
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.line import Line
from laterne_provisioning.output import jwk
from laterne_provisioning.registry import Place


@pytest.fixture
def kit(tmp_path: Path) -> tuple[Path, Path, Key]:
    """A grant file and a technician's key file, of an authority that is not at hand."""
    office = authorities.create(tmp_path / "office", "Stadtwerke", None)
    key = Key()
    (tmp_path / "grant").write_bytes(granted(office, key, most=2))
    (tmp_path / "key").write_bytes(key.pem())
    return tmp_path / "grant", tmp_path / "key", key


@contextmanager
def errand(kit: tuple[Path, Path, Key]) -> Iterator[field.Errand]:
    grant, key_file, key = kit
    signer = keys.SigningKey("technician's key", keys.file_uri(key_file), key.public, Path("/"), keys.Secrets())
    with field.begun(grants.read_file(grant), signer, grant.with_suffix(".journal")) as begun:
        yield begun


def enrol_here(
    kit: tuple[Path, Path, Key], board: FakeBoard, board_id: str, place: Place | None = None, now: int = NOW + 60
) -> enrol.Enrolment:
    with errand(kit) as begun, Line(board.port) as line:
        return field.enrol_here(line, begun, board_id, place, now, lambda _: None)


def entries(kit: tuple[Path, Path, Key]) -> list[grant_journal.Entry]:
    granted_file = grants.read_file(kit[0])
    content = kit[0].with_suffix(".journal").read_bytes()
    return grant_journal.read(content, digest(granted_file.body), kit[2].public).entries


def test_the_whole_way_from_a_technicians_key_to_verified_reports(authority: Path, tmp_path: Path) -> None:
    """Every command of it as people type it. The first report is made before the authority knows of the board."""
    home, key, grant, reports = tmp_path / "home", tmp_path / "key", tmp_path / "grant", tmp_path / "reports"
    made = laterne("grant", "key", "-o", key, "--no-passphrase")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert json.loads(made.out).keys() == {"kty", "crv", "x", "y"}
    assert "never overwritten" in laterne("grant", "key", "-o", key, "--no-passphrase", code=2).err
    (tmp_path / "key.jwk").write_text(made.out)
    issued = laterne(
        *("grant", "issue", "--technician", "M. Lindqvist", "--key", tmp_path / "key.jwk", "--site", "the harbour"),
        *("--ids", "LE-0101:LE-0103", "--posts", "Harbour-*", "--number", 2, "--days", 3),
        *("--authority", authority, "-o", grant, "--json"),
    ).json()
    assert (issued["technician"], issued["most"], issued["state"], issued["boards"]) == (
        "M. Lindqvist",
        2,
        "issued",
        [],
    )
    assert issued["kid"] in made.err
    assert laterne("grant", "show", grant, "--json").json()["number"] == issued["number"]
    authority.rename(home)  # in the field nobody has it
    with FakeBoard() as first, FakeBoard() as second:
        table = tmp_path / "boards.csv"
        table.write_text(f"id,port,post\nLE-0101,{first.port},Harbour-1\nLE-0102,{second.port},Market-1\n")
        arguments = ["board", "enrol", "--grant", grant, "--technician-key", key]
        done = laterne(*arguments, "--csv", table, "--json", code=1).json()
        assert [(row["id"], row["result"]) for row in done["rows"]] == [("LE-0101", "enrolled"), ("LE-0102", "failed")]
        assert "the grant is for posts Harbour-*, not Market-1" in done["rows"][1]["said"]
        table.write_text(table.read_text().replace("Market-1", "Harbour-2"))
        assert [row["result"] for row in laterne(*arguments, "--csv", table, "--json").json()["rows"]] == [
            "already",
            "enrolled",
        ]
        shown = laterne(*arguments, "--port", second.port, "--id", "LE-0102", "--json").json()
        assert (shown["already"], shown["state"], shown["post"]) == (True, "enrolled", "Harbour-2")
        assert first.trust == authorities.open_authority(home).trusted.to_payload()
        reports.write_bytes(first.next_report() + second.next_report())
    assert laterne("verify", reports, "--authority", home, "--json", code=1).json()["reports_refused"] == 2
    merged = laterne("grant", "merge", tmp_path / "grant.journal", "--authority", home, "--json").json()
    assert (merged["merged"], merged["refused"], merged["entries"]) == (2, 0, 4)
    laterne("board", "accept", "--all", "--yes", "--authority", home)
    found = laterne("verify", reports, "--authority", home, "--json").json()
    assert (found["ok"], found["reports_verified"]) == (True, 2)
    listed = laterne("board", "list", "--authority", home, "--json").json()
    assert [(row["id"], row["state"], row["post"]) for row in listed] == [
        ("LE-0101", "enrolled", "Harbour-1"),
        ("LE-0102", "enrolled", "Harbour-2"),
    ]
    roster, trust = tmp_path / "roster", tmp_path / "trust"
    laterne("roster", "export", "--gateway", "gw-1", "--authority", home, "-o", roster)
    laterne("trust", "export", "--authority", home, "-o", trust)
    laterne("verify", reports, "--roster", roster, "--trust", trust)
    laterne("audit", "verify", "--authority", home)
    (row,) = laterne("grant", "list", "--authority", home, "--json").json()
    assert (row["boards"], row["entries"], row["state"]) == (["LE-0101", "LE-0102"], 4, "issued")
    laterne("grant", "revoke", issued["number"], "--reason", "done", "--authority", home)
    assert laterne("grant", "show", issued["number"], "--authority", home, "--json").json()["state"] == "revoked"
    again = laterne("grant", "merge", tmp_path / "grant.journal", "--authority", home, code=1)
    assert "is revoked (done)" in again.err


# Interrupted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "acted"),
    [(2, True), (4, False), (4, True)],
    ids=["proven", "before it enrols", "after it has enrolled"],
)
def test_a_command_killed_in_the_field_is_finished_by_the_same_command(
    kit: tuple[Path, Path, Key], board: FakeBoard, message: int, acted: bool
) -> None:
    board.stop_at = (message, acted)
    grant, key_file, _ = kit
    arguments = ("board", "enrol", "--grant", grant, "--technician-key", key_file, "--port", board.port)
    # The grant is of another time: the command is run with its clock.
    program = f"import time; time.time = lambda: {NOW + 60}; from laterne_provisioning.__main__ import main; main()"
    with running(*arguments, "--id", "LE-0101", command=(LATERNE[0], "-c", program), quiet=True) as command:
        assert board.stopped.wait(WAIT_S)
        command.send_signal(signal.SIGKILL)
    # Before the board is given anything the journal holds it, and it says no more than is known.
    before = entries(kit)
    assert [type(entry.said).__name__ for entry in before] == (["Enrol"] if message == 4 else [])
    board.go_on()
    done = enrol_here(kit, board, "LE-0101", now=NOW + 120)
    assert [type(entry.said).__name__ for entry in entries(kit)] == ["Enrol", "Confirm"]
    assert entries(kit)[: len(before)] == before
    assert board.credential == done.board.credential
    assert not done.already
    assert enrol_here(kit, board, "LE-0101", now=NOW + 180).already
    assert len(entries(kit)) == 2


def test_a_command_killed_at_any_operation_of_its_journal_is_finished_by_the_same_command(
    kit: tuple[Path, Path, Key],
) -> None:
    """Also a board that has its credential already is found again, because the entry came first."""
    grant, key_file, key = kit
    office = authorities.open_authority(grant.parent / "office")
    grant.write_bytes(granted(office, key, begin=int(time.time()) - 60))
    for cut in itertools.count(1):
        grant.with_suffix(".journal").unlink(missing_ok=True)
        with FakeBoard() as board:
            command = ["board", "enrol", "--grant", grant, "--technician-key", key_file, "--port", board.port]
            finished = killed_at(cut, *command, "--id", "LE-0101")
            given = board.credential
            done = enrol_here(kit, board, "LE-0101", now=int(time.time()))
            assert given in (None, done.board.credential)
            assert [type(entry.said).__name__ for entry in entries(kit)] == ["Enrol", "Confirm"]
        if finished:
            break
    assert cut > 5


def test_a_board_moved_to_another_post_is_one_entry_more(kit: tuple[Path, Path, Key], board: FakeBoard) -> None:
    enrol_here(kit, board, "LE-0101", Place("P-1"))
    for _ in range(2):
        done = enrol_here(kit, board, "LE-0101", Place("P-2", 1, 2))
        assert (done.already, done.board.place) == (True, Place("P-2", 1, 2))
    assert [type(entry.said).__name__ for entry in entries(kit)] == ["Enrol", "Confirm", "Hang"]
    assert stat.S_IMODE(kit[0].with_suffix(".journal").stat().st_mode) == 0o600, "it tells where boards hang"


def test_two_commands_never_write_to_one_journal(kit: tuple[Path, Path, Key]) -> None:
    with errand(kit), pytest.raises(UsageError, match="Another command is writing"), errand(kit):
        raise AssertionError("both have it")


# What the tool refuses: merging refuses it, too ----------------------------------------------------------------------


def test_nobody_enrols_beyond_the_time_the_ids_and_the_number_of_a_grant(kit: tuple[Path, Path, Key]) -> None:
    with FakeBoard() as first, FakeBoard() as second, FakeBoard() as third:
        for board_id, now, words in (
            ("LE-0101", NOW - 1, "the grant is not valid yet"),
            ("LE-0101", NOW + 7 * DAY + 1, "the grant is over"),
            ("LE-0201", NOW + 60, "the grant is for boards LE-01\\*, not LE-0201"),
        ):
            with pytest.raises(OperatorError, match=words):
                enrol_here(kit, first, board_id, now=now)
        assert first.asked == [], "nothing was asked of a board that may not be enrolled"
        enrol_here(kit, first, "LE-0101")
        enrol_here(kit, second, "LE-0102")
        with pytest.raises(OperatorError, match="the grant is for 2 boards"):
            enrol_here(kit, third, "LE-0103")
        assert third.board is None
        # What was begun in time is finished also after the end: its credential was signed in time.
        first.board = first.credential = None
        enrol_here(kit, first, "LE-0101", now=NOW + 8 * DAY)
        assert first.board == "LE-0101"


def test_ids_and_boards_of_the_journal_are_not_mixed_up(kit: tuple[Path, Path, Key]) -> None:
    with FakeBoard() as first, FakeBoard() as second:
        enrol_here(kit, first, "LE-0101")
        with pytest.raises(OperatorError, match="belongs to another board"):
            enrol_here(kit, second, "LE-0101")
        with pytest.raises(OperatorError, match="not as LE-0102 in this journal"):
            enrol_here(kit, first, "LE-0102")
        first.board = first.credential = None
        with pytest.raises(OperatorError, match="stands in the journal as LE-0101"):
            enrol_here(kit, first, "LE-0102")
        second.agree_key = first.agree_key
        with pytest.raises(OperatorError, match="one is a copy of the other"):
            enrol_here(kit, second, "LE-0102")
    assert len(entries(kit)) == 2


def test_a_clock_that_was_set_back_stops_the_work(kit: tuple[Path, Path, Key]) -> None:
    with FakeBoard() as first, FakeBoard() as second:
        enrol_here(kit, first, "LE-0101", now=NOW + 3600)
        with pytest.raises(OperatorError, match="set the clock"):
            enrol_here(kit, second, "LE-0102", now=NOW + 3599)
        assert second.board is None


def test_a_proof_is_made_for_this_grant(kit: tuple[Path, Path, Key], board: FakeBoard) -> None:
    board.nonce_instead = b"an older question"[:16]
    with pytest.raises(OperatorError, match="it answered an older question"):
        enrol_here(kit, board, "LE-0101")
    assert entries(kit) == []


def test_a_journal_of_another_grant_or_a_damaged_one_is_not_gone_on_with(
    kit: tuple[Path, Path, Key], board: FakeBoard, tmp_path: Path
) -> None:
    journal = kit[0].with_suffix(".journal")
    office = authorities.open_authority(tmp_path / "office")
    other = Technician(granted(office, kit[2]), kit[2])
    other.enrol("LE-0101")
    journal.write_bytes(other.journal)
    with pytest.raises(UsageError, match="is not the journal of this grant"):
        enrol_here(kit, board, "LE-0102")
    assert journal.read_bytes() == other.journal
    assert board.asked == []


def test_a_grant_file_that_cannot_be_believed_is_refused(kit: tuple[Path, Path, Key], tmp_path: Path) -> None:
    parts = cbor.decode(kit[0].read_bytes())
    assert isinstance(parts, list)
    body, trust_file = parts
    other = authorities.create(tmp_path / "other", "Stadtwerke", None)
    payload = cose.parse(body, 2048).payload
    roster, enrolment = (other.signing_key(role, keys.Secrets()) for role in ("roster", "enrolment"))
    wrong: list[list[object]] = [
        [body, other.trust_file],
        [authorities.sign_object(roster, cose.GRANT, payload), other.trust_file],
        [authorities.sign_object(enrolment, cose.TRUST, payload), other.trust_file],
        [credential.digest(body), trust_file],
        [trust_file, trust_file],
        [body],
    ]
    for at in range(0, len(body), 5):
        damaged = bytearray(body)
        damaged[at] ^= 1
        wrong.append([bytes(damaged), trust_file])
    for items in wrong:
        kit[0].write_bytes(cbor.encode(items))
        with pytest.raises(UsageError, match="no grant that can be believed"):
            grants.read_file(kit[0])
    # The same by the right key is believed, in its own trust.
    kit[0].write_bytes(cbor.encode([authorities.sign_object(enrolment, cose.GRANT, payload), other.trust_file]))
    assert grants.read_file(kit[0]).given.technician == "M. Lindqvist"


def refused(*arguments: object) -> Ended:
    return laterne("board", "enrol", "--port", "/dev/null", "--id", "LE-0101", *arguments, code=2)


def test_options_that_contradict_each_other_or_are_missing_are_named(
    kit: tuple[Path, Path, Key], tmp_path: Path
) -> None:
    grant, key_file, _ = kit
    other = tmp_path / "another key"
    other.write_bytes(Key().pem())
    assert "--technician-key" in refused("--grant", grant).err
    assert "do not go with --grant" in refused("--grant", grant, "--technician-key", key_file, "--pending").err
    assert "another key than the one that the grant names" in refused("--grant", grant, "--technician-key", other).err
    assert "Give --authority DIR" in refused().err
    assert "is not there" in refused("--grant", grant, "--technician-key", tmp_path / "lost").err


def test_a_technicians_key_is_encrypted_unless_it_is_declined(kit: tuple[Path, Path, Key], tmp_path: Path) -> None:
    key_file, passphrase, wrong = tmp_path / "own", tmp_path / "passphrase", tmp_path / "wrong"
    assert "no terminal to ask at" in laterne("grant", "key", "-o", key_file, code=2).err
    assert not key_file.exists()
    passphrase.write_text("Laternenpfahl\n")
    wrong.write_text("Laterne\n")
    laterne("grant", "key", "-o", key_file, "--passphrase-file", passphrase)
    assert b"ENCRYPTED PRIVATE KEY" in key_file.read_bytes()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    arguments = ("--grant", kit[0], "--technician-key", key_file, "--passphrase-file")
    assert "does not open the technician's key" in refused(*arguments, wrong).err
    assert "another key than the one that the grant names" in refused(*arguments, passphrase).err
    assert not kit[0].with_suffix(".journal").exists()


def test_a_grant_that_nobody_could_use_is_not_issued(authority: Path, tmp_path: Path) -> None:
    office = authorities.open_authority(authority)
    public = tmp_path / "key.jwk"
    public.write_text(json.dumps(jwk(Key().public)))
    arguments = ["grant", "issue", "--technician", "M", "--site", "S", "--authority", authority, "-o", tmp_path / "g"]
    for more, words in (
        (["--key", public, "--ids", "LE-2:LE-1", "--number", 1], "does not count up"),
        (["--key", public, "--ids", "LE 1", "--number", 1], "may hold letters"),
        (["--key", public, "--ids", "LE-1", "--number", 1001], "1..1000"),
    ):
        assert words in laterne(*arguments, *more, code=2).err
    (enrolment,) = (place.public for place in office.places if place.role == "enrolment")
    public.write_text(json.dumps(jwk(enrolment)))
    found = laterne(*arguments, "--key", public, "--ids", "LE-1", "--number", 1, code=2)
    assert "has another role already" in found.err
    assert not (tmp_path / "g").exists()
    assert laterne("grant", "list", "--authority", authority, "--json").json() == []
