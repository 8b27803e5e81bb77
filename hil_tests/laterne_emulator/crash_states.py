"""What files may look like after a power cut: rebuilt from a record of all that was asked of the disk.

What a disk promises: when a sync has returned, what was written to that file before it is there. Of everything else
each sector (512 bytes) of each write may be there or not, in any order; a size may have changed or not; a file that
was never synced may not exist, and one that was removed may be back. SQLite's own assumption (atomicio.html,
"powersafe overwrite") is kept: a torn write harms nothing outside of its range.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from laterne_emulator.recorded_disk import Mark, Operation, Remove, Sync, Truncate, Write

SECTOR_BYTES = 512
KEPT_EVERY = 400  # operations; a record has some thousands, and a moment of it takes some MB


class Loss(Enum):
    """What became of the writes that no sync had made sure of."""

    ALL_DONE = "done"  # a killed process: the kernel has them all
    DROPPED = "dropped"
    REORDERED = "reordered"  # each write is there or not
    TORN = "torn"  # each sector is there or not, the newest writes most likely in part


@dataclass
class _File:
    """durable: what is there for sure; None: there is no such file. pending: what is under way since."""

    durable: bytearray | None = None
    pending: list[Write | Truncate | Remove] = field(default_factory=list)


class Disk:
    """Files while a record is played back, operation by operation."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def play(self, operation: Operation) -> None:
        match operation:
            case Mark():
                return
            case Sync(file):
                found = self._files.setdefault(file, _File())
                if found.durable is None:
                    # The first sync of a journal that SQLite has made syncs its directory, too (os_unix.c, DIRSYNC).
                    self._sync_directory()
                content = found.durable if found.durable is not None else bytearray()
                for one in found.pending:
                    content = _apply(content, one) or bytearray()
                self._files[file] = _File(content)
            case Remove(file, synced=True):
                self._files.pop(file, None)
                self._sync_directory()
            case Write(file) | Truncate(file) | Remove(file):
                self._files.setdefault(file, _File()).pending.append(operation)

    def copy(self) -> "Disk":
        made = Disk()
        for name, file in self._files.items():
            durable = None if file.durable is None else bytearray(file.durable)
            made._files[name] = _File(durable, list(file.pending))
        return made

    def crash(self, loss: Loss, dice: random.Random) -> dict[str, bytes]:
        """The files as they may be found."""
        found = {}
        for name, file in self._files.items():
            content = None if file.durable is None else bytearray(file.durable)
            for operation in file.pending:
                for part in _kept(operation, loss, dice):
                    content = _apply(content, part)
            if content is not None:
                found[name] = bytes(content)
        return found

    def _sync_directory(self) -> None:
        for file in self._files.values():
            removals = [number for number, one in enumerate(file.pending) if isinstance(one, Remove)]
            if removals:
                file.durable, file.pending = None, file.pending[removals[-1] + 1 :]


def _kept(operation: Write | Truncate | Remove, loss: Loss, dice: random.Random) -> Iterator[Write | Truncate | Remove]:
    if loss is Loss.DROPPED:
        return
    if loss is Loss.ALL_DONE:
        yield operation
    elif not isinstance(operation, Write) or loss is Loss.REORDERED:
        if dice.random() < 0.5:
            yield operation
    else:
        share = dice.random()
        at = operation.offset
        end = at + len(operation.data)
        while at < end:
            until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if dice.random() < share:
                yield Write(operation.file, at, operation.data[at - operation.offset : until - operation.offset])
            at = until


def _apply(content: bytearray | None, operation: Write | Truncate | Remove) -> bytearray | None:
    if isinstance(operation, Remove):
        return None
    content = bytearray() if content is None else content
    if isinstance(operation, Truncate):
        del content[operation.size :]
        return content
    end = operation.offset + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))  # a hole reads as zeros
    content[operation.offset : end] = operation.data
    return content


class Playback:
    """A record that is played again and again, each time from the last of some moments that are kept."""

    def __init__(self, record: Sequence[Operation]) -> None:
        self._record = record
        self._kept = [Disk()]  # after 0, KEPT_EVERY, 2 * KEPT_EVERY, ... operations

    def crash(self, moment: int, loss: Loss, dice: random.Random) -> dict[str, bytes]:
        """The files when the power goes after `moment` operations: they had begun, and the syncs among them ended."""
        number = moment // KEPT_EVERY
        while len(self._kept) <= number:
            begin = (len(self._kept) - 1) * KEPT_EVERY
            self._kept.append(self._played(begin, begin + KEPT_EVERY))
        return self._played(number * KEPT_EVERY, moment).crash(loss, dice)

    def _played(self, begin: int, end: int) -> Disk:
        disk = self._kept[begin // KEPT_EVERY].copy()
        for operation in self._record[begin:end]:
            disk.play(operation)
        return disk
