"""What a start finds on flash: who the board is, its state record, its backlog. Needed once, then unloaded.

A backlog is judged by its records, not by its file names; what cannot be read is set aside or stated as a gap, and
never ends a start.
"""

import os
import struct
from binascii import crc32

from laterne_firmware import identity as names
from laterne_firmware.backlog import DRAFT
from laterne_firmware.identity import Identity
from laterne_firmware.memory import unload
from laterne_firmware.segment import HEADER_BYTES, SEGMENT_REPORTS, Segment
from laterne_firmware.state import State
from laterne_firmware.store import Record, exists, make_directory
from laterne_protocol import cbor, fields, report
from laterne_protocol.errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, BinaryIO

    from laterne_firmware.backlog import Backlog

_KEYS_BYTES = 200  # two private keys of 32, two public ones of 64, a kid of 8
MAX_OPEN_GAPS = 16  # as many as one report can state
LOST_NUMBERS = 1 << 24  # skipped when nothing at all says which numbers were used: 32 years of minutes

# A start whose number is not known for sure must not repeat one: reports and session would mix two starts.
DOUBTFUL_BOOTS = 2
# What a start may take with it: what was read since the last draft (reports.DRAFT_MS), while a report was signed too.
CUT_MS = 30000
LOST_BOOTS = 1000  # far more starts than a board makes within one segment of reports


def identity(log: "Callable[[str], None]") -> Identity:
    """Who the board is. An enrolment that the power cut off before the name was written is finished here."""
    make_directory(names.DIRECTORY)
    speaks = _finish_order()
    found = Identity()
    record = Record(names.KEYS)
    keys = record.load()
    if keys is not None and len(keys) == _KEYS_BYTES:
        found.take_keys(keys)
        speaks = speaks and keys[:32] != bytes(32)  # the order that erased it may be damaged
    elif keys is not None or record.damaged:
        record.set_aside()  # first: what the flash refuses here has not happened
        log("the keys cannot be read and are set aside: this board must be enrolled again")
    if found.kid is not None and not speaks:
        found.silence()
    found.former_agree_key = (Record(names.FORMER).load() or b"")[32:]
    record = Record(names.CREDENTIAL)
    signed = record.load()
    if found.kid is None:
        if signed is not None:
            log("a credential without keys is set aside")
            record.set_aside()
        return found
    try:
        kid, board, digest = fields.array(cbor.decode(Record(names.NAME).load() or b"", 128), "name", 3, 3)
        if kid == found.kid:  # else the keys are newer than the name
            found.credential_digest = fields.byte_string(digest, "digest", report.DIGEST_BYTES)
            found.board = fields.board_id(board)
            return found
    except WireError:
        if signed is None:
            return found
    if signed is not None:
        from laterne_firmware import enrolment

        try:
            enrolment.enrol(found, signed)
        except enrolment.CredentialRefused as why:
            log("the stored credential is set aside: %s" % why)
            record.set_aside()
    return found


def _finish_order() -> bool:
    """Ends what an order began before the power failed; whether the board may speak."""
    if not exists(names.ORDER + ".0") and not exists(names.ORDER + ".1"):
        return True
    from laterne_firmware import executed

    done = executed.load()
    if done is not None:
        for _ in executed.finish(done):
            pass
        if done.blank:
            import machine

            # For main.py this is the start of an enrolled board, with no REPL; the next one is a new board's.
            print("everything was erased, the board starts again as a new one")
            machine.reset()
    unload("laterne_firmware.executed")
    return done is None or done.blank or done.speaks is not None


def _load_state(state: State) -> bool:
    """Fills the state; whether there was a record and it cannot be read."""
    body = state.record.load()
    if body is None:
        return state.record.damaged
    try:
        boot, bound, gaps = fields.array(cbor.decode(body, 1024), "state", 3, 3)
        taken = []
        for item in fields.array(gaps, "gaps", 0, MAX_OPEN_GAPS):
            taken.append([fields.integer(number, "gap") for number in fields.array(item, "gap", 4, 4)])
        boot, bound = fields.integer(boot, "boot count"), fields.integer(bound, "bound")
    except WireError:
        return True
    state.boot, state.bound, state.gaps = boot, bound, taken
    return False


