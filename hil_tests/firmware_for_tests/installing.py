"""The installer alone: a release into /b, beside the running one in /a; whatever it wants lies in /x.

What becomes of it is said on the console. /x/about: envelope, SHA-256 of the index, size of the index. /x/2-0: the
block that begins at byte 0 of item 2, as its size in two bytes, its encoding and its code. /x/2: content of item 2, for
blocks that are not there, or are longer than wanted.
"""

import sys

sys.path.insert(0, "/a")
from laterne_firmware import installer
from laterne_protocol import cbor

PIECE_BYTES = 4096
WINDOW_BITS = 12


def block(item: int, start: int, most: int) -> "tuple[int, list[bytearray], int, int]":
    try:
        with open("/x/" + str(item) + "-" + str(start), "rb") as file:
            size = int.from_bytes(file.read(2), "big")
            if size <= most:
                return chunked(file.read(1)[0], file.read(), size)
    except OSError:
        pass  # it is raw then
    with open("/x/" + str(item), "rb") as file:
        file.seek(start)
        size = min(most, PIECE_BYTES)
        return chunked(0, file.read(size), size)


def chunked(encoding: int, code: bytes, size: int) -> "tuple[int, list[bytearray], int, int]":
    chunks = []
    for at in range(0, len(code), 1024):
        chunk = bytearray(1024)
        part = code[at : at + 1024]
        chunk[: len(part)] = part
        chunks.append(chunk)
    return encoding, chunks or [bytearray(1024)], len(code), size


def start() -> None:
    with open("/x/about", "rb") as file:
        envelope, index, size = cbor.decode(file.read())
    steps = installer.install("/b", "/a", envelope, index, size, print, WINDOW_BITS)
    sent = None
    try:
        while True:
            wanted = steps.send(sent)
            sent = None
            if wanted is not None:
                print("wants", wanted[0], wanted[1])
                sent = block(wanted[0], wanted[1], wanted[2])
    except StopIteration as finished:
        print("ended", finished.value)
    print("done")


start()
