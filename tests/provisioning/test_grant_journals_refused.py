"""Journals that are refused whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.provisioning.fake_board import Key
from tests.provisioning.office import LATER, acts, came_to, merge, rows
from tests.provisioning.technician import NOW, Technician, granted

from laterne_protocol import cose, credential
from laterne_protocol.errors import SignatureError
from laterne_protocol.grant import digest
from laterne_provisioning import (
    authority,
    grant_journal,
    grants,
    keys,
    known_boards,
)
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.grant_journal import Hang
from laterne_provisioning.merging import MERGED
from laterne_provisioning.registry import PENDING, Place


def refusal(office: Authority, journal: bytes, now: int = LATER) -> str:
    """Why the journal is refused; nothing has changed."""
    before, log = rows(office), office.log.read()
    with pytest.raises(OperatorError) as why:
        merge(office, journal, now=now)
    assert (rows(office), office.log.read()) == (before, log)
    return str(why.value)


def test_a_changed_byte_anywhere_in_a_journal_merges_nothing_or_less(office: Authority, technician: Technician) -> None:
    """A last line that is damaged counts as torn; anything else refuses the journal. Nothing new is ever believed."""
    technician.enrol("LE-0101")
    whole = technician.journal
    last = len(grant_journal.line_of(technician.lines[-1]))
    chain = grant_journal.read(whole, digest(technician.body), technician.key.public)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        try:
            found = grant_journal.read(bytes(damaged), digest(technician.body), technician.key.public)
        except grant_journal.NotAJournal:
            continue
        assert found.entries == chain.entries[: len(found.entries)]
        assert found.unread
        assert len(found.entries) == 0 or at >= len(whole) - last
    damaged = bytearray(whole)
    damaged[len(whole) - last - 20] ^= 1
    refusal(office, bytes(damaged))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[1:], "registry knows"),
        (lambda lines: [*lines[:1], *lines[2:]], "entry 3) does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "entry 3) does not follow"),
        (lambda lines: [*lines, lines[3]], "entry 4) does not follow"),
        (lambda lines: [], "no entry in it"),
    ],
    ids=["first left out", "one left out", "exchanged", "last twice", "empty"],
)
def test_a_journal_with_entries_left_out_exchanged_or_doubled_is_refused(
    office: Authority, technician: Technician, change: Callable[[list[bytes]], list[bytes]], words: str
) -> None:
    technician.enrol("LE-0101")
    technician.enrol("LE-0102")
    technician.lines = change(technician.lines)
    assert words in refusal(office, technician.journal)


def test_an_entry_taken_from_another_journal_of_the_technician_is_refused(
    office: Authority, technician: Technician
) -> None:
    """Its number fits, its signature is good, and it follows another entry."""
    other = Technician(technician.file, technician.key)
    for journal in (technician, other):
        journal.enrol("LE-0101")
        journal.enrol("LE-0102")
    technician.lines = [*technician.lines[:2], *other.lines[2:]]
    assert "entry 3) does not follow" in refusal(office, technician.journal)


def test_an_entry_that_somebody_else_has_signed_refuses_the_journal(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101")
    technician.write(Hang("LE-0101", Place("P-1")), by=Key())
    assert "line 3 is not signed by the technician's key" in refusal(office, technician.journal)


def test_a_journal_forged_from_the_public_grant_alone_is_refused(office: Authority, technician: Technician) -> None:
    forger = Technician(technician.file, Key())
    forger.enrol("LE-0101")
    assert "line 1 is not signed by the technician's key" in refusal(office, forger.journal)


def test_an_older_copy_and_a_second_journal_of_a_grant_are_refused(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101")
    shorter = technician.journal
    technician.enrol("LE-0102")
    merge(office, technician.journal)
    assert "its end was cut off, or it is an older copy" in refusal(office, shorter)
    second = Technician(technician.file, technician.key)
    for name in ("LE-0111", "LE-0112", "LE-0113"):
        second.enrol(name)
    assert "Another journal of grant" in refusal(office, second.journal)


def test_a_journal_of_a_grant_of_another_authority_is_refused(office: Authority, tmp_path: Path) -> None:
    key = Key()
    other = authority.create(tmp_path / "other", office.name, None)
    stranger = Technician(granted(other, key), key)
    stranger.enrol("LE-0101")
    assert "not the journal of a grant that this registry knows" in refusal(office, stranger.journal)
    # And should the registry be made to know it: its signature is none of this authority's.
    with office.registry() as registry, registry.transaction():
        grants.Grants(registry).add(stranger.given.number, stranger.body, NOW)
    assert "The grant of this journal is not believed" in refusal(office, stranger.journal)


def test_an_object_of_another_type_is_no_grant(office: Authority) -> None:
    """The enrolment key has signed it, the payload is that of a grant, and the domain string is another."""
    key = Key()
    real = Technician(granted(office, key), key)
    enrolment = office.signing_key("enrolment", keys.Secrets())
    for domain in (cose.CREDENTIAL, cose.TRUST, cose.ROSTER, cose.GATEWAY, grant_journal.DOMAIN, "laterne/audit/1"):
        protected = cose.protected_header(credential.kid(enrolment.public))
        payload = replace_number(real)
        signature = enrolment.sign(cose.to_be_signed(domain, protected, payload))
        with pytest.raises(SignatureError):
            grants.verified(cose.assemble(protected, payload, signature), office.trusted)
    roster_key = office.signing_key("roster", keys.Secrets())
    with pytest.raises(SignatureError):
        grants.verified(authority.sign_object(roster_key, cose.GRANT, replace_number(real)), office.trusted)
    grants.verified(authority.sign_object(enrolment, cose.GRANT, replace_number(real)), office.trusted)


def replace_number(technician: Technician) -> bytes:
    """The payload of a grant like the technician's, with another number."""
    technician.given.number = grants.new_number()
    return technician.given.to_payload()


def test_nothing_of_a_revoked_grant_is_merged_and_what_was_merged_stays(
    office: Authority, technician: Technician
) -> None:
    technician.enrol("LE-0101")
    merge(office, technician.journal, accepted=True)
    technician.enrol("LE-0102")
    with office.registry() as registry:
        assert grants.revoke(office, registry, technician.given.number, "key lost", LATER)
        assert not grants.revoke(office, registry, technician.given.number, "key lost", LATER)
    assert "is revoked (key lost)" in refusal(office, technician.journal)
    (board,) = known_boards.of_authority(office)
    assert (board.board, board.refused) == ("LE-0101", None)
    assert acts(office, "grant revoke") == [technician.given.number.hex()]


def test_a_grant_counts_under_its_trust_versions_only(office: Authority) -> None:
    key = Key()
    late = Technician(granted(office, key, versions=(2, 11)), key)
    late.enrol("LE-0101")
    assert "counts under trust versions 2 to 11, and this is 1" in refusal(office, late.journal)


def test_after_the_end_of_a_grant_every_board_waits_for_a_second_person(
    office: Authority, technician: Technician
) -> None:
    technician.enrol("LE-0101")
    over = technician.given.valid[1] + 1
    with pytest.raises(UsageError, match="only the technician's clock"):
        merge(office, technician.journal, accepted=True, now=over)
    assert came_to(merge(office, technician.journal, now=over)) == [("LE-0101", MERGED)]
    assert rows(office)[0].state == PENDING
