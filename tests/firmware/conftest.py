"""What the tests of records, backlog and draft share: lives of a board on files of the host."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.firmware.micropython import ROOMY_HEAP, MicroPython


@pytest.fixture(scope="module")
def flash() -> Iterator[MicroPython]:
    with MicroPython("flash_runner.py", heap=ROOMY_HEAP) as interpreter:
        yield interpreter


@pytest.fixture
def live(flash: MicroPython, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """One life of a board on the files in tmp_path: recover, then the steps."""

    def _live(*steps: list[object], **options: object) -> dict[str, Any]:
        answer = flash.ask({"folder": str(tmp_path), "steps": steps, **options})
        assert isinstance(answer, dict)
        return answer

    return _live
