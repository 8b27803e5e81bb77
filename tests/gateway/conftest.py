"""What the gateway's tests share: a real broker and who listens there, a SensorThings server, and lines that are closed
whatever happens.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.gateway import platform
from tests.gateway.fake_board import FakeBoard, FakeLine
from tests.gateway.subscriber import Subscriber, subscribed
from tests.servers import Mosquitto

from laterne_emulator.sensorthings_server import SensorThingsServer


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real broker on a free port, started."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture
async def subscriber(mosquitto: Mosquitto) -> AsyncIterator[Subscriber]:
    """Has subscribed to all that our gateways publish."""
    async with subscribed(mosquitto) as made:
        yield made


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


@pytest.fixture(scope="module", params=[False, True], ids=["takes all", "one of a time"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorThingsServer]:
    """A city's SensorThings server in both its forms, for all tests of a file: each has boards of its own."""
    with platform.served(tmp_path_factory.mktemp("city"), is_strict=request.param) as made:
        yield made


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensorthings route pauses no longer than tests need."""
    platform.shorten_pauses(monkeypatch)
