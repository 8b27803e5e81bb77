"""The campaigns that sweeps of power cuts go through, and what holds in each of them at any time and at its end."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from tests.firmware.campaigns import ABANDON, ARM, STAGE, Campaign, Order, release

from laterne_emulator import slot_reading
from laterne_emulator.cut_sweep import Life
from laterne_emulator.slots import Record, Release

HEAP_BYTES = 256 * 1024  # the program has all of an update in memory at once, with long names
DAMAGED, CRASHED = 1, 3
ACROSS = "a rename from one folder to another"  # as the program says
SAME, CHANGED = bytes(range(200)) * 6, bytes(range(256)) * 20
OLD = release("OLD", 7, {"same.mpy": SAME, "changed.mpy": CHANGED})
FORMER = release("FORMER", 6, {"changed.mpy": b"older" * 100, "old/gone.mpy": b"gone" * 300, "same.mpy": SAME[::-1]})
PAYLOAD = {
    "changed.mpy": CHANGED[:3000] + b"other" + CHANGED[3005:],
    "deep/er/new.mpy": b"".join(sha256(b"%d" % number).digest() for number in range(300)),
    "empty.mpy": b"",
    "same.mpy": SAME,
}
NEW = release("NEW", 8, PAYLOAD)
OTHER = release("OTHER", 9, {"changed.mpy": b"another" * 700, "wide/one.mpy": b"1" * 700, "wide/two.mpy": b"2" * 900})
BAD = release("BAD", 8, PAYLOAD, crashes=True)
LARGE = release("LARGE", 8, {f"{name}.mpy": b"much" * 6000 for name in range(9)})
# The other shape: many small files, which littlefs keeps in their folder.
MANY = release("MANY", 8, {f"f{folder}/{name}.mpy": b"%d" % name * 90 for folder in range(3) for name in range(4)})
STALE = {"b/old/stale.mpy": b"in no index", "b/M.n": b"half an index of another"}


def both(new: Release) -> tuple[Order, ...]:
    return Order(STAGE, new), Order(ARM, new)


def given_up(new: Release) -> tuple[Order, ...]:
    return *both(new), Order(ABANDON, new)


def campaigns() -> dict[str, Campaign]:
    fresh = Record("a", floor=7, slots={"a": OLD.entry}, confirmed=("a",))
    second = Record("a", floor=7, slots={"a": OLD.entry, "b": FORMER.entry}, confirmed=("b", "a"))
    taken = replace(second, active="b", floor=8, slots={"a": OLD.entry, "b": NEW.entry}, confirmed=("a", "b"))
    made = {}
    made["a release is installed, tried and confirmed"] = Campaign(
        OLD, FORMER, second, both(NEW), taken, "NEW NEW from /b", {"a": OLD, "b": NEW}, more=STALE
    )
    third = replace(taken, active="a", floor=9, slots={"a": OTHER.entry, "b": NEW.entry}, confirmed=("b", "a"))
    made["the third release goes where the first one was"] = Campaign(
        OLD, NEW, taken, both(OTHER), third, "OTHER OTHER from /a", {"a": OTHER, "b": NEW},
        blocks=46,  # there is just room
    )  # fmt: skip
    made["many small files, into an empty slot"] = Campaign(
        OLD, None, fresh, both(MANY), replace(taken, slots={"a": OLD.entry, "b": MANY.entry}), "MANY MANY from /b",
        {"a": OLD, "b": MANY}, blocks=128,
    )  # fmt: skip
    made["an install is given up for another one"] = Campaign(
        OLD, None, fresh, (Order(STAGE, NEW), Order(ABANDON, NEW, 4), *both(OTHER)),
        replace(taken, floor=9, slots={"a": OLD.entry, "b": OTHER.entry}), "OTHER OTHER from /b",
        {"a": OLD, "b": OTHER},
    )  # fmt: skip
    # Back to a confirmed release below the floor: another one had been confirmed, and its slot is damaged since.
    below = replace(second, floor=8)
    failed = replace(below, slots={"a": OLD.entry, "b": BAD.entry}, result=(CRASHED, BAD.digest), refused=BAD.digest)
    made["a release that crashes is rolled back"] = Campaign(
        OLD, FORMER, below, both(BAD), replace(failed, confirmed=("a",)), "OLD OLD from /a", {"a": OLD, "b": BAD}
    )
    made["a release for another interpreter is not installed"] = Campaign(
        OLD, FORMER, second, given_up(replace(NEW, abi=5)), second, "OLD OLD from /a", {"a": OLD, "b": FORMER}
    )
    made["a release for which there is no room is not installed"] = Campaign(
        OLD, FORMER, second, given_up(LARGE), second, "OLD OLD from /a", {"a": OLD, "b": FORMER},
        blocks=25,  # MicroPython counts more in use than there are
    )  # fmt: skip
    unproven = replace(second, confirmed=("a",))
    made["the rescue installs where no slot is good"] = Campaign(
        OLD, FORMER, unproven, both(NEW), taken, "NEW NEW from /b", {"b": NEW}, damaged=("a/part.mpy",)
    )
    made["the rescue repairs a slot that was confirmed"] = Campaign(
        OLD, NEW, replace(taken, active="a"), both(NEW), taken, "NEW NEW from /b", {"b": NEW},
        damaged=("a/part.mpy", "b/deep/er/new.mpy"),
        # A cut between the repair and the arming: then a start finds the slot whole, and it was confirmed.
        or_end=replace(taken, result=(DAMAGED, OLD.digest)),
    )  # fmt: skip
    lost = Record("b", floor=8, slots={"b": NEW.entry}, confirmed=("b",))
    made["the rescue installs where the record is lost"] = Campaign(
        OLD, FORMER, second, both(NEW), lost, "NEW NEW from /b", {"a": OLD, "b": NEW}, damaged=("slot.0", "slot.1")
    )
    again = replace(NEW, sequence=9)
    made["the same files under a new number, where they lie already"] = Campaign(
        OLD, NEW, fresh, both(again), replace(taken, floor=9, slots={"a": OLD.entry, "b": again.entry}),
        "NEW NEW from /b", {"a": OLD, "b": again},
    )  # fmt: skip
    made["an order to stage another release during a trial"] = Campaign(
        OLD,
        None,
        fresh,
        (*both(NEW), Order(STAGE, OTHER), Order(ABANDON, OTHER, 4)),
        taken,
        "NEW NEW from /b",
        {"a": OLD, "b": NEW},
    )
    return made


CAMPAIGNS = campaigns()
# An ESP32's flash is programmed 32 bytes at once, and littlefs keeps only files up to 128 bytes in their folder there.
CAMPAIGNS |= {
    f"{name}, 32 bytes at once": replace(CAMPAIGNS[name], page_bytes=32, ways=0.15, blocks=96)
    for name in ("a release is installed, tried and confirmed", "a release that crashes is rolled back")
}


def _name(made: Release | None) -> str:
    assert made is not None
    return f"{made.version.upper()} {made.version.upper()}"


class Whole:
    """What holds in a campaign, and at its end."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        known = [made for made in (campaign.a, campaign.b, *campaign.releases) if made is not None]
        self._known = {sha256(made.index).digest(): made for made in known}
        # Slots that nobody may run, until they are written anew.
        self._broken = {path[0] for path in campaign.damaged if path[1] == "/"}
        self._is_lost = any(path.startswith("slot") for path in campaign.damaged)
        # What ran before, what was ordered, and the rescue where nothing else could run.
        active = {"a": campaign.a, "b": campaign.b}[campaign.record.active]
        runs = [(made, slot) for made in campaign.releases for slot in "ab" if slot != campaign.record.active]
        rescued = self._is_lost or campaign.record.active in self._broken
        self._may_run = {"RESCUE RESCUE from /r"} if rescued else {f"{_name(active)} from /{campaign.record.active}"}
        self._may_run |= {f"{_name(made)} from /{slot}" for made, slot in runs}
        self._untouched = {
            slot: made
            for slot, made in (("a", campaign.a), ("b", campaign.b))
            if made is not None and campaign.left.get(slot) is made and slot not in self._broken
        }

    def at_any_time(self, found: Mapping[str, bytes], where: str) -> None:
        record = slot_reading.record_in(found)
        assert record is not None or self._is_lost, f"{where}: the record is lost"
        for slot, kept in self._untouched.items():
            # What is refused leaves its index beside that of the slot, for whoever comes next.
            slot_reading.require_whole_in(found, slot, kept, () if slot == self.campaign.record.active else ("M.n",))
        for slot in "ab":
            index = found.get(f"/{slot}/M")
            named = self._known.get(sha256(index or b"").digest())
            assert index is None or named is not None, f"{where}: slot {slot} has an index of no release"
            # Slots that were damaged from the start have their old index until they are written anew.
            if named is not None and not (slot in self._broken and named in (self.campaign.a, self.campaign.b)):
                slot_reading.require_whole_in(found, slot, named, ("M.n", "E.n", *STALE_NAMES))
        if record is None:
            return
        if record.active not in (*self._broken, ""):
            slot_reading.require_whole_in(found, record.active, self._known[record.slots[record.active][1]])
        if record.trial is not None:
            slot_reading.require_whole_in(found, record.trial, self._known[record.slots[record.trial][1]])
        before, end = self.campaign.record, self.campaign.end
        if before.active != end.active and not self._is_lost:
            floor = end.floor if record.active == end.active else before.floor
            assert record.floor == floor, f"{where}: the floor rises with the switch"

    def at_the_end(self, found: Mapping[str, bytes], life: Life, where: str) -> None:
        assert life.is_done, f"{where}: {life.printed}"
        assert "failed" not in life.lines, f"{where}: {life.printed}"
        assert ACROSS not in life.printed, where
        for run in life.runs:
            assert run in self._may_run, f"{where}: {run}"
        assert life.runs[-1] == self.campaign.runs, f"{where}: {life.printed}"
        record = slot_reading.record_in(found)
        assert record is not None, where
        assert record in (self.campaign.end, self.campaign.or_end), f"{where}: {record}"
        for slot, left in self.campaign.left.items():
            slot_reading.require_whole_in(found, slot, left, () if left in self.campaign.releases else ("M.n",))
            if left in self.campaign.releases:
                assert found[f"/{slot}/E"] == left.envelope, f"{where}: an envelope of another release"
        # Half a copy of the record may lie there: the next one is written over it.
        known = ("/a/", "/b/", "/k/", "/slot.0", "/slot.1")
        more = {path for path in found if not path.startswith(known)}
        assert more == set(), f"{where}: {more}"


STALE_NAMES = tuple(path[2:] for path in STALE)
