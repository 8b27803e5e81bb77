"""What the sweeps of faults share: a real broker for all of them, and a directory that costs no time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import Mosquitto

MEMORY = Path("/dev/shm")  # Linux: tmpfs


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One mosquitto for all sweeps, without Nagle: thousands of cases would wait 40 ms each for a delayed ACK."""
    with Mosquitto(tmp_path_factory.mktemp("mosquitto"), "set_tcp_nodelay true\n") as made:
        yield made


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: how long this machine's disk takes for a sync is no part of a case."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="laterne-") as made:
        yield Path(made)
