"""The state record of updates: which slot runs, which is tried, how often that went wrong (README.md, "Two slots").

    active       slot that runs when none is tried: "a" or "b"; "" when the record was lost: then nothing is proven
    trial        slot that is tried, or None
    attempts     of a trial: its starts but those by power. Without one: starts in a row of the active release that
                 something else than the power began; the app takes them back when it has run for 10 minutes
    power_ons    starts of a trial by power: a post's feed may be switched, so these have a limit of their own
    floor        no release with a lower sequence is armed or tried; what was confirmed is never held to it
    result       of the last trial that was not confirmed: [one of the results, digest of its release], or None
    slots        {slot: [digest of its release (16), SHA-256 of its index (32), sequence]}; none for one without index
    confirmed    slots whose release was: only these are run when the active one is damaged
    refused      digest of the release that failed here and must not be tried again under its sequence, or None

Every change is one commit: the rename of one file (`store`). Doing one twice changes nothing.
"""

from laterne_firmware.store import Record
from laterne_protocol import cbor, fields
from laterne_protocol.errors import ObjectError, WireError

RECORD = "/slot"
INDEX = "/M"  # of a slot: the index of its release, written last
RESCUE = "/r"  # first on sys.path when the rescue runs, also where there is no such folder: then it is frozen
DAMAGED, UNSUITABLE, CRASHED, POWER_FAILED, ABANDONED = 1, 2, 3, 4, 5  # results


def other(slot: str) -> str:
    """The slot that an update of a board which runs this one goes to."""
    return "a" if slot == "b" else "b"


class State:
    """The record. What changes it is on flash when it returns; OSError when the flash refuses."""

    def __init__(self, path: str = RECORD) -> None:
        self.record = Record(path)
        self._clear()

    def _clear(self) -> None:
        self.active = ""
        self.trial = None  # type: str | None
        self.attempts = 0
        self.power_ons = 0
        self.floor = 0
        self.result = None  # type: list[object] | None
        self.slots = {}  # type: dict[str, tuple[bytes, bytes, int]]
        self.confirmed = []  # type: list[str]
        self.refused = None  # type: bytes | None

    def load(self) -> None:
        """What is on flash. A board that has never had a record was flashed without one and runs "a"."""
        self._clear()
        body = self.record.load()
        if body is None:
            self.active = "" if self.record.damaged else "a"
            return
        try:
            self._take(fields.mapping(cbor.decode(body, 512), "slots", (1, 2, 3, 4, 5, 6, 8, 9, 10)))
        except WireError:
            self._clear()

    def _take(self, parts: "dict[int, object]") -> None:
        active, trial, refused = parts[1], parts[2], parts[10]
        self.active = _slot(active) if active else ""
        self.trial = None if trial is None else _slot(trial)
        self.attempts = fields.integer(parts[3], "attempts", 0, 255)
        self.power_ons = fields.integer(parts[4], "power-ons", 0, 255)
        self.floor = fields.integer(parts[5], "floor")
        if parts[6] is not None:
            code, digest = fields.array(parts[6], "result", 2, 2)
            self.result = [fields.integer(code, "result", 1, 255), fields.byte_string(digest, "release", 16)]
        slots = parts[8]
        if not isinstance(slots, dict):
            raise ObjectError("slots are a map")
        for slot in slots:
            digest, index, sequence = fields.array(slots[slot], "slot", 3, 3)
            self.slots[_slot(slot)] = (
                fields.byte_string(digest, "release", 16),
                fields.byte_string(index, "index", 32),
                fields.integer(sequence, "sequence"),
            )
        self.confirmed = [_slot(slot) for slot in fields.array(parts[9], "confirmed", 0, 2)]
        self.refused = None if refused is None else fields.byte_string(refused, "release", 16)

    def save(self) -> None:
        """One commit."""
        self.record.save(
            cbor.encode(
                {
                    1: self.active,
                    2: self.trial,
                    3: self.attempts,
                    4: self.power_ons,
                    5: self.floor,
                    6: self.result,
                    8: self.slots,
                    9: self.confirmed,
                    10: self.refused,
                }
            )
        )

    def arm(self, slot: str, release: bytes, index: bytes, sequence: int) -> None:
        """From the next start on this slot is tried. Who calls has checked that it is whole and no trial is open.

        release: digest, 16 bytes. index: SHA-256 of its index. sequence: of its manifest.
        """
        if slot == self.active or self.trial is not None:
            raise ValueError("slot %s cannot be tried" % slot)
        self.trial = slot
        self.attempts = self.power_ons = 0
        self.result = None
        self.slots[slot] = (release, index, sequence)
        self.confirmed = [name for name in self.confirmed if name != slot]
        self.save()

    def confirm(self, least: int = 0) -> None:
        """The trial is over and its release is the active one. The floor rises in the same commit.

        least: sequence below which this release gives up the other slot, though that was confirmed once.
        """
        slot = self.trial
        if slot is None:
            return
        self.active, self.trial = slot, None
        self.attempts = self.power_ons = 0
        self.floor = max(self.floor, self.slots[slot][2])
        self.confirmed = [name for name in self.confirmed if name != slot and self.slots[name][2] >= least] + [slot]
        self.save()

    def abandon(self, result: int = ABANDONED) -> None:
        """The trial is over. result: why; unless it was an order, its release is refused from now on."""
        slot = self.trial
        if slot is None:
            return
        self.trial = None
        self.attempts = self.power_ons = 0
        release = self.slots[slot][0] if slot in self.slots else bytes(16)
        self.result = [result, release]
        if result != ABANDONED:
            self.refused = release
        self.save()

    def healthy(self) -> None:
        """The active release has run long enough: the starts before do not count any more."""
        if self.attempts and self.trial is None:
            self.attempts = 0
            self.save()


def _slot(value: object) -> str:
    if value not in ("a", "b"):
        raise ObjectError("no slot is called so")
    return value  # type: ignore[return-value]  # one of the two, which are strings
