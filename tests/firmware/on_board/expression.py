"""Evaluates one expression for tests/firmware/micropython.py."""

from lines import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def answer(question: "dict[str, str]") -> object:
    names: "dict[str, Any]" = {}
    exec(question["setup"], names)  # noqa: S102 - what it runs stands in our own tests
    return eval(question["expression"], names)  # noqa: S307 - as above


serve(answer)
