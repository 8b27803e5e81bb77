"""Boards of a journal that are refused, each by itself."""

from collections.abc import Callable

import pytest
from tests.provisioning.fake_board import Key
from tests.provisioning.office import LATER, acts, came_to, late, merge, require_true_log, rows
from tests.provisioning.technician import DAY, NOW, BoardKeys, Technician, granted

from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import UsageError
from laterne_provisioning.merging import ALREADY, MERGED, REFUSED
from laterne_provisioning.registry import Place

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
    other.enrol("LE-0105", BoardKeys(agree=first.sign))
    done = merge(office, other.journal)
    assert [one.result for one in done.results] == [REFUSED, REFUSED, REFUSED, MERGED, REFUSED, REFUSED]
    assert "the id LE-0101 belongs to another board (pending" in done.results[0].said
    for at in (1, 2, 5):
        assert done.results[at].said == "a key of it is that of LE-0101 (pending): one board has one id"
    assert "the id LE-0104 belongs to another board" in done.results[4].said
    assert len(acts(office, "merge refuse")) == 5
    require_true_log(office)


def test_a_failing_disk_is_no_refusal_of_a_board(office: Authority, technician: Technician) -> None:
    technician.enrol("LE-0101")
    (office.directory / "audit.log").chmod(0o400)
    (office.directory / "audit.log").rename(office.directory / "audit.gone")
    with pytest.raises(UsageError, match="audit log is missing"):
        merge(office, technician.journal)
    assert rows(office) == []
