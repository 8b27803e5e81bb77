"""A journal comes home: what a technician did under a grant is judged again, and taken into the registry.

First the journal as a whole: it belongs to a grant that was issued here and is not revoked, the technician's key has
signed every entry, nothing is missing or exchanged, and it goes on where an earlier merge has ended. If not, nothing is
taken. Then each board by itself: its credential, its proof, what the grant allows, and whether id and keys are free. A
board that is refused holds up no other.

A journal can be merged again, or a longer one: what is there stays as it is. Everything happens in one transaction, so
a merge that is killed has not happened; the audit log then tells of boards that are not there until it is repeated.

What this cannot know: when an entry was really written. The times are the technician's clock's, in order, and the proof
of each board was made after the grant was issued; that is all. So after the end of a grant every board waits for a
second person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from laterne_protocol import credential
from laterne_protocol.errors import ObjectError, WireError
from laterne_protocol.grant import Grant
from laterne_provisioning import audit, enrol, grant_journal, grants
from laterne_provisioning.authority import Authority
from laterne_provisioning.errors import OperatorError, UsageError
from laterne_provisioning.field import board_of
from laterne_provisioning.grant_journal import Chain, Confirm, Enrol, Entry
from laterne_provisioning.registry import ENDED, ENROLLED, PENDING, Board, Place, Registry

MERGED, ALREADY, REFUSED = RESULTS = "merged", "already", "refused"
AHEAD_S = 300  # how far a technician's clock may be ahead of ours


@dataclass(frozen=True)
class Result:
    """What a board of the journal has come to: one of RESULTS. said: the reason, or what it waits for."""

    board: str
    result: str
    said: str


@dataclass(frozen=True)
class Merged:
    """What a merge has come to. entries: of the journal. unread: numbers of lines that are none."""

    given: Grant
    entries: int
    unread: Sequence[int]
    results: Sequence[Result]


class _Refused(Exception):
    """A board that is not taken, and why."""


@dataclass
class _Story:
    """What the journal tells of one board: the entry in which it began, and those after that."""

    number: int
    time: int
    said: Enrol
    board: str
    confirmed: int | None = None
    hung: list[tuple[int, int, Place]] = field(default_factory=list)  # entry, time, place
    back: bool = False  # an entry of it is dated before the one ahead of it


def merge(authority: Authority, registry: Registry, content: bytes, accepted: bool, now: int) -> Merged:
    """Take what a journal tells into the registry. now: Unix seconds.

    accepted: boards that have confirmed are enrolled; else they wait for a second person. Raises UsageError,
    OperatorError: the journal is refused, and nothing is changed.
    """
    with registry.transaction():
        kept = grants.Grants(registry)
        issued, chain, given = _judged(authority, kept, content)
        if accepted and now > given.valid[1]:
            raise UsageError(
                "The grant is over: only the technician's clock says that these boards were enrolled before. Merge "
                "without --accept, and accept each board after comparing its words."
            )
        number_of_boards = len(grants.boards_under(registry.boards(), given.number))
        results = []
        for story in _stories(chain):
            try:
                result, added = _take(authority, registry, given, chain, story, number_of_boards, accepted, issued, now)
                number_of_boards += added
            except (_Refused, WireError) as why:
                result = Result(story.board, REFUSED, str(why))
                if story.number > issued.merged:
                    authority.log.append(
                        "merge refuse", story.board, _entry_details(given, story) | {"reason": str(why)}
                    )
            results.append(result)
        if len(chain.entries) > issued.merged:
            details: audit.Details = {
                "technician": given.technician,
                "entries": len(chain.entries),
                "head": chain.head.hex(),
                "unread": list(chain.unread),
            }
            authority.log.append("merge journal", given.number.hex(), details)
            kept.move(given.number, len(chain.entries), chain.head)
    return Merged(given, len(chain.entries), chain.unread, results)


def _judged(authority: Authority, kept: grants.Grants, content: bytes) -> tuple[grants.IssuedGrant, Chain, Grant]:
    start = grant_journal.start_of(content)
    if start is None:
        raise OperatorError("There is no entry in it that can be read: is it the journal?")
    issued = kept.of_journal(start)
    if issued is None:
        raise OperatorError(
            "It is not the journal of a grant that this registry knows: was the grant issued by another authority, or "
            "after the backup from which the registry came back?"
        )
    try:
        given = grants.verified(issued.body, authority.trusted)
    except WireError as why:
        raise OperatorError(f"The grant of this journal is not believed any more: {why}. Issue another.") from why
    if issued.revoked is not None:
        raise OperatorError(
            f"Grant {given.number.hex()} of {given.technician} is revoked ({issued.reason}): nothing of its journal "
            "counts. Wipe its boards and enrol them anew."
        )
    if not given.is_valid_under(authority.trusted.version):
        raise OperatorError(
            f"Grant {given.number.hex()} counts under trust versions {given.versions[0]} to {given.versions[1]}, and "
            f"this is {authority.trusted.version}: wipe its boards and enrol them anew."
        )
    try:
        chain = grant_journal.read(content, start, given.key)
    except grant_journal.NotAJournal as why:
        raise OperatorError(
            f"The journal of grant {given.number.hex()} is not whole: {why}. Nothing is merged. See what has happened "
            "to it; a copy that ends before that line can be merged."
        ) from why
    if len(chain.entries) < issued.merged:
        raise OperatorError(
            f"This journal has {len(chain.entries)} entries, and {issued.merged} of grant {given.number.hex()} have "
            "been merged: its end was cut off, or it is an older copy. Bring the newest one."
        )
    if issued.merged and chain.digests[issued.merged - 1] != issued.head:
        raise OperatorError(
            f"Another journal of grant {given.number.hex()} has been merged: a grant has one. Find out from "
            f"{given.technician} which boards stand in which; `laterne grant revoke` ends it."
        )
    return issued, chain, given


def _stories(chain: Chain) -> list[_Story]:
    """What the journal tells, board by board, in the order in which they were enrolled."""
    stories: list[_Story] = []
    by_digest: dict[bytes, _Story] = {}
    by_board: dict[str, _Story] = {}
    last = 0
    for entry in chain.entries:
        said = entry.said
        if isinstance(said, Enrol):
            story = _begun(entry, said)
            stories.append(story)
            by_digest[credential.digest(said.credential)] = by_board[story.board] = story
        else:
            # What is told of a board that was never enrolled changes nothing.
            found = by_digest.get(said.digest) if isinstance(said, Confirm) else by_board.get(said.board)
            if found is None:
                continue
            story = found
            if isinstance(said, Confirm):
                story.confirmed = entry.time
            else:
                story.hung.append((entry.number, entry.time, said.place))
        story.back = story.back or entry.time < last
        last = max(last, entry.time)
    return stories


def _begun(entry: Entry, said: Enrol) -> _Story:
    try:
        name = board_of(said, entry.time).id
    except WireError:
        name = f"entry {entry.number}"  # it is refused, where the reason is told
    story = _Story(entry.number, entry.time, said, name)
    if said.place is not None:
        story.hung.append((entry.number, entry.time, said.place))
    return story


def _take(
    authority: Authority,
    registry: Registry,
    given: Grant,
    chain: Chain,
    story: _Story,
    number_of_boards: int,
    accepted: bool,
    issued: grants.IssuedGrant,
    now: int,
) -> tuple[Result, bool]:
    """The result of one board, and whether it is new in the registry. Raises _Refused, WireError."""
    new = _proven(given, chain, story, now)
    former = registry.board(new.id)
    if former is None:
        _require_free(registry, new)
        if number_of_boards >= given.most:
            raise _Refused(f"the grant is for {given.most} boards, and so many are in the registry")
        return _add(authority, registry, given, story, new, accepted, now), True
    if new.credential not in grants.credentials_of(former):
        raise _Refused(
            f"the id {new.id} belongs to another board ({former.state}, key "
            f"{enrol.fingerprint(credential.kid(former.sign_key))}): wipe this one and give it another id"
        )
    said = former.state
    if former.delivered is None and former.state == PENDING and story.confirmed is not None:
        state = PENDING if former.decision else ENROLLED
        authority.log.append("confirm", new.id, enrol.details_of(former) | {"state": state})
        registry.confirm(new.id, min(story.confirmed, now))
        said = f"has confirmed its credential; {state}"
    later = [(time, place) for number, time, place in story.hung if number > issued.merged]
    if later and former.state not in ENDED and later[-1][1] != former.place:
        enrol.hang(authority, registry, new.id, later[-1][1], min(later[-1][0], now))
        said += f"; hangs at {later[-1][1].post} now"
    return Result(new.id, ALREADY, said), False


def _proven(given: Grant, chain: Chain, story: _Story, now: int) -> Board:
    """The row of a board whose credential and proof are good and allowed by the grant. Raises WireError."""
    claims = grants.made_under(given, story.said.credential)
    if claims.number != given.credential_number(story.number) or claims.issued != story.time:
        raise ObjectError("its credential has the number or the time of another entry")
    proof = enrol.possession_in(story.said.possession, grant_journal.nonce(chain.start, story.said.salt))
    if (proof.sign_key, proof.agree_key, proof.tier, proof.model) != (
        claims.sign_key,
        claims.agree_key,
        claims.tier,
        claims.model,
    ):
        raise ObjectError("its credential is not for the keys that it has proven")
    if story.back:
        raise ObjectError("an entry of it is dated before the one ahead of it: the clock was set back")
    if story.time > now + AHEAD_S:
        raise ObjectError("it was enrolled at a time that has not come yet")
    posts: list[str | None] = [place.post for _, _, place in story.hung]
    for post in posts or [None]:
        problem = given.why_not_there(post)
        if problem is not None:
            raise ObjectError(problem)
    return board_of(story.said, story.time)


def _require_free(registry: Registry, new: Board) -> None:
    for known in (registry.board_with_key(new.sign_key), registry.board_with_key(new.agree_key)):
        if known is not None:
            raise _Refused(f"a key of it is that of {known.id} ({known.state}): one board has one id")


def _add(
    authority: Authority, registry: Registry, given: Grant, story: _Story, new: Board, accepted: bool, now: int
) -> Result:
    confirmed = None if story.confirmed is None else min(story.confirmed, now)
    enrolled = now if accepted and confirmed is not None else None
    row = replace(
        new,
        state=PENDING if enrolled is None else ENROLLED,
        decision=not accepted,
        delivered=confirmed,
        enrolled=enrolled,
    )
    place = story.hung[-1][2] if story.hung else None
    more: audit.Details = {
        "credential": row.credential_digest.hex(),
        "post": None if place is None else place.post,
    }
    authority.log.append("merge", row.id, {**enrol.details_of(row), **_entry_details(given, story), **more})
    registry.add(row)
    for _, time, place in story.hung:
        registry.hang(row.id, place, min(time, now))
    if confirmed is None:
        return Result(row.id, MERGED, "pending: it has not confirmed its credential")
    return Result(row.id, MERGED, "enrolled" if accepted else "pending: it waits for a second person")


def _entry_details(given: Grant, story: _Story) -> dict[str, audit.Json]:
    return {
        "grant": given.number.hex(),
        "technician": given.technician,
        "entry": story.number,
        "at": story.time,
    }
