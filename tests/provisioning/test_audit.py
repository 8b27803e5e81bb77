"""The audit log tells what was done, and whoever changes it is found out."""

import dataclasses
import itertools
import json
import sqlite3
import stat
from pathlib import Path

import pytest
from tests.provisioning.commands import enrol, killed_at, laterne
from tests.provisioning.fake_board import FakeBoard

from laterne_provisioning import audit, audit_check
from laterne_provisioning.audit import Log
from laterne_provisioning.authority import Authority, open_authority
from laterne_provisioning.keys import Secrets


def judged(directory: Path) -> audit_check.Judgement:
    """What `laterne audit verify` finds, without the process."""
    opened = open_authority(directory)
    found = audit_check.check(opened.log.read(), opened.trusted)
    with opened.registry() as registry:
        audit_check.compare(found, registry)
    return found


def wrongs(content: bytes, opened: Authority) -> list[tuple[int | None, str]]:
    return audit_check.check(content, opened.trusted).wrong


@pytest.fixture
def log(authority: Path, board: FakeBoard, tmp_path: Path) -> Path:
    """The log of an authority with a board and a roster, signed at its end."""
    enrol(board, "LE-0001", authority, "--post", "P-1")
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r")
    return authority / audit.LOG


def test_each_act_is_a_record_with_who_when_and_what_and_no_secret(
    log: Path, authority: Path, board: FakeBoard
) -> None:
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    records = judged(authority).records
    acts = ["init", "sign", "key use", "enrol", "confirm", "key use", "roster export", "sign"]
    assert [record.act for record in records] == acts
    assert [record.number for record in records] == list(range(1, 9))
    assert all("@" in record.who and record.time.endswith("Z") for record in records)
    begun = records[3]
    assert (begun.subject, begun.details["kid"], begun.details["post"]) == ("LE-0001", board.kid.hex(), "P-1")
    assert (begun.details["state"], records[4].details["state"]) == ("pending", "enrolled")
    private = b"".join(path.read_bytes() for path in (authority / "keys").iterdir())
    for line in private.splitlines():
        assert line.startswith(b"-----") or line not in log.read_bytes()


def test_a_whole_log_is_said_to_be_whole_and_what_is_not_signed_is_counted(log: Path, authority: Path) -> None:
    found = laterne("audit", "verify", "--authority", authority, "--json").json()
    assert found["ok"] is True
    assert (found["records"], found["signed"], found["unsigned"], found["wrong"], found["notes"]) == (8, 7, 0, [], [])
    with FakeBoard() as second:
        enrol(second, "LE-0002", authority)
    shown = laterne("audit", "verify", "--authority", authority).out
    assert "3 records after that are not signed" in shown
    assert "shows only by a checkpoint" in shown
    laterne("audit", "sign", "--authority", authority, "--role", "enrolment")
    assert judged(authority).unsigned == 0


