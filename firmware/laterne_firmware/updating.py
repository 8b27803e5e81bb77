"""What becomes of the release that this board was ordered to fetch (protocol/README.md, 3.1 and 12.6).

In memory from a gateway's question *update* on, until nothing is ordered. All work is done between such a question and
its answer, in pieces, because then nobody sends: who erases flash may not hear.

    ordered     there is a record (`ordered`) that names a release; nothing of it is believed yet
    envelope    came from the gateway, or lies in the slot from before a loss of power; verified either way (`judging`)
    installing  `installer` has begun: only now is flash written, but for records of orders
    staged      the slot is whole; ARM may come
    failed      the release was refused; until a start or another order
"""

import gc
import sys

import machine
from micropython import const

from laterne_firmware import ordered
from laterne_firmware.memory import unload
from laterne_protocol import cbor
from laterne_protocol.update_messages import (
    ENVELOPE,
    FAILED,
    IDLE,
    LEAST_WINDOW_BITS,
    MAX_CODE_BYTES,
    RAW,
    RECEIVING,
    RESCUE,
    STAGED,
    TRIAL,
    WORKING,
    Data,
    Progress,
    Update,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from laterne_firmware.installer import Steps
    from laterne_firmware.sessions import Judged, Sessions

NOT_THE_ONE_ON_FLASH = 255  # as in release_check
MAX_ENVELOPE_BYTES = 1024
_BAD_FILE = const(23)
_FAILED = const(25)
# Flash blocks that are written for what comes, or begun. The largest release has 292, and the installer asks for each
# four times at most; but it may be begun again for want of memory, as often as a gateway likes that has hands shaken
# meanwhile. What it sends must not wear the flash for ever.
_MAX_BLOCKS = const(2048)
_FLASH_BLOCK_BYTES = const(4096)
_CHUNK_BYTES = const(1024)
# Blocks that go on with each other cost a tenth less on the line, and a decoder with this window for as long as they
# come: where so much is free that a signature finds its memory beside it, and no install has lacked any in this start.
_WINDOW_BITS = const(12)
_ROOMY_BYTES = const(81920)
# Installs that found no memory, until the board starts anew: a start has it in one piece. Once in a start by power, and
# once in ten minutes, when the starts before do not count any more (`loader`).
_MAX_BEGUN = const(16)
_HEALTHY_MS = const(600000)
_WORK_MS = const(250)  # between question and answer; one piece more, at most 100 ms, may come after it


class Updating:
    """release: digest of the release that is to be fetched, None when none is. slot: where it goes, never where one
    runs or is to run at the next start; empty when none is left. floor: as in the record of the slots, or `floors`.
    """

    def __init__(self, sessions: "Sessions") -> None:
        self._sessions = sessions
        named = ordered.load()
        self.release = named[0] if named else None
        self._ordered_sequence = named[1] if named else 0
        self._learn()
        self._chunks = [bytearray(_CHUNK_BYTES)]  # of the code that comes; more for a longer one
        self._envelope = b""  # not verified
        self._is_from_flash = False
        self._steps: "Steps | None" = None
        self._wanted = None  # type: tuple[int, int, int, int, int] | None
        self._forget_parts()
        if self.release is not None and sessions.judged is None:
            self._look_on_flash()

    def _learn(self) -> None:
        # From the record of the slots, which changes here, or with an order after which all of this begins anew.
        from laterne_firmware import slots

        sessions = self._sessions
        state = slots.State()
        state.load()
        runs = sys.path[0][1:]
        target = slots.other(state.active)
        self.slot = "" if target == runs else target
        if not state.slots and not sessions.floor:  # the record was lost, or there has never been one
            from laterne_firmware import floors

            sessions.floor = floors.found()
            unload("laterne_firmware.floors")
        self.floor = max(state.floor, sessions.floor)
        self._trial = state.trial is not None
        _, _, self._sequence = state.slots.get(runs, (b"", b"", 0))
        self._result = state.result
        is_over = self.release is not None and self.release in (sessions.identity.release, state.refused)
        del state
        unload("laterne_firmware.slots")
        if is_over:
            self._forget()

    def _forget(self) -> None:
        # What was ordered runs, or has failed. Not where it was confirmed or refused: the power may go between that and
        # this, and the order would stand on flash until the next one, to be fetched again should its slot break.
        from laterne_firmware import executed

        self.release = None
        try:
            executed.erase(ordered.RECORD)
        except OSError as why:  # the next start tries again
            self._sessions.log("flash refuses to forget an order (%s)" % why)
        unload("laterne_firmware.executed")

    @property
    def is_idle(self) -> bool:
        return self.release is None

    # What comes -------------------------------------------------------------------------------------------------------

    def take(self, data: Data) -> None:
        """A part of what is wanted; anything else falls away."""
        wanted = self._wanted
        if wanted is None or (data.item, data.start) != wanted[:2]:
            return
        about = data.encoding, data.length, data.size
        if not data.offset:
            if data.item == ENVELOPE and (data.encoding != RAW or data.length > MAX_ENVELOPE_BYTES):
                return
            if data.size > wanted[2]:
                return
            self._about = about
            while len(self._chunks) * _CHUNK_BYTES < data.length:
                self._chunks.append(bytearray(_CHUNK_BYTES))
        elif data.offset != self._have or about != self._about:
            return
        # Copied: what is kept of messages would lie all over memory, between their garbage.
        at, end = data.offset, data.offset + len(data.part)
        while at < end:
            first = at % _CHUNK_BYTES
            count = min(_CHUNK_BYTES - first, end - at)
            start = at - data.offset
            self._chunks[at // _CHUNK_BYTES][first : first + count] = data.part[start : start + count]
            at += count
        self._have = end

    def _forget_parts(self) -> None:
        self._have = 0
        self._about = RAW, 0, 0

    @property
    def _is_complete(self) -> bool:
        return self._have > 0 and self._have == self._about[1]

    # What is asked ----------------------------------------------------------------------------------------------------

    def answer(self, question: Update, now_ms: int) -> Progress:
        """Works for a while and says how far it is."""
        if question.told is not None:
            self._confirm(question.told)
        phase = self._advance(now_ms)
        wanted = None
        credit = 0
        if phase == RECEIVING and self._wanted is not None and self.release is not None:
            item, start, most, bits, behind = self._wanted
            wanted = self.release, item, start, most, self._have, bits, behind
            credit = (self._about[1] or (MAX_ENVELOPE_BYTES if item == ENVELOPE else MAX_CODE_BYTES)) - self._have
        judged = self._sessions.judged
        result = [judged[1], judged[0]] if phase == FAILED and judged is not None else self._result
        return Progress(
            question.number,
            phase,
            wanted,
            credit,
            self._sessions.identity.release or None,
            self._sequence,
            self.floor,
            self._sessions.nonce,
            self._sessions.staged[0] if self._sessions.staged else None,
            result,  # type: ignore[arg-type]  # as it was read
        )

    def _confirm(self, release: bytes) -> None:
        from laterne_firmware import running

        if running.confirm(self._sessions.identity, release) and self._trial:
            self._sessions.log("release %s is confirmed" % release.hex())
        unload("laterne_firmware.running", "laterne_protocol.release_index")
        self._learn()

    def _advance(self, now_ms: int) -> int:
        if self._trial:
            return TRIAL
        if self.release is None or not self.slot:
            return RESCUE if self._sessions.identity.rescue else IDLE
        if self._sessions.staged is not None:
            return STAGED
        judged = self._sessions.judged
        if judged is None or judged[1] == NOT_THE_ONE_ON_FLASH:
            return self._judge(self.release, now_ms)
        return FAILED if judged[1] else self._install(judged, now_ms)

    def _judge(self, release: bytes, now_ms: int) -> int:
        if self._sessions.judged is not None and self._is_from_flash:
            self._envelope = b""  # it was another release's
        if not self._envelope:
            self._wanted = ENVELOPE, 0, MAX_ENVELOPE_BYTES, LEAST_WINDOW_BITS, 0
            if not self._is_complete:
                return RECEIVING
            self._envelope = bytes(self._chunks[0][: self._have])
            self._is_from_flash = False
            self._wanted = None
            self._forget_parts()
        # Work as orders are, for seconds, in a task of its own, which begins when this answer has been given: then all
        # of this may leave memory. It writes nothing.
        self._sessions.judge(
            cbor.encode([release, self._ordered_sequence, self.floor, self._envelope, self._is_from_flash]), now_ms
        )
        return WORKING

    def _look_on_flash(self) -> None:
        # The power was lost: the envelope lies in the slot, if it was verified before. Now it is again.
        try:
            with open("/%s/E" % self.slot, "rb") as file:
                self._envelope = file.read(MAX_ENVELOPE_BYTES)
                self._is_from_flash = True
        except OSError:
            self._envelope = b""

    def _install(self, judged: "Judged", now_ms: int) -> int:
        sessions = self._sessions
        clock = sessions.clock
        try:
            steps = self._steps
            if steps is None:
                gc.collect()  # what is made now stays for long
                from laterne_firmware import installer

                _, _, envelope, index, size = judged
                folder = "/" + self.slot
                is_roomy = gc.mem_free() > _ROOMY_BYTES and not sessions.begun_again
                bits = _WINDOW_BITS if is_roomy else LEAST_WINDOW_BITS
                steps = self._steps = installer.install(folder, sys.path[0], envelope, index, size, sessions.log, bits)
            # No task comes in between: one that signs could have the memory of neither.
            while clock.now_ms() - now_ms < _WORK_MS:
                block = None
                if self._wanted is not None:
                    if not self._is_complete:
                        return RECEIVING
                    sessions.blocks += 1 + self._about[2] // _FLASH_BLOCK_BYTES
                    if sessions.blocks > _MAX_BLOCKS:
                        steps.close()
                        return self._ends(judged, _BAD_FILE)
                    block = self._about[0], self._chunks, self._have, self._about[2]
                    self._wanted = None
                    self._forget_parts()
                self._wanted = steps.send(block)
                del block
        except StopIteration as finished:
            return self._ends(judged, finished.value)
        except MemoryError:
            sessions.log("no memory to install a release: it begins again")
            self._drop()
            self._lacks_memory(now_ms)
        except Exception as why:
            # Whatever a gateway has sent, it must not end this start: the next one would ask for the same.
            sys.print_exception(why)
            return self._ends(judged, _FAILED)
        return WORKING

    def _lacks_memory(self, now_ms: int) -> None:
        # What is free lies in pieces, and would for as long as this start goes on.
        sessions = self._sessions
        sessions.begun_again += 1
        if sessions.begun_again < _MAX_BEGUN or sessions.ended:
            return
        if machine.reset_cause() == machine.PWRON_RESET or now_ms > _HEALTHY_MS:
            sessions.log("the board starts anew, to have its memory in one piece")
            sessions.reporter.hold = sessions.ended = True

    def _ends(self, judged: "Judged", result: int) -> int:
        self._drop()
        sessions = self._sessions
        if result:
            sessions.judged = judged[0], result, b"", b"", 0
            sessions.log("release %s is refused: result %d" % (judged[0].hex(), result))
            return FAILED
        sessions.staged = judged[0], self.slot, judged[3], self._ordered_sequence
        sessions.log("release %s is staged in slot %s" % (judged[0].hex(), self.slot))
        return STAGED

    def rest(self) -> None:
        """Gives back all memory that can be had again: an install goes on with the next file that is not whole."""
        steps = self._steps
        if steps is not None:
            self._drop()
            try:
                steps.close()
            except OSError as why:  # of a file that was half written, and is written again
                self._sessions.log("flash refuses a release: %s" % why)

    def _drop(self) -> None:
        self._steps = self._wanted = None
        self._forget_parts()
        del self._chunks[1:]
        unload(
            "laterne_firmware.installer",
            "laterne_firmware.unpacking",
            "laterne_firmware.slot_check",
            "laterne_protocol.release_index",
        )