def start(
    state: State, backlog: "Backlog", log: "Callable[[str], None]", identity: Identity, report_ms: int
) -> "Generator[None, None, None]":
    """Fills state and backlog from flash and counts this start, a step for each segment.

    identity: a board without a name has made no report before. report_ms: age at which reports close.
    """
    lost = _load_state(state)
    make_directory(backlog.directory)
    newest = (0, 0, b"")
    nothing = []  # type: list[Segment]  # of which no record can be read
    for name in sorted(name for name in os.listdir(backlog.directory) if len(name) == 8):
        try:
            segment = Segment(backlog.directory, int(name, 16))
        except ValueError as why:
            log("log/%s is no segment: %s" % (name, why))
            continue
        try:
            last_record = scan(segment)
        except OSError as why:
            log("%s cannot be read: %s" % (segment.path, why))
            last_record = None
            segment.damaged = True
        yield
        if last_record is not None:
            newest = last_record
            backlog.segments.append(segment)
        else:
            nothing.append(segment)
    boot_seen, backlog.acknowledged, head = newest
    backlog.head = head or None
    gone = [segment.first for segment in nothing if segment.damaged]
    _close_holes(backlog, gone)
    _find_next(backlog, state, lost, identity.board is not None, gone)
    # On flash before the number of this start is used.
    # A start that the newest report knows and the record does not: littlefs shows the root as it was before (README.md,
    # "What if a block of the flash is bad?"). So many starts may have been since as when there is no record.
    lost = lost or boot_seen > state.boot
    step = LOST_BOOTS if lost else DOUBTFUL_BOOTS if state.record.doubtful else 1
    state.boot = max(state.boot, boot_seen) + step
    try:
        state.save()
    except OSError as why:
        # Worn out: the root's two blocks stay where they are, and littlefs has no others for it. A start that ended
        # here would end here for ever, and nobody could reach the board. So it makes no report, which needs numbers
        # that are kept, and delivers what there is; 0 is a start of which no report tells.
        log("flash refuses the number of this start (%s): no readings are taken" % why)
        state.boot = 0
        identity.rescue = True
    else:
        # Only now: what is set aside is looked at by no start any more, so its loss has to be on flash before.
        for segment in nothing:
            backlog.forget(segment)  # damaged, or a file that was being made when the power failed
    # Who is out of service has closed all, and could not sign it; the draft is for who makes reports again.
    if identity.board is None or identity.silent or identity.rescue:
        return
    backlog.draft, draft_lost = _draft(backlog, identity)
    if backlog.draft is not None:
        boot_seen = backlog.draft[1]
    # Without any report nobody knows in which start the board was enrolled: at most in the first.
    cut_ms = CUT_MS * (state.boot - max(boot_seen, 1)) + (report_ms if draft_lost else 0)
    backlog.cut_ms = min(cut_ms, fields.MAX_UINT32)


def _draft(backlog: "Backlog", identity: Identity) -> "tuple[tuple[bytes, int] | None, bool]":
    # The draft of the next report, and its boot count; whether there is another one that is not old. Old is one with a
    # number that is taken: its report was appended, or the number is skipped, and a gap says so. One with another
    # predecessor is of a chain, or of an enrolment, that is no more.
    path = backlog.directory + DRAFT
    try:
        with open(path, "rb") as file:
            content = file.read(report.MAX_REPORT_BYTES)
    except OSError:
        return None, exists(path)
    payload = content[4:]
    try:
        if struct.pack("<I", crc32(payload)) != content[:4]:
            return None, True
        parts = fields.mapping(cbor.decode(payload, report.MAX_PAYLOAD_BYTES), "draft", (1, 2, 3, 4, 5), (6, 7, 8, 9))
        boot = fields.integer(fields.array(parts[4], "closing", 2, 2)[0], "boot count")
        sequence = fields.integer(parts[2], "sequence")
    except WireError:
        return None, True
    follows = (identity.board, backlog.next_sequence, backlog.head or identity.credential_digest)
    if (parts[1], sequence, parts[3]) == follows:
        return (payload, boot), False
    return None, sequence >= backlog.next_sequence


