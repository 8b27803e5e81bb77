"""What comes in steps, all at once: for scripts and tests. A board that runs has `supervisor.stepping` instead."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeVar

    Result = TypeVar("Result")


def run(steps: "Generator[None, None, Result]") -> "Result":
    """Runs all steps at once and returns their result."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: "Result" = finished.value
            return result
