"""What the gateway's tests share: a real broker, and lines that are closed whatever happens."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.servers import Mosquitto


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real broker on a free port, started."""
    broker = Mosquitto(tmp_path / "mosquitto")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def line_of(tmp_path: Path) -> AsyncIterator[Callable[..., FakeLine]]:
    """Makes lines with boards at their far end: line_of(board, ..., name="line")."""
    made: list[FakeLine] = []

    def make(*boards: FakeBoard, name: str = "line") -> FakeLine:
        made.append(FakeLine(tmp_path / name, list(boards)))
        return made[-1]

    yield make
    for line in made:
        await line.close()