def scan(segment: Segment) -> "tuple[int, int, bytes] | None":
    """Counts a segment's records, by their headers; the last one is read whole, as its digest starts the chain again.

    What that one says: boot count, what was acknowledged by then, digest of its payload; None when no record is whole.
    """
    segment.count = segment.size = 0
    segment.damaged = False
    offsets = []
    length = os.stat(segment.path)[6]
    with open(segment.path, "rb") as file:
        while segment.size < length:
            header = _found(segment.header, file, segment.size, segment.first + segment.count)
            if header is None or segment.size + HEADER_BYTES + header[0] > length:
                segment.damaged = True
                break
            offsets.append(segment.size)
            segment.size += HEADER_BYTES + header[0]
            segment.count += 1
        while offsets and _found(segment.body, file, offsets[-1], segment.last) is None:
            segment.damaged = True
            segment.size = offsets.pop()
            segment.count -= 1
        if not offsets:
            return None
        header = segment.header(file, offsets[-1], segment.last)
    return None if header is None else header[1:]


def _found(look: "Callable[..., Any]", file: "BinaryIO", offset: int, sequence: int) -> "Any":
    # What flash does not give is damage, as what it gives wrong: the records before it stay.
    try:
        return look(file, offset, sequence)
    except OSError:
        return None


def _close_holes(backlog: "Backlog", gone: "list[int]") -> None:
    # gone: first numbers of segments of which nothing can be read. What lay before the oldest file was acknowledged.
    segments = backlog.segments
    if segments and gone and gone[0] < segments[0].first:
        first = max(gone[0], backlog.acknowledged + 1)
        if first < segments[0].first:
            backlog.lose(first, segments[0].first - 1, report.DAMAGED)
    for former, segment in zip(segments, segments[1:]):  # noqa: B905, RUF007 - not on MicroPython
        if segment.first > former.last + 1:
            damaged = former.damaged or [first for first in gone if former.first < first < segment.first]
            backlog.lose(former.last + 1, segment.first - 1, report.DAMAGED if damaged else report.NUMBER_SKIPPED)


def _find_next(backlog: "Backlog", state: State, state_lost: bool, enrolled: bool, gone: "list[int]") -> None:
    newest = backlog.segments[-1] if backlog.segments else None
    last = newest.last if newest else (gone[0] if gone else report.FIRST_SEQUENCE) - 1
    reserved = newest.first + SEGMENT_REPORTS if newest else report.FIRST_SEQUENCE
    # The bound on flash may still be the former segment's. start() saves it now: should this segment be damaged later,
    # the numbers used in it until then must lie below it.
    state.bound = max(state.bound, reserved)
    if state_lost and (newest or enrolled):
        state.bound += LOST_NUMBERS
    # Three things may have happened to the newest segment:
    # 1 - it is whole and the bound is its own, or it was made and the bound was not yet saved: go on in it.
    # 2 - its end is damaged: any number below the bound may be on the way to the platform.
    # 3 - the bound belongs to a newer segment, which is gone, or is not known any more: the same.
    backlog.next_sequence = last + 1
    if (newest and newest.damaged) or state.bound > reserved:
        # One more is skipped: a gateway that has the last number would take what follows at once for a broken chain.
        # And the bound stays below the next number, so that a start that makes no report skips nothing more.
        backlog.next_sequence = state.bound + 1
        backlog.lose(last + 1, state.bound, report.DAMAGED)
