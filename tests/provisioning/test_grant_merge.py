"""A journal comes home: what counts."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.provisioning.commands import killed_at
from tests.provisioning.office import LATER, acts, came_to, merge, require_true_log, rows
from tests.provisioning.technician import NOW, BoardKeys, Technician

from laterne_protocol import cose, credential, trust
from laterne_protocol.errors import WireError
from laterne_protocol.grant import digest
from laterne_provisioning import (
    audit_check,
    authority,
    decisions,
    enrol,
    grant_journal,
    grants,
    keys,
    known_boards,
    rotation,
)
from laterne_provisioning.authority import Authority
from laterne_provisioning.grant_journal import Confirm, Hang
from laterne_provisioning.merging import ALREADY, MERGED, REFUSED
from laterne_provisioning.registry import ENROLLED, PENDING, Place


def test_merged_boards_wait_for_a_second_person_and_are_believed_when_accepted(
    office: Authority, technician: Technician
) -> None:
    body = technician.enrol("LE-0101", place=Place("P-1", 481_374_000, 115_755_000))
    technician.enrol("LE-0102", confirmed=False)
    done = merge(office, technician.journal)
    assert [(one.board, one.result, one.said) for one in done.results] == [
        ("LE-0101", MERGED, "pending: it waits for a second person"),
        ("LE-0102", MERGED, "pending: it has not confirmed its credential"),
    ]
    first, second = rows(office)
    assert (first.state, first.credential, first.credential_digest) == (PENDING, body, credential.digest(body))
    assert (first.begun, first.delivered, first.decision) == (NOW + 60, NOW + 120, True)
    assert first.place == Place("P-1", 481_374_000, 115_755_000)
    assert (second.state, second.delivered) == (PENDING, None)
    assert [board.refused for board in known_boards.of_authority(office)] == [
        "LE-0101 is pending: it was never accepted",
        "LE-0102 is pending: it was never accepted",
    ]
    with office.registry() as registry:
        assert decisions.accept(office, registry, "LE-0101", LATER)
    assert [board.refused is None for board in known_boards.of_authority(office)] == [True, False]
    assert acts(office, "merge") == ["LE-0101", "LE-0102"]
    assert acts(office, "merge journal") == [technician.given.number.hex()]
    require_true_log(office)


def test_merging_again_changes_nothing_and_a_longer_journal_goes_on(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101", confirmed=False)
    assert came_to(merge(office, technician.journal, accepted=True)) == [("LE-0101", MERGED)]
    before, log = rows(office), office.log.read()
    assert came_to(merge(office, technician.journal, accepted=True)) == [("LE-0101", ALREADY)]
    assert (rows(office), office.log.read()) == (before, log)
    technician.write(Confirm("LE-0101", before[0].credential_digest))
    technician.write(Hang("LE-0101", Place("P-9")))
    technician.enrol("LE-0102")
    done = merge(office, technician.journal, accepted=True)
    assert came_to(done) == [("LE-0101", ALREADY), ("LE-0102", MERGED)]
    assert "has confirmed its credential; enrolled; hangs at P-9 now" in done.results[0].said
    assert [(board.id, board.state) for board in rows(office)] == [("LE-0101", ENROLLED), ("LE-0102", ENROLLED)]
    assert rows(office)[0].place == Place("P-9")
    with office.registry() as registry, registry.transaction():
        enrol.hang(office, registry, "LE-0101", Place("P-7"), LATER)
    merge(office, technician.journal, accepted=True)
    assert rows(office)[0].place == Place("P-7"), "it was hung up elsewhere after the journal came home"
    with office.registry() as registry:
        decisions.revoke(office, registry, "LE-0101", "stolen", LATER)
    merge(office, technician.journal, accepted=True)
    assert rows(office)[0].state == "revoked"
    assert rows(office)[0].place is None, "where it hung is not told twice"
    require_true_log(office)


def test_a_board_that_has_got_new_keys_since_is_still_that_of_the_journal(
    office: Authority, technician: Technician
) -> None:
    """It counts among the grant's boards, and the enrolment key that signed the grant is still needed."""
    for number in range(1, 4):
        technician.enrol(f"LE-010{number}")
    merge(office, technician.journal, accepted=True)
    new = BoardKeys()
    with office.registry() as registry:
        old = registry.board("LE-0101")
        assert old is not None
        claims = credential.credential_of(cose.parse(old.credential, 512).payload)
        claims.number, claims.sign_key, claims.agree_key = b"number-1", new.sign.public, new.agree.public
        signer = office.signing_key("enrolment", keys.Secrets())
        body = authority.sign_object(signer, cose.CREDENTIAL, claims.to_payload())
        rotated = replace(
            old,
            sign_key=new.sign.public,
            agree_key=new.agree.public,
            credential=body,
            credential_digest=credential.digest(body),
        )
        with registry.transaction():
            registry.change_keys(rotated, 7, LATER)
        assert len(grants.boards_under(registry.boards(), technician.given.number)) == 3
    assert [board.refused for board in known_boards.of_authority(office)] == [None, None, None]
    technician.enrol("LE-0104")
    done = merge(office, technician.journal)
    assert [one.result for one in done.results] == [ALREADY, ALREADY, ALREADY, REFUSED]


