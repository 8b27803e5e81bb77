"""A city of one gateway with two boards, and a release for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.provisioning.campaign.fake_city import GATEWAY, FakeCity
from tests.provisioning.campaign.releases import make_release
from tests.provisioning.commands import laterne
from tests.provisioning.fake_board import FakeBoard
from tests.servers import Mosquitto


@pytest.fixture
def city(authority: Path, boards: list[FakeBoard], broker: Mosquitto, tmp_path: Path) -> Iterator[FakeCity]:
    """Two boards of one gateway, on two posts."""
    laterne("roster", "export", "--gateway", GATEWAY, "--authority", authority, "-o", tmp_path / "roster.1")
    with FakeCity(broker, boards) as made:
        yield made


@pytest.fixture
def release(authority: Path, tmp_path: Path) -> Path:
    return make_release(authority, tmp_path / "new.laterne", 7)