def test_every_byte_that_is_changed_is_found(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    content = log.read_bytes()
    assert wrongs(content, opened) == []
    for at, flip in itertools.product(range(len(content)), (0x01, 0x20)):
        changed = bytearray(content)
        changed[at] ^= flip
        assert wrongs(bytes(changed), opened), (at, flip)


def test_every_record_that_is_removed_doubled_or_exchanged_is_found_and_named(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    lines = log.read_bytes().splitlines(keepends=True)
    for at in range(len(lines) - 1):  # the last one is the signature: see the test of cuts
        gone = wrongs(b"".join(lines[:at] + lines[at + 1 :]), opened)
        assert any(number == at + 1 and "missing before" in reason for number, reason in gone), at
        put = wrongs(b"".join([*lines[:at], b"anything\n", *lines[at:]]), opened)
        assert any("it was put there" in reason for _, reason in put), at
    for first, second in itertools.combinations(range(len(lines)), 2):
        swapped = list(lines)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        assert any(number == first + 1 for number, _ in wrongs(b"".join(swapped), opened)), (first, second)
    for at in range(len(lines)):
        assert wrongs(b"".join([*lines[: at + 1], *lines[at:]]), opened), at


def test_a_log_that_was_rewritten_with_good_digests_is_found_by_its_signatures(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    records = judged(authority).records
    for at in range(len(records) - 1):
        lines, former = b"", "0" * 64
        for number, record in enumerate(records):
            who = "mallory@elsewhere" if number == at else record.who
            new = audit.Record(record.number, record.time, who, record.act, record.subject, record.details, former)
            lines, former = lines + new.to_line(), new.digest
        assert any("rewritten before it" in reason for _, reason in wrongs(lines, opened)), at


def test_one_record_that_was_rewritten_with_a_good_digest_is_named(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    lines = log.read_bytes().splitlines(keepends=True)
    for at, record in enumerate(judged(authority).records[:-1]):
        changed = dataclasses.replace(record, who="mallory@elsewhere").to_line()
        found = wrongs(b"".join([*lines[:at], changed, *lines[at + 1 :]]), opened)
        assert any(number == at + 1 and "was changed" in reason for number, reason in found), at


def test_a_log_of_an_authority_that_somebody_else_made_up_is_not_believed(log: Path, tmp_path: Path) -> None:
    laterne("init", tmp_path / "other", "--no-passphrase", "--name", "Stadtwerke")
    found = wrongs((tmp_path / "other" / audit.LOG).read_bytes(), open_authority(log.parent))
    assert any("No key of the trust file has signed" in reason for _, reason in found)


def test_what_is_cut_off_the_end_shows_by_a_checkpoint_or_by_the_registry(log: Path, authority: Path) -> None:
    point = authority.parent / "point.cbor"
    laterne("audit", "sign", "--authority", authority, "-o", point)
    lines = log.read_bytes().splitlines(keepends=True)
    verify = ["audit", "verify", "--authority", authority]
    laterne(*verify, "--checkpoint", point)
    log.write_bytes(b"".join(lines[:-2]))  # the last signature and the one before
    assert laterne(*verify).out.startswith("The audit log")
    done = laterne(*verify, "--checkpoint", point, code=1)
    assert "Record 8 was signed and is not there: the end was cut off" in done.out
    log.write_bytes(b"".join(lines[:3]))
    done = laterne(*verify, code=1)
    assert "LE-0001 with key" in done.out
    assert "Roster 1 of gw is in the registry, and no record tells of it" in done.out
    point.write_bytes(point.read_bytes()[:-1] + bytes([point.read_bytes()[-1] ^ 1]))
    assert "no checkpoint of this log" in laterne(*verify, "--checkpoint", point, code=1).err


def test_a_registry_that_was_changed_beside_the_log_is_found(log: Path, authority: Path) -> None:
    Log(log).append("revoke", "LE-0001", {"state": "revoked"})
    database = sqlite3.connect(authority / "registry.db")
    database.execute("update roster set digest = zeroblob(32)")
    database.commit()
    found = [reason for _, reason in judged(authority).wrong]
    assert any("LE-0001 is enrolled, and record 9 (revoke) says revoked" in reason for reason in found)
    assert any("Roster 1 of gw is in the registry, and no record" in reason for reason in found)
    database.execute("delete from board")
    database.commit()
    database.close()
    assert any("missing in the registry" in reason for _, reason in judged(authority).wrong)


def test_a_line_torn_at_any_byte_is_kept_recorded_and_the_log_goes_on(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    whole = log.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole) + 1):
        log.write_bytes(whole[:end])
        said = wrongs(whole[:end], opened)
        assert bool(said) == (start < end < len(whole))
        Log(log).append("test", "", {})
        found = audit_check.check(log.read_bytes(), opened.trusted)
        assert log.read_bytes().startswith(whole[:end]), "what was written stays"
        assert not [reason for _, reason in found.wrong], end
        torn = start < end < len(whole) - 1  # with only the newline missing the record counts
        assert bool(found.notes) == torn
        assert [record.act for record in found.records[-2:]].count("torn") == torn
        opened.sign_log(opened.signing_key("roster", Secrets()))
        assert wrongs(log.read_bytes(), opened) == []


def test_the_power_may_fail_again_while_a_torn_line_is_recorded(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    start = log.read_bytes() + b'{"number":9,"ti'
    log.write_bytes(start)
    Log(log).append("test", "", {})
    whole = log.read_bytes()
    for end in range(len(start), len(whole) + 1):
        log.write_bytes(whole[:end])
        Log(log).append("test", "", {})
        assert wrongs(log.read_bytes(), opened) == [], end


def test_bytes_of_a_torn_line_that_are_changed_later_are_found(log: Path, authority: Path) -> None:
    opened = open_authority(authority)
    before = len(log.read_bytes())
    log.write_bytes(log.read_bytes() + b"\x00\x00half")
    Log(log).append("test", "", {})
    whole = log.read_bytes()
    assert wrongs(whole, opened) == []
    for at in range(before, before + 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        assert wrongs(bytes(changed), opened), at
    assert wrongs(whole[:before] + whole[before + 7 :], opened)


def test_an_export_killed_anywhere_leaves_a_log_that_tells_of_every_roster(authority: Path, tmp_path: Path) -> None:
    for cut in range(1, 100):
        finished = killed_at(cut, "roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r")
        found = judged(authority)
        assert found.wrong == [], cut
        with open_authority(authority).registry() as registry:
            newest = max((version for _, version, _ in registry.rosters()), default=0)
        told = [record.details["version"] for record in found.records if record.act == "roster export"]
        assert bool(found.notes) == (max(map(int, map(str, told)), default=0) > newest), "the difference is said"
        if finished:
            assert cut > 10
            return


def test_an_enrolment_killed_anywhere_leaves_a_log_that_tells_of_the_board(authority: Path, board: FakeBoard) -> None:
    noted = 0
    for cut in range(1, 100):
        with FakeBoard() as fake:
            finished = killed_at(
                cut, "board", "enrol", "--port", fake.port, "--id", f"LE-{cut}", "--authority", authority
            )
            found = judged(authority)
            assert found.wrong == [], cut
            noted += bool(found.notes)
            with open_authority(authority).registry() as registry:
                row = registry.board(f"LE-{cut}")
            states = [record.details["state"] for record in found.records if record.subject == f"LE-{cut}"]
            assert row is None or row.state in states
            if finished:
                assert cut > 10
                assert noted > 0
                return
            enrol(fake, f"LE-{cut}", authority)
        assert judged(authority).wrong == judged(authority).notes == []


def test_without_its_log_an_authority_does_nothing(authority: Path, board: FakeBoard, tmp_path: Path) -> None:
    (authority / audit.LOG).unlink()
    assert "The audit log is missing" in enrol(board, "LE-0001", authority, code=2).err
    assert board.board is None
    laterne("roster", "export", "--gateway", "gw", "--authority", authority, "-o", tmp_path / "r", code=2)
    assert not (tmp_path / "r").exists()


def test_every_32_records_the_log_is_signed_without_being_asked(authority: Path, board: FakeBoard) -> None:
    opened = open_authority(authority)
    for _ in range(audit.SIGN_EVERY):
        opened.log.append("test", "", {})
    assert judged(authority).unsigned == audit.SIGN_EVERY
    enrol(board, "LE-0001", authority)
    assert judged(authority).unsigned == 0


def test_records_are_exported_as_json_lines_and_as_syslog(log: Path, authority: Path, tmp_path: Path) -> None:
    export = ["audit", "export", "--authority", authority, "-o"]
    laterne(*export, tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(1, 9))
    assert rows[3]["subject"] == "LE-0001"
    assert "is there already" in laterne(*export, tmp_path / "log.jsonl", code=2).err
    laterne(*export, tmp_path / "log.txt", "--format", "syslog")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 8
    assert lines[3].startswith("<109>1 20")
    assert ' laterne - enrol [laterne@32473 number="4" user=' in lines[3]
    assert 'subject="LE-0001"' in lines[3]
    log.write_bytes(log.read_bytes()[:-9])
    assert "is not whole" in laterne(*export, tmp_path / "log2.jsonl", code=1).err