def test_a_merge_killed_at_any_operation_is_done_by_the_same_command(
    office: Authority, technician: Technician, tmp_path: Path
) -> None:
    """At every moment the registry has all of a journal or nothing of it, and the log tells no less."""
    technician.enrol("LE-0101", place=Place("P-1"))
    journal = tmp_path / "journal"
    journal.write_bytes(technician.journal)
    for cut in itertools.count(1):
        copy = tmp_path / f"office-{cut}"
        shutil.copytree(office.directory, copy)
        finished = killed_at(cut, "grant", "merge", journal, "--authority", copy)
        again = authority.open_authority(copy)
        with again.registry() as registry:
            boards = registry.boards()
            merged = grants.Grants(registry).grant(technician.given.number).merged
        assert (len(boards), merged) in ((0, 0), (1, 2))
        laid_down = [board.place for board in boards]
        assert laid_down in ([], [Place("P-1")])
        merge(again, technician.journal)
        (board,) = rows(again)
        assert (board.state, board.place) == (PENDING, Place("P-1"))
        found = audit_check.check(again.log.read(), again.trusted)
        with again.registry() as registry:
            audit_check.compare(found, registry)
        assert [why for _, why in found.wrong] == []
        if finished:
            break
    assert cut > 10


# Whose credentials count ---------------------------------------------------------------------------------------------


def test_a_technicians_key_without_its_grant_is_no_enrolment_key(office: Authority, technician: Technician) -> None:
    body = technician.enrol("LE-0101")
    merge(office, technician.journal, accepted=True)
    bodies = {technician.given.number: technician.body}
    assert grants.believed(body, office.trusted, bodies).board == "LE-0101"
    for wrong, known in (
        (body, {}),  # a grant that was never issued here
        (Technician(technician.file, technician.key).enrol("LE-0101", number=bytes(8)), bodies),
        (Technician(technician.file, technician.key).enrol("LE-0900"), bodies),
        (Technician(technician.file, technician.key).enrol("LE-0101", issued=NOW - 1), bodies),
    ):
        with pytest.raises(WireError):
            grants.believed(wrong, office.trusted, known)


def test_the_enrolment_key_is_kept_in_a_new_trust_while_a_grant_of_it_is_needed(
    office: Authority, technician: Technician
) -> None:
    technician.enrol("LE-0101")
    (former,) = office.trusted.keys[trust.ENROLMENT]
    change = rotation.Change(roles=["enrolment"])
    rotated = rotation.rotate(office, change, None, keys.Secrets()).authority
    assert former in rotated.trusted.keys[trust.ENROLMENT]
    assert came_to(merge(rotated, technician.journal, accepted=True)) == [("LE-0101", MERGED)]
    with rotated.registry() as registry:
        grants.revoke(rotated, registry, technician.given.number, "done", LATER)
    again = rotation.rotate(rotated, change, None, keys.Secrets()).authority
    assert former in again.trusted.keys[trust.ENROLMENT], "a board still needs it"
    assert known_boards.of_authority(again)[0].refused is None


def test_a_revoked_grant_without_boards_lets_its_enrolment_key_go(office: Authority, technician: Technician) -> None:
    (former,) = office.trusted.keys[trust.ENROLMENT]
    with office.registry() as registry:
        grants.revoke(office, registry, technician.given.number, "never used", LATER)
    rotated = rotation.rotate(office, rotation.Change(roles=["enrolment"]), None, keys.Secrets()).authority
    assert former not in rotated.trusted.keys[trust.ENROLMENT]


# Torn journals -------------------------------------------------------------------------------------------------------


def test_a_journal_torn_at_any_byte_of_its_last_line_goes_on_and_is_merged(
    office: Authority, technician: Technician, tmp_path: Path
) -> None:
    technician.enrol("LE-0101")
    start, key = digest(technician.body), technician.key.public
    whole = technician.journal
    begin = len(grant_journal.line_of(technician.lines[0]))
    for cut in range(begin, len(whole)):
        path = tmp_path / "torn"
        path.write_bytes(whole[:cut])
        torn = Technician(technician.file, technician.key)
        torn.lines = technician.lines[: 2 if cut == len(whole) - 1 else 1]
        torn.clock = technician.clock
        torn.write(Hang("LE-0101", Place("P-2")))
        with grant_journal.opened(path) as file:
            assert len(grant_journal.read(grant_journal.content_of(file), start, key).entries) == len(torn.lines) - 1
            grant_journal.append(file, torn.lines[-1])
        chain = grant_journal.read(path.read_bytes(), start, key)
        assert chain.digests == [grant_journal.digest(line) for line in torn.lines]
        assert bool(chain.unread) == (begin < cut < len(whole) - 1)
    done = merge(office, path.read_bytes())
    assert came_to(done) == [("LE-0101", MERGED)]
