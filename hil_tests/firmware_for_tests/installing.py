"""The installer alone: a release into /b, beside the running one in /a; whatever it wants lies in /x, as codes.

What becomes of it is said on the console. /x/about: envelope, SHA-256 of the index, size of the index.
"""

import sys

sys.path.insert(0, "/a")
from laterne_firmware import installer
from laterne_protocol import cbor


def code(item: int, block: int) -> "tuple[int, list[bytearray], int]":
    with open("/x/" + str(item) + "-" + str(block), "rb") as file:
        encoding = file.read(1)[0]
        content = file.read()
    chunks = []
    for at in range(0, len(content), 1024):
        chunk = bytearray(1024)
        part = content[at : at + 1024]
        chunk[: len(part)] = part
        chunks.append(chunk)
    return encoding, chunks, len(content)


def start() -> None:
    with open("/x/about", "rb") as file:
        envelope, index, size = cbor.decode(file.read())
    steps = installer.install("/b", "/a", envelope, index, size, print)
    block = None
    try:
        while True:
            wanted = steps.send(block)
            block = None
            if wanted is not None:
                print("wants", wanted[0], wanted[1])
                block = code(wanted[0], wanted[1])
    except StopIteration as finished:
        print("ended", finished.value)
    print("done")


start()
