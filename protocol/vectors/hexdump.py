"""The hexdumps of protocol/README.md: one CBOR item a line, and what it is.

In the README stands `<!-- vector: FILE / NAME -->` before each block; generate.py writes the blocks anew.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- vector: (\w+) / (.+?) -->\n\n```\n).*?(```)", re.DOTALL)
BYTES_A_LINE = 16
COLUMN = 3 * BYTES_A_LINE + 1


def dump(data: bytes) -> str:
    """Lines of hex in pairs, then what begins there: `82  array of 2`."""
    lines: list[str] = []
    end = _item(data, 0, lines)
    if end != len(data):
        raise ValueError("bytes after the end")
    return "".join(lines)


def raw(data: bytes) -> str:
    """Lines of hex alone, for what is not CBOR."""
    return "".join(f"{data[at : at + BYTES_A_LINE].hex(' ')}\n" for at in range(0, len(data), BYTES_A_LINE))


def with_dumps(text: str) -> str:
    """The README with every block as its vector says."""

    def block(found: re.Match[str]) -> str:
        vectors = json.loads((HERE / f"{found[2]}.json").read_text(encoding="utf-8"))["vectors"]
        (vector,) = [one for one in vectors if one["name"] == found[3]]
        data = bytes.fromhex(vector["hex"])
        return found[1] + (raw(data) if vector["kind"] == "frames" else dump(data)) + found[4]

    return BLOCK.sub(block, text)


def _item(data: bytes, at: int, lines: list[str]) -> int:
    # One item from `at` on; returns where it ends.
    major, info = data[at] >> 5, data[at] & 31
    size = 0 if info < 24 else 1 << (info - 24)
    number = info if info < 24 else int.from_bytes(data[at + 1 : at + 1 + size], "big")
    begin, at = at, at + 1 + size
    if major in (2, 3):
        string = data[at : at + number]
        what = f'text "{string.decode()}"' if major == 3 else f"{number} bytes"
        if major == 2 and number <= BYTES_A_LINE - 2:
            _line(lines, data[begin : at + number], what)
        elif major == 3 and number < BYTES_A_LINE:
            _line(lines, data[begin : at + number], what)
        else:
            _line(lines, data[begin:at], what)
            for part in range(at, at + number, BYTES_A_LINE):
                _line(lines, data[part : min(part + BYTES_A_LINE, at + number)], "")
        return at + number
    names = {0: f"{number}", 1: f"{-1 - number}", 4: f"array of {number}", 5: f"map of {number}", 6: f"tag {number}"}
    simple = {20: "false", 21: "true", 22: "null"}
    _line(lines, data[begin:at], simple[info] if major == 7 else names[major])
    for _ in range({4: number, 5: 2 * number, 6: 1}.get(major, 0)):
        at = _item(data, at, lines)
    return at


def _line(lines: list[str], data: bytes, what: str) -> None:
    lines.append(f"{data.hex(' '):<{COLUMN}} {what}".rstrip() + "\n")
