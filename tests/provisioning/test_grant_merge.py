"""A journal comes home: what counts, and every way in which it does not."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.provisioning.commands import killed_at
from tests.provisioning.fake_board import Key
from tests.provisioning.technician import DAY, NOW, BoardKeys, Technician, granted

from laterne_protocol import cose, credential, trust
from laterne_protocol.errors import SignatureError, WireError
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
    merging,
    rotation,
)
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.grant_journal import Confirm, Hang
from laterne_provisioning.merging import ALREADY, MERGED, REFUSED, Merged
from laterne_provisioning.registry import ENROLLED, PENDING, Board, Place

LATER = NOW + DAY


@pytest.fixture
def office(tmp_path: Path) -> Authority:
    return authority.create(tmp_path / "office", "Stadtwerke", None)


@pytest.fixture
def technician(office: Authority) -> Technician:
    key = Key()
    return Technician(granted(office, key), key)


def merge(office: Authority, journal: bytes, accepted: bool = False, now: int = LATER) -> Merged:
    with office.registry() as registry:
        return merging.merge(office, registry, journal, accepted, now)


def came_to(done: Merged) -> list[tuple[str, str]]:
    return [(one.board, one.result) for one in done.results]


def rows(office: Authority) -> list[Board]:
    with office.registry() as registry:
        return registry.boards()


def require_true_log(office: Authority) -> None:
    """The audit log is whole and tells the same as the registry."""
    found = audit_check.check(office.log.read(), office.trusted)
    with office.registry() as registry:
        audit_check.compare(found, registry)
    assert found.wrong == []
    assert found.notes == []


def acts(office: Authority, act: str) -> list[str]:
    return [one.subject for one in audit_check.check(office.log.read(), office.trusted).records if one.act == act]


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


# Journals that are refused whole -------------------------------------------------------------------------------------


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


# Boards that are refused, each by itself -----------------------------------------------------------------------------

Wrong = Callable[[Technician], object]
WRONG: dict[str, tuple[Wrong, str]] = {
    "another site: id": (lambda t: t.enrol("LE-0200"), "the grant is for boards LE-01*, not LE-0200"),
    "before the grant": (lambda t: late(t, NOW - 1), "the grant is not valid yet"),
    "after the grant": (lambda t: late(t, NOW + 7 * DAY + 1), "the grant is over"),
    "dated back in the credential": (lambda t: t.enrol("LE-0109", issued=NOW + 1), "time of another entry"),
    "in the future": (lambda t: late(t, LATER + 301), "at a time that has not come yet"),
    "another grant's number": (lambda t: t.enrol("LE-0109", number=bytes(16)), "not made under this grant"),
    "number of an enrolment key": (lambda t: t.enrol("LE-0109", number=bytes(8)), "not made under this grant"),
    "number of another entry": (
        lambda t: t.enrol("LE-0109", number=t.given.credential_number(77)),
        "number or the time of another entry",
    ),
    "another authority": (lambda t: t.enrol("LE-0109", authority="Nebenwerke"), "not made under this grant"),
    "another trust version": (lambda t: t.enrol("LE-0109", epoch=11), "trust version that is not the grant's"),
    "credential by a stranger": (lambda t: t.enrol("LE-0109", signed_by=Key()), "its signature is not that of a key"),
    "proof for another nonce": (lambda t: t.enrol("LE-0109", nonce=bytes(16)), "it answered an older question"),
    "proof by a stranger": (lambda t: t.enrol("LE-0109", proof_signed_by=Key()), "the signature is not that of key"),
    "proof of other keys": (lambda t: t.enrol("LE-0109", proven_by=BoardKeys()), "not for the keys that it has proven"),
}  # fmt: skip


def late(technician: Technician, moment: int) -> None:
    technician.clock = moment
    technician.enrol("LE-0109")


@pytest.mark.parametrize("name", WRONG)
def test_a_board_that_the_grant_does_not_cover_is_refused_and_holds_up_no_other(
    office: Authority, technician: Technician, name: str
) -> None:
    wrong, words = WRONG[name]
    if name != "before the grant":  # an entry dated before the one ahead of it has a test of its own
        technician.enrol("LE-0101")
    wrong(technician)
    done = merge(office, technician.journal)
    assert [one.result for one in done.results][-1] == REFUSED
    assert words in done.results[-1].said
    assert [board.id for board in rows(office)] == [one.board for one in done.results[:-1]]
    assert acts(office, "merge refuse") == [done.results[-1].board]
    require_true_log(office)
    # Merged again it is refused again; the log does not tell it twice.
    assert came_to(merge(office, technician.journal))[-1][1] == REFUSED
    assert len(acts(office, "merge refuse")) == 1


def test_one_board_too_many_is_refused_in_one_journal_and_over_several_merges(
    office: Authority, technician: Technician
) -> None:
    for number in range(1, 4):
        technician.enrol(f"LE-010{number}")
    merge(office, technician.journal)
    technician.enrol("LE-0104")
    done = merge(office, technician.journal)
    assert came_to(done) == [("LE-0101", ALREADY), ("LE-0102", ALREADY), ("LE-0103", ALREADY), ("LE-0104", REFUSED)]
    assert "the grant is for 3 boards" in done.results[-1].said
    assert len(rows(office)) == 3
    key = Key()
    at_once = Technician(granted(office, key), key)
    for number in range(1, 5):
        at_once.enrol(f"LE-011{number}")
    assert [one.result for one in merge(office, at_once.journal).results] == [MERGED, MERGED, MERGED, REFUSED]


def test_a_board_at_a_post_of_another_site_is_refused(office: Authority) -> None:
    key = Key()
    at_the_harbour = Technician(granted(office, key, posts=("Harbour-*",)), key)
    at_the_harbour.enrol("LE-0101", place=Place("Harbour-1"))
    at_the_harbour.enrol("LE-0102", place=Place("Market-1"))
    at_the_harbour.enrol("LE-0103")
    done = merge(office, at_the_harbour.journal)
    assert [one.result for one in done.results] == [MERGED, REFUSED, REFUSED]
    assert "posts Harbour-*, not Market-1" in done.results[1].said
    assert "not for boards that hang nowhere" in done.results[2].said


def test_an_entry_dated_before_the_one_ahead_of_it_refuses_its_board(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101")
    technician.clock -= 3600
    technician.clock = max(technician.clock, NOW)
    technician.enrol("LE-0102")
    done = merge(office, technician.journal)
    assert came_to(done) == [("LE-0101", MERGED), ("LE-0102", REFUSED)]
    assert "the clock was set back" in done.results[1].said


def test_ids_and_keys_that_the_registry_has_already_are_refused_with_the_reason(
    office: Authority, technician: Technician
) -> None:
    first, second = BoardKeys(), BoardKeys()
    technician.enrol("LE-0101", first)
    merge(office, technician.journal)
    key = Key()
    other = Technician(granted(office, key, most=9), key)
    other.enrol("LE-0101")
    other.enrol("LE-0102", first)
    other.enrol("LE-0103", BoardKeys(agree=first.agree))
    other.enrol("LE-0104", second)
    other.enrol("LE-0104")
    done = merge(office, other.journal)
    assert [one.result for one in done.results] == [REFUSED, REFUSED, REFUSED, MERGED, REFUSED]
    assert "the id LE-0101 belongs to another board (pending" in done.results[0].said
    assert (
        done.results[1].said == done.results[2].said == "a key of it is that of LE-0101 (pending): one board has one id"
    )
    assert "the id LE-0104 belongs to another board" in done.results[4].said
    assert len(acts(office, "merge refuse")) == 4
    require_true_log(office)


def test_a_failing_disk_is_no_refusal_of_a_board(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101")
    (office.directory / "audit.log").chmod(0o400)
    (office.directory / "audit.log").rename(office.directory / "audit.gone")
    with pytest.raises(UsageError, match="audit log is missing"):
        merge(office, technician.journal)
    assert rows(office) == []


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
