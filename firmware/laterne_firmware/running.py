"""What a start learns about the release that runs: from the record of the slots, and from the slot's own index."""

import sys

from laterne_firmware.slots import INDEX, RESCUE, State
from laterne_protocol import release_index
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from laterne_firmware.identity import Identity

_TRIAL_S = 600  # for a release that names no time


def learn(identity: "Identity") -> "tuple[int, bool]":
    """Fills release, trial and rescue. (milliseconds that a trial may take, whether the record counts this start)."""
    folder = sys.path[0]
    identity.rescue = folder == RESCUE
    state = State()
    state.load()
    slot = folder[1:]
    if slot in state.slots:
        identity.release = state.slots[slot][0]
    identity.trial = slot == state.trial
    if not identity.trial:
        return 0, slot == state.active and state.attempts > 0
    head = _head(folder)
    return (head.trial_s if head and head.trial_s else _TRIAL_S) * 1000, False


def _head(folder: str) -> "release_index.Head | None":
    try:
        with open(folder + INDEX, "rb") as file:
            return release_index.head_of(file.read)
    except (OSError, WireError):  # the loader has read it a moment ago
        return None


def confirm(identity: "Identity", release: bytes) -> bool:
    """The gateway has seen healthy reports of this release in this start: the trial ends well, in one commit.

    Whether the release is confirmed now; asked again it still is. OSError when the flash refuses.
    """
    if release != identity.release:
        return False
    if identity.trial:
        state = State()
        state.load()
        head = _head(sys.path[0])
        state.confirm(head.min_sequence if head else 0)
        identity.trial = False
    return True


def healthy(log: "Callable[[str], None]") -> None:
    """The active release has run long enough: its starts are no longer counted. One commit."""
    state = State()
    state.load()
    try:
        state.healthy()
        log("the release has run for ten minutes: starts before do not count")
    except OSError as why:
        log("flash refuses the record of the slots (%s)" % why)  # the counter goes on where it was
