"""An authority whose keys are not encrypted, boards that are enrolled with it, a technician of its, and a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.provisioning.commands import enrol, laterne
from tests.provisioning.fake_board import FakeBoard, Key
from tests.provisioning.technician import Technician, granted
from tests.servers import Mosquitto

from laterne_provisioning import authority as authorities
from laterne_provisioning.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    laterne("init", tmp_path / "authority", "--no-passphrase", "--name", "Stadtwerke")
    return tmp_path / "authority"


@pytest.fixture
def board() -> Iterator[FakeBoard]:
    with FakeBoard() as fake:
        yield fake


@pytest.fixture
def boards(authority: Path) -> Iterator[list[FakeBoard]]:
    """LE-0001 and LE-0002, enrolled."""
    with FakeBoard() as first, FakeBoard() as second:
        enrol(first, "LE-0001", authority)
        enrol(second, "LE-0002", authority)
        yield [first, second]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as started:
        yield started


@pytest.fixture
def office(tmp_path: Path) -> Authority:
    return authorities.create(tmp_path / "office", "Stadtwerke", None)


@pytest.fixture
def technician(office: Authority) -> Technician:
    key = Key()
    return Technician(granted(office, key), key)
