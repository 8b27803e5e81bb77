"""Writes a release into a slot, from the first erase to the rename that makes it whole (README.md, "How is a release
installed?").

It begins when the envelope has been verified, and is resumed by beginning again: what is whole on flash is found and
stays. What stands on flash in which order:

    M.n           the index, as it comes; nothing else of the slot has been touched yet
    M             removed, when the index has its digest and all of it is possible: from here on the slot is none
    E             the envelope: whose files these are going to be, for whoever resumes
    (removed)     files and folders that are not in the index
    files         each under its own name: no other slot has them, and M is not there, so a half one harms nobody
    M.n -> M      after a pass over all files, read back from flash, has found nothing to do

So M exists only when everything that it names is whole. It writes between two `next` only, and whoever calls `next`
says when (`updating`).

Content comes in blocks. One that begins in a file goes on in those behind it, as long as they have to come, too: so it
is known before a block is wanted how far it may reach (`_Source`).
"""

import os
from hashlib import sha256

from micropython import const

from laterne_firmware.memory import unload
from laterne_firmware.store import exists, free_blocks, make_directory, replace
from laterne_protocol import cbor
from laterne_protocol.errors import WireError
from laterne_protocol.update_messages import FIRST_FILE, LEAST_WINDOW_BITS, MAX_BLOCK_BYTES
from laterne_protocol.update_messages import INDEX as INDEX_ITEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import BinaryIO

    from laterne_firmware.unpacking import Block
    from laterne_protocol.release_index import Head

    # Yields None after a piece of work, or (item, start, most, window, behind) when it wants a block of at most so much
    # content that begins there, and is to be sent its encoding, the chunks in which its code lies, the length of that,
    # and its size. window, behind: of its decoder, in bits, and how much of the content before is in it.
    Wanted = tuple[int, int, int, int, int]
    Sent = tuple[int, list[bytearray], int, int]
    Steps = Generator["Wanted | None", "Sent | None", "int"]
    Work = Generator["Wanted | None", "Sent | None", None]
    Answer = Generator["Wanted | None", "Sent | None", bool]
    Number = Generator["Wanted | None", "Sent | None", int]

# What ends it, beside 0: the slot is whole (protocol/README.md, 3.1).
UNFIT, TOO_LARGE, BAD_INDEX, BAD_FILE, FLASH_REFUSES = 19, 21, 22, 23, 24

_TRIES = const(3)
_PIECE_BYTES = const(512)
_FLASH_BLOCK_BYTES = const(4096)
_WHOLE, _RUNS, _NOWHERE = const(0), const(1), const(2)  # where a file of the index is
_SPARE_BLOCKS = const(8)  # of the file system itself: reports and records are written meanwhile
_INLINE_BYTES = const(512)  # a file up to that may lie in its folder's own blocks (littlefs: an eighth of a block)
_NO_SPACE = const(28)  # errno
_DIRECTORY = const(0x4000)
_OURS = ("M.n", "E")  # in the slot's folder, beside the files of the index


class Refused(Exception):
    """args: one of the codes above."""


def install(
    folder: str, running: str, envelope: bytes, index: bytes, size: int, log: "Callable[[str], None]", bits: int
) -> "Steps":
    """0 when the slot in `folder` is whole, or why it will not be.

    running: folder of the release that runs, whose files are copied and patched. envelope: verified, severed. index:
    SHA-256 of the index. size: of the index, bytes. bits: of the decoder's window; the least: it has no memory between
    two blocks.
    """
    try:
        if not (yield from _is_whole(folder, index)):
            yield from _write(folder, running, envelope, index, size, bits)
        elif not _holds(folder + "/E", envelope):
            # The same files under another sequence: M is there and good, and E says whose they are from now on.
            replace(folder + "/E", envelope)
        return 0
    except Refused as why:
        return int(why.args[0])
    except OSError as why:
        log("flash refuses a release: %s" % why)
        return TOO_LARGE if why.errno == _NO_SPACE else FLASH_REFUSES


