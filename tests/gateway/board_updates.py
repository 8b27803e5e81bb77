"""A board's end of an update, as protocol/README.md, 3.1 says, without the flash: for FakeBoard.

What lies on flash outlives restart(): the release that runs, whole files of the one that comes, what it was ordered.
What is in RAM does not: envelope, index, an unfinished file.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

from tests.gateway.board_patches import BadBlock, Window, decoded

from laterne_gateway import primitives
from laterne_protocol import manifest, manifest_writing, messages, order, receipt, trust
from laterne_protocol.errors import WireError
from laterne_protocol.release_file import Release
from laterne_protocol.update_messages import (
    FAILED,
    IDLE,
    MAX_BLOCK_BYTES,
    MAX_CODE_BYTES,
    MAX_PART_BYTES,
    RECEIVING,
    STAGED,
    TRIAL,
    WORKING,
    Data,
    Progress,
)

ENVELOPE_BYTES = 1024
NOT_SIGNED, BAD_INDEX, BAD_FILE = 17, 22, 23  # results
TIMES = 3  # a file comes at most


class BoardUpdates:
    """running: the release, None when it has no name. ordered: the digest of the one that is to come.

    blocks: what came whole, as (item, start, size, encoding, bytes of the code). items: of which something came.
    working: so many answers it is at work. claims: what it says instead of what is true, to be a hostile one. flash_s:
    how long flash is busy with so many bytes. busy_s: how long it is before the next answer, which comes late by as
    much. longest_part: of a longer one it has no memory; forgets_after_s: since its last answer, or with such a part,
    it forgets what it wants, and the block that has begun, until it is asked again. window_bits: of its
    decoder's window; with 10 it keeps none between two blocks.
    """

    def __init__(self) -> None:
        self.trust: trust.Trust | None = None
        self.running: Release | None = None
        self.ordered: bytes | None = None
        self.staged: Release | None = None
        self.trial = self.armed = False
        self.sequence = self.floor = 1
        self.result: tuple[int, bytes] | None = None
        self.nonce = os.urandom(8)
        self.credit = MAX_CODE_BYTES
        self.working = 0
        self.items: set[int] = set()
        self.blocks: list[tuple[int, int, int, int, int]] = []
        self.bytes_taken = self.bytes_dropped = 0
        self.told: list[bytes | None] = []
        self.asked = 0
        self.has_no_memory = False  # to inflate
        self.is_deaf = False  # a firmware that knows no updates
        self.spoils: set[int] = set()  # items that flash spoils, once
        self.claims: dict[str, object] = {}
        self.flash_s: Callable[[int], float] = lambda size: 0.0
        self.busy_s = 0.0
        self.longest_part = MAX_PART_BYTES
        self.forgets_after_s = math.inf
        self.window_bits = 10
        self._answered_s = time.monotonic()
        self._wants = True
        self._files: dict[bytes, bytes] = {}  # on flash, whole, by their digests
        self._forget()

    def _forget(self) -> None:
        self._envelope: manifest.Envelope | None = None
        self._index: list[tuple[str, int, bytes]] | None = None
        self._item, self._content = 0, b""
        self._code = bytearray()
        self._begun: tuple[int, int, int] | None = None  # encoding, length of the code, size of the content
        self._window: tuple[Window, tuple[int, int]] | None = None  # and the item and byte where it goes on
        self._times = 1

    def restart(self) -> None:
        if self.armed:
            self.armed = False
            self.arm()
        self.nonce = os.urandom(8)
        self._forget()

    def order(self, action: int, argument: list[bytes | int]) -> int | None:
        """Stage, arm or abandon; why not, as a receipt says it. The reset after arm is the test's."""
        if action != order.ABANDON and argument[2 if action == order.STAGE else 1] != self.nonce:
            return receipt.OLD_NONCE
        digest = argument[0]
        assert isinstance(digest, bytes)
        self.nonce = os.urandom(8)
        if action == order.STAGE:
            self.stage(digest)
        elif action == order.ABANDON:
            self.ordered, self.staged = None, None
        elif self.staged is None or self.staged.digest != digest:
            return receipt.NOT_STAGED
        else:
            self.armed = True
        return None

    def stage(self, release: Release | bytes) -> None:
        """What the order to stage does."""
        self.ordered = release if isinstance(release, bytes) else release.digest
        self.staged, self.result = None, None
        self._forget()

    def arm(self) -> None:
        """What the order to arm does, and the reset after it."""
        assert self.staged is not None
        self.running, self.staged, self.trial, self.ordered = self.staged, None, True, None
        self.sequence = self.running.manifest.sequence
        self.restart()

    def answer(self, question: messages.Update) -> Progress:
        self.asked += 1
        self.told.append(question.told)
        if self.trial and self.running is not None and question.told == self.running.digest:
            self.trial, self.floor = False, self.sequence
        if self._wants:
            self._work()
        self._answered_s, self._wants = time.monotonic(), True
        said = self._progress(question.number)
        for name, value in self.claims.items():
            setattr(said, name, value)
        return said

    def take(self, part: Data) -> None:
        """A part; dropped silently unless it is the next one that is wanted."""
        if len(part.part) > self.longest_part or time.monotonic() - self._answered_s > self.forgets_after_s:
            self._wants, self._begun = False, None
            self._code.clear()
        begun = (part.encoding, part.length, part.size)
        is_next = part.offset == len(self._code) and (part.offset == 0 or begun == self._begun)
        if (
            self._phase() != RECEIVING
            or not self._wants
            or (part.item, part.start) != (self._item, len(self._content))
            or part.size > self._most()
            or not (is_next or part.offset == 0)
        ):
            self.bytes_dropped += len(part.part)
            return
        if part.offset == 0:
            self._code.clear()
            self._begun = begun
        self._code += part.part
        self.bytes_taken += len(part.part)

    def _phase(self) -> int:
        if self.trial:
            return TRIAL
        if self.result is not None and self.ordered is not None and self.result[1] == self.ordered:
            return FAILED
        if self.ordered is None:
            return IDLE
        if self.staged is not None:
            return STAGED
        return WORKING if self.working else RECEIVING

    def _progress(self, number: int) -> Progress:
        if self.working:
            self.working -= 1
            phase = WORKING
        else:
            phase = self._phase()
        wanted, credit = None, 0
        if phase == RECEIVING:
            assert self.ordered is not None
            going = self._going()
            window = self.window_bits, 0 if going is None else min(going.held, 1 << self.window_bits)
            wanted = (self.ordered, self._item, len(self._content), self._most(), len(self._code), *window)
            room = ENVELOPE_BYTES if self._item == 0 else MAX_CODE_BYTES
            credit = min(self.credit, room if self._begun is None else self._begun[1] - len(self._code))
        running = None if self.running is None else self.running.digest
        staged = None if self.staged is None else self.staged.digest
        return Progress(
            number, phase, wanted, credit, running, self.sequence, self.floor, self.nonce, staged, self.result
        )

    def _work(self) -> None:
        if self._phase() != RECEIVING or self._begun is None or len(self._code) < self._begun[1]:
            return
        encoding, _, size = self._begun
        code, self._begun = bytes(self._code), None
        self._code.clear()
        try:
            if self._item == 0:
                self._take_envelope(code)
                return
            if encoding & 1 and self.has_no_memory:
                return
            places = list(self._places(size))
            going = self._going() or Window(self.window_bits)
            made = decoded(encoding, code, [place[1:] for place in places], going)
            last, count, start, _ = places[-1]
            end = (last, start + count) if start + count < self._size(last) else (last + 1, 0)
            keeps = encoding == 1 and self.window_bits > 10 and last > 1
            self._window = (going, end) if keeps else None
        except (BadBlock, WireError):
            self._window = None
            self._again()
            return
        self.blocks.append((self._item, len(self._content), size, encoding, len(code)))
        for (item, *_), content in zip(places, made, strict=True):
            if item != self._item:
                break  # the one before is not whole: it comes again, and this one after it
            self.busy_s += self.flash_s(len(content))
            if item in self.spoils:
                self.spoils.remove(item)
                content = bytes(len(content))
            self._content += content
            self.items.add(item)
            if len(self._content) == self._size(item):
                self._finish()

    def _going(self) -> Window | None:
        """The window, if the next block goes on where the last one ended."""
        if self._window is None or self._window[1] != (self._item, len(self._content)):
            return None
        return self._window[0]

    def _size(self, item: int) -> int:
        assert self._envelope is not None
        if item == 1:
            return self._envelope.index_size
        assert self._index is not None
        return self._index[item - 2][1]

    def _most(self) -> int:
        """How much content a block may have: of the files behind as long as they have to come, too."""
        if self._item == 0:
            return ENVELOPE_BYTES
        return min(MAX_BLOCK_BYTES, sum(count for _, count, _, _ in self._places(MAX_BLOCK_BYTES)))

    def _places(self, size: int) -> Iterator[tuple[int, int, int, bytes | None]]:
        """(item, how much of it, from where on, its base) for each item that a block of this size reaches."""
        item, start = self._item, len(self._content)
        while size:
            count = min(size, self._size(item) - start)
            yield item, count, start, self._base(item)
            size -= count
            found = self._missing_after(item)
            if found != item + 1:
                return
            item, start = found, 0

    def _missing_after(self, item: int) -> int | None:
        """The next file that has to come."""
        if self._index is None:
            return None
        have = set(self._files) | (set() if self.running is None else set(self.running.contents))
        for number, (_, size, digest) in enumerate(self._index, 2):
            if number > item and size and digest not in have:
                return number
        return None

    def _base(self, item: int) -> bytes | None:
        if self.running is None:
            return None
        if item == 1:
            return self.running.manifest.index
        assert self._index is not None
        path = self._index[item - 2][0]
        return next((self.running.contents[digest] for one, _, digest in self.running.entries if one == path), None)

    def _take_envelope(self, code: bytes) -> None:
        envelope = manifest.envelope_of(code)
        if envelope.digest[:16] != self.ordered:
            raise BadBlock("another release")
        keys = [] if self.trust is None else self.trust.keys[trust.RELEASE]
        signers = [
            one.kid
            for one in envelope.signatures
            for key in keys
            if primitives.valid(key, envelope.to_be_signed(one.protected), one.signature)
        ]
        if self.trust is None or len(signers) < self.trust.release_threshold:
            self._fail(NOT_SIGNED)
            return
        self._envelope, self._item = envelope, 1
        self.items.add(0)
        self.blocks.append((0, 0, len(code), 0, len(code)))

    def _finish(self) -> None:
        content, self._content = self._content, b""
        assert self._envelope is not None
        digest = sha256(content).digest()
        if self._item == 1:
            if digest != self._envelope.index_digest:
                self._again(BAD_INDEX)
                return
            self._index_bytes = content
            self._index = manifest_writing.index_of(content)[1]
        else:
            assert self._index is not None
            if digest != self._index[self._item - 2][2]:
                self._again(BAD_FILE)
                return
            self._files[digest] = content
        self._times = 1
        self._next_item()

    def _next_item(self) -> None:
        found_item = self._missing_after(1)
        if found_item is not None:
            self._item = found_item
            return
        found = self._files | ({} if self.running is None else self.running.contents) | {sha256(b"").digest(): b""}
        assert self._index is not None
        self.staged = _Staged(
            self._envelope, self._index_bytes, {digest: found[digest] for _, _, digest in self._index}
        )
        self._files = {}

    def _again(self, result: int = BAD_FILE) -> None:
        self._content = b""
        self._times += 1
        if self._times > TIMES:
            self._fail(result)

    def _fail(self, result: int) -> None:
        assert self.ordered is not None
        self.result = result, self.ordered


class _Staged(Release):
    """What the board has put together, with no text and no bill of materials."""

    def __init__(self, envelope: manifest.Envelope | None, index: bytes, contents: dict[bytes, bytes]) -> None:
        assert envelope is not None
        self.manifest = envelope
        self.manifest.index = index
        self.contents = contents
        self.head, self.entries = manifest_writing.index_of(index)
