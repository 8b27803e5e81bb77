"""Which firmware a start runs: the slot that is tried, the proven one, or the rescue (README.md, "Two slots").

Nothing of a slot is imported here, and a start by power that follows a good one writes nothing. What comes before what:

1 - the counter of a trial, before anything of its slot is read: a start that hangs has been counted
2 - the watchdog runs, before anything of a tried slot is read or imported
3 - that a trial has failed, before the active slot is run: the result is one commit with the end of the trial

If a commit fails the active slot is run, as if there were no trial; the next start tries again.
"""

import gc

from laterne_firmware import slots
from laterne_firmware.slot_check import whole
from laterne_firmware.slots import INDEX, RESCUE, State
from laterne_firmware.store import UNMOUNTED, exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machine import WDT

MAX_ATTEMPTS = 3
# Above twenty, because the feed of a street may fail so often while a release is tried; finite, because a release that
# draws too much current looks like a power cut.
MAX_POWER_ONS = 32
MAX_CRASHES = 8  # of the active release, in a row


def choose(enrolled: bool, by_power: bool, watchdog: "Callable[[], WDT]") -> str:
    """The folder to run: "/a", "/b" or RESCUE; it goes first on sys.path.

    by_power: whether the power began this start. watchdog: starts it. enrolled: without it a
    technician is there, whose resets are no crashes.
    """
    if exists(UNMOUNTED):
        return RESCUE
    state = State()
    state.load()
    if state.trial is not None:
        if _is_tried(state, by_power, watchdog):
            return "/" + state.trial
        enrolled = False  # it was not the active release that ended the start before: nothing to count
    if not state.active:
        print("the record of the slots is lost: rescue")
        return RESCUE
    if enrolled and not _has_patience(state, by_power):
        print("the release in slot %s has failed %d times in a row: rescue" % (state.active, MAX_CRASHES))
        return RESCUE
    return _proven(state)


def _is_tried(state: State, by_power: bool, watchdog: "Callable[[], WDT]") -> bool:
    slot = state.trial or ""
    try:
        if state.attempts >= MAX_ATTEMPTS:
            return _fails(state, slots.CRASHED)
        if state.power_ons >= MAX_POWER_ONS:
            return _fails(state, slots.POWER_FAILED)
        if by_power:
            state.power_ons += 1
        else:
            state.attempts += 1
        state.save()
        entry = state.slots.get(slot)
        if entry is None or entry[2] < state.floor:
            return _fails(state, slots.UNSUITABLE)
        wrong = _check(state, slot, watchdog())
        if wrong:
            return _fails(state, wrong)
    except OSError as why:
        print("slot %s is not tried: %s" % (slot, why))
        return False
    print("slot %s is tried: start %d, by power %d" % (slot, state.attempts, state.power_ons))
    return True


def _fails(state: State, result: int) -> bool:
    print("slot %s has failed: result %d" % (state.trial, result))
    state.abandon(result)
    return False


def _has_patience(state: State, by_power: bool) -> bool:
    # Counted before the import, as for a trial. A flash that refuses must not keep the release from running.
    if by_power:
        if not state.attempts:
            return True
        state.attempts = 0  # a row ends
    elif state.attempts >= MAX_CRASHES:
        return False
    else:
        state.attempts += 1
    try:
        state.save()
    except OSError as why:
        print("this start is not counted: %s" % why)
    return True


def _proven(state: State) -> str:
    # No floor here: what was confirmed is the fallback of what came after it.
    active = state.active
    if active not in state.slots:
        if exists("/" + active + INDEX):
            print("the record of the slots is lost: rescue")
            return RESCUE
        return "/" + active  # flashed without an index: nothing to check it by
    if not _check(state, active, None):
        return "/" + active
    other = slots.other(active)
    if other not in state.confirmed or _check(state, other, None):
        print("slot %s is damaged and the other one is not proven: rescue" % active)
        return RESCUE
    print("slot %s is damaged: slot %s" % (active, other))
    state.result = [slots.DAMAGED, state.slots[active][0]]
    state.active = other
    state.attempts = 0
    try:
        state.save()  # else the next update would go to the slot that runs
    except OSError as why:
        print("slot %s stays the active one: %s" % (active, why))
    return "/" + other


def _check(state: State, slot: str, dog: "WDT | None") -> int:
    entry = state.slots.get(slot)
    if entry is None:
        return slots.DAMAGED
    steps = whole("/" + slot, entry[1])
    try:
        while True:
            next(steps)
            if dog is not None:
                dog.feed()
    except StopIteration as finished:
        gc.collect()
        return int(finished.value)
