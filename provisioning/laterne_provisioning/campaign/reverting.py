"""Going back: what a board ran before, signed anew under a higher sequence, in a campaign as any other.

There is no order that makes a board take an older release: sequences only rise. So the release keys are needed; where
they are not at hand, this says what is to be brought to them and how to go on.
"""

from dataclasses import replace
from pathlib import Path

from laterne_protocol import release_file
from laterne_protocol.errors import WireError
from laterne_protocol.release_file import Release
from laterne_provisioning import keys, out_file, releases
from laterne_provisioning.authority import Authority
from laterne_provisioning.campaign import plan as campaign_plan
from laterne_provisioning.campaign import store
from laterne_provisioning.campaign.engine import Engine
from laterne_provisioning.campaign.plan import Plan, canaries
from laterne_provisioning.campaign.states import COMPLETED, CONFIRMED, FAILED, ROLLED_BACK
from laterne_provisioning.errors import OperatorError, UsageError


def reached(engine: Engine) -> list[str]:
    """The boards that run the release of this campaign, or may."""
    return [
        board
        for board, row in engine.rows.items()
        if row.state == CONFIRMED or (row.state == FAILED and row.stake and row.why != ROLLED_BACK)
    ]


def former(opened: Authority, engine: Engine, path: Path | None) -> Release:
    """What to go back to: the file that is named, or the newest release that a campaign before has brought to its end.

    Raises UsageError: there is none.
    """
    if path is not None:
        return releases.read(path)
    for other in reversed(store.stores(opened.directory)):
        there = other.engine()
        older = there.plan.release.sequence < engine.plan.release.sequence
        if there.course.state == COMPLETED and older:
            try:
                return release_file.release_of(other.release())
            except WireError as why:
                raise OperatorError(f"The release of {other.id} is damaged: {why}. Name a file with --to.") from why
    raise UsageError("No campaign before has brought a release to its end: name the one to go back to with --to FILE.")


def renewed(opened: Authority, older: Release, out: Path, secrets: keys.Secrets, name: str) -> Release:
    """The older files under the next sequence, signed, in the file `out`.

    Raises OperatorError: a release key is not at hand; what there is lies in `out`.
    """
    sequences = [one.plan().release.sequence for one in store.stores(opened.directory)]
    signed = releases.newest(opened.log)
    highest = max(older.manifest.sequence, *sequences, 0 if signed is None else signed[0])
    made = releases.again(older, highest + 1)
    while not releases.judged(made, opened.trusted).is_good:
        out_file.write(out, made.to_bytes())
        try:
            key = releases.signing_key(opened, made, None, secrets)
            made = releases.signed(opened, made, key)
        except OperatorError as why:
            raise OperatorError(
                f"{out} is what the boards are to go back to, and it is not signed yet: {why} Bring it to the release "
                f"keys (`laterne release sign {out}`), then `laterne campaign revert {name} --release {out}`."
            ) from why
    out_file.write(out, made.to_bytes())
    return made


def plan(engine: Engine, release: campaign_plan.Release, name: str, now: int) -> Plan:
    """The same gates and pace, for the boards that were reached. Raises OperatorError: there are none."""
    boards = set(reached(engine))
    whom = tuple(one for one in engine.plan.targets if one.board in boards)
    if not whom:
        raise OperatorError(f"No board runs the release of {engine.plan.id}: there is nothing to revert.")
    if release.sequence <= engine.plan.release.sequence:
        raise OperatorError(
            f"Boards would refuse it: its sequence is {release.sequence}, theirs {engine.plan.release.sequence}."
        )
    first = canaries(name, whom, [board for board in engine.plan.canaries if board in boards])
    return replace(engine.plan, id=name, release=release, targets=whom, canaries=first, made=now)
