"""From the boards' sensors to a real SensorThings server: as many observations as readings were taken."""

import os
from pathlib import Path

import pytest
from tests.demo_run import DemoRun

from laterne_emulator.sensorthings_server import NoServer, interpreter


async def test_each_reading_of_a_demo_is_an_observation_on_the_platform(tmp_path: Path) -> None:
    try:
        interpreter()
    except NoServer as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    async with DemoRun(tmp_path / "d", "--boards", "1", "--seconds", "6", "--platform", "sensorthings") as run:
        figures = await run.figures()
        assert figures["readings_lost"] == 0
        assert figures["observations_stored"] == figures["readings_delivered"] == figures["readings_taken"] > 0
        assert run.processes("site_asgi:application.*" + str(tmp_path)) == []
