"""The board's half of tests/firmware/micropython.py: JSON lines in, JSON lines out."""

import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def serve(answer: "Callable[[Any], object]") -> None:
    """Says which interpreter this is, then answers questions until there are none left."""
    about = sys.implementation
    print(json.dumps({"implementation": [about.name, list(about.version), about._mpy], "version": sys.version}))
    for line in sys.stdin:
        try:
            reply = {"answer": answer(json.loads(line))}
        except Exception as error:  # not swallowed: the other end raises it again
            sys.print_exception(error, sys.stderr)
            reply = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(reply))