def _holds(path: str, content: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _is_whole(folder: str, index: bytes) -> "Answer":
    from laterne_firmware import slot_check

    steps = slot_check.whole(folder, index)
    unload("laterne_firmware.slot_check", "laterne_firmware.slots", "laterne_protocol.release_index")
    return not (yield from steps)  # type: ignore[misc]  # it is sent nothing


def _write(folder: str, running: str, envelope: bytes, index: bytes, size: int, bits: int) -> "Work":
    make_directory(folder)
    name = folder + "/M.n"
    yield from _fetch_index(name, running, index, size)
    # E says that there was room when this began. Now part of the release lies there, in folders that were not there
    # then: to judge again what is left could end an install, for good, because the power failed in it.
    begun = not exists(folder + "/M") and _holds(folder + "/E", envelope)
    yield from _judge(folder, name, begun)
    if exists(folder + "/M"):
        os.remove(folder + "/M")
    yield
    replace(folder + "/E", envelope)
    yield
    yield from _clear(folder, "", name)
    tries = _TRIES
    while (yield from _pass(folder, running, name, tries, bits)):
        tries -= 1
    if not (yield from _has(name, size, index)):
        raise Refused(FLASH_REFUSES)
    os.rename(name, folder + "/M")


def _fetch_index(name: str, running: str, index: bytes, size: int) -> "Work":
    for _ in range(_TRIES):
        if (yield from _has(name, size, index)):
            return
        yield from _receive(name, INDEX_ITEM, size, running + "/M", _Source(LEAST_WINDOW_BITS))
    if not (yield from _has(name, size, index)):
        raise Refused(BAD_INDEX)


def _count(read: "Callable[[int], bytes]") -> int:
    # The head of an index, of which is told how many entries come. It was judged: release_index, which takes no word
    # for granted, has left memory.
    count = read(1)[0]
    count = read(1)[0] if count == 0x98 else count - 0x80
    _entry(read)
    return count - 1


def _entry(read: "Callable[[int], bytes]") -> "tuple[str, int, bytes]":
    size = read(1)[0]
    return cbor.decode(read(read(1)[0] if size == 0x58 else size - 0x40))  # type: ignore[return-value]  # judged


def _judge(folder: str, name: str, begun: bool) -> "Work":
    # Everything that can be wrong with an index, before anything of the slot goes.
    from laterne_protocol import release_index

    blocks = _SPARE_BLOCKS
    folders = ""
    try:
        with open(name, "rb") as file:
            head = release_index.head_of(file.read)
            if not _fits(head):
                raise Refused(UNFIT)
            for path, size, _ in release_index.entries(file.read, head):
                blocks += _blocks(size)
                above = path.rpartition("/")[0]
                if above != folders:  # two blocks hold the names of a folder
                    folders = above
                    blocks += 2
                yield
    except WireError:
        raise Refused(BAD_INDEX)
    del release_index, head
    unload("laterne_protocol.release_index")
    if not begun and blocks > free_blocks() + _held(folder):
        raise Refused(TOO_LARGE)


def _fits(head: "Head") -> bool:
    from laterne_firmware import slot_check

    unload("laterne_firmware.slot_check", "laterne_firmware.slots")
    return slot_check.fits(head)


def _blocks(size: int) -> int:
    return (size + _FLASH_BLOCK_BYTES - 1) // _FLASH_BLOCK_BYTES


def _held(folder: str) -> int:
    # Blocks that are free when what lies in the slot is replaced.
    held = 0
    for name in os.listdir(folder):
        status = os.stat(folder + "/" + name)
        if status[0] & _DIRECTORY:
            held += 2 + _held(folder + "/" + name)
        elif status[6] > _INLINE_BYTES:
            held += _blocks(status[6])
    return held


def _clear(folder: str, below: str, index: str) -> "Answer":
    # Removes what the index does not name; whether nothing of it is left below. One folder's names at a time.
    names = os.listdir(folder + below)
    empty = True
    for name in names[:]:
        if os.stat(folder + below + "/" + name)[0] & _DIRECTORY:
            names.remove(name)
            inside = below + "/" + name
            if (yield from _clear(folder, inside, index)):
                os.rmdir(folder + inside)
            else:
                empty = False
        elif not below and name in _OURS:
            names.remove(name)
    found = len(names)
    with open(index, "rb") as file:
        for _ in range(_count(file.read)):
            above, _, name = _entry(file.read)[0].rpartition("/")
            if above == below[1:] and name in names:
                names.remove(name)
    for name in names:
        os.remove(folder + below + "/" + name)
        yield
    return empty and found == len(names)


def _pass(folder: str, running: str, index: str, tries: int, bits: int) -> "Answer":
    # Whether there was something to do. All of it is read from flash: what was written in the pass before, too.
    done = False
    source = _Source(bits)
    reading = open(index, "rb")  # closed while a file comes: an open one takes more than a kilobyte
    try:
        count = _count(reading.read)
        for number in range(count):
            path, size, digest = _entry(reading.read)
            if source.files:
                source.files -= 1
                source.bytes -= size
                found = _NOWHERE
            else:
                source.is_open = True
                found = yield from _where(folder, running, path, size, digest)
            if found != _NOWHERE:
                source.block = None  # what comes next does not follow what came
            if found == _WHOLE:
                continue
            done = True
            if not tries:
                raise Refused(BAD_FILE)
            at = reading.tell()
            if found == _NOWHERE:
                yield from _look_ahead(source, reading, count - number - 1, folder, running)
            reading.close()
            here = _made_room(folder, path)
            if found == _RUNS:
                yield from _copy(running + "/" + path, here)
            else:
                yield from _receive(here, FIRST_FILE + number, size, running + "/" + path, source)
            reading = open(index, "rb")
            reading.seek(at)
    finally:
        reading.close()
    return done


class _Source:
    """What comes over the line. block: the one under way, or the last one, if the next may go on with it, or None.

    files, bytes: behind the file that comes, in a row, of which it is known that they have to come, too. at: behind
    these in the index. is_open: whether there may be more of them. bits: as of install().
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.block: "Block | None" = None
        self.files = self.bytes = self.at = 0
        self.is_open = True


def _look_ahead(source: _Source, reading: "BinaryIO", behind: int, folder: str, running: str) -> "Work":
    # Until a block that begins in the file which comes is long enough whatever its start. behind: so many entries.
    if source.files:
        reading.seek(source.at)
    while source.is_open and source.files < behind and source.bytes < MAX_BLOCK_BYTES:
        path, size, digest = _entry(reading.read)
        if (yield from _where(folder, running, path, size, digest)) != _NOWHERE:
            source.is_open = False
            return
        source.files += 1
        source.bytes += size
        source.at = reading.tell()


def _where(folder: str, running: str, path: str, size: int, digest: bytes) -> "Number":
    if (yield from _has(folder + "/" + path, size, digest)):
        return _WHOLE
    if (yield from _has(running + "/" + path, size, digest)):
        return _RUNS
    return _NOWHERE


def _made_room(folder: str, path: str) -> str:
    # Where a file goes, in folders that are there.
    for name in path.split("/")[:-1]:
        folder += "/" + name
        make_directory(folder)
    return folder + "/" + path.rpartition("/")[2]


def _has(path: str, size: int, digest: bytes) -> "Answer":
    # Whether the file on flash has size and digest. The size first: it costs nothing.
    try:
        if os.stat(path)[6] != size:
            return False
        made = sha256()
        with open(path, "rb") as file:
            while True:
                piece = file.read(_PIECE_BYTES)
                if not piece:
                    return made.digest() == digest
                made.update(piece)
                yield
    except OSError:
        return False


def _copy(base: str, path: str) -> "Work":
    with open(base, "rb") as source, open(path, "wb") as file:
        while True:
            piece = source.read(_PIECE_BYTES)
            if not piece:
                return
            file.write(piece)
            yield


def _receive(path: str, item: int, size: int, base: str, source: _Source) -> "Work":
    # A block that is none ends it: the file is then not what it should be, and asked for again in the next pass.
    from laterne_firmware.unpacking import BadBlock, Block

    with open(path, "wb") as file:
        start = 0
        while start < size:
            sent = None
            block = source.block
            if block is None or not block.left:
                most = min(MAX_BLOCK_BYTES, size - start + source.bytes)
                sent = yield item, start, most, source.bits, min(1 << source.bits, block.held if block else 0)
            try:
                if sent is not None and not (block and block.goes_on(*sent)):
                    block = source.block = None  # its window goes before another one is made
                    source.block = Block(source.bits, *sent)
                block = sent = None
                due = min(source.block.left, size - start)  # type: ignore[union-attr]  # it is there now
                for piece in source.block.portion(due, base, start):  # type: ignore[union-attr]  # as above
                    file.write(piece)
                    start += len(piece)
                    if start % _FLASH_BLOCK_BYTES < len(piece):
                        yield
            except BadBlock:
                source.block = None
                return
            if not source.block.left and not source.block.held:  # type: ignore[union-attr]  # as above
                source.block = None  # its window leaves memory before the next one comes
    yield
