"""The second opinions whose pins clash with ours: they run with an interpreter of their own (make test sets it up)."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

REPOSITORY = Path(__file__).parents[2]


def oracles_python() -> str:
    """The interpreter of the oracles' environment; without it the test is left out by name, and fails in CI."""
    named = os.environ.get("LATERNE_ORACLES_PYTHON")
    found = Path(named) if named else REPOSITORY / ".oracles" / "bin" / "python"
    if not found.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{found} is missing, and in CI no oracle may be left out")
        pytest.skip(f"left out: there is no {found}; `make test` sets it up")
    return str(found)


class OracleError(Exception):
    """The oracle refused, or panicked; `kind` is the name of its exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Oracle:
    """A process that answers one JSON line with another; a context manager, the process ends with it."""

    def __init__(self, script: str) -> None:
        """script: a file in `oracle/`."""
        python = oracles_python()
        # What it prints as an error (a Rust panic does) goes to a file: a pipe that nobody reads could fill.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [python, str(Path(__file__).parent / "oracle" / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, question: dict[str, Any]) -> Any:
        """The answer; OracleError if it raised, RuntimeError if its process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the oracle ended: {self._errors.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise OracleError(answer["error"], answer["message"])
        return answer["answer"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
