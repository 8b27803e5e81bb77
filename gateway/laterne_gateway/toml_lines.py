"""Where a setting stands in a TOML file: tomllib gives values without their lines, an operator needs the line.

It knows what configuration files look like (a header or a key begins its line), not all of TOML: what it cannot find
is None, and the caller names the table instead.
"""

import re

_HEADER = re.compile(r"""^\s*(\[\[?)\s*["']?([A-Za-z0-9_-]+)["']?\s*\]""")
_KEY = re.compile(r"""^\s*["']?([A-Za-z0-9_-]+)["']?\s*(?:=|\.)""")
_TRIPLE = re.compile(r'"""|' + "'''")


def line_of(text: str, table: str, index: int | None, setting: str | None) -> int | None:
    """The line, counted from 1, of a setting in a table; of the table's header when setting is None.

    table: "" for what stands above the first header. index: which of the [[table]]s, counted from 0; None for [table].
    """
    current, count, inside_text = "", -1, False
    for number, line in enumerate(text.splitlines(), 1):
        quotes = len(_TRIPLE.findall(line))
        was_inside = inside_text
        inside_text ^= quotes % 2 == 1
        if was_inside:
            continue
        header = _HEADER.match(line)
        if header:
            current = header[2]
            count += current == table
            if setting is None and current == table and (index is None or count == index):
                return number
        elif setting is not None and current == table and (index is None or count == index):
            key = _KEY.match(line)
            if key and key[1] == setting:
                return number
    return None
