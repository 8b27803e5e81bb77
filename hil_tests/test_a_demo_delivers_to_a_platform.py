"""From the boards' sensors to a real SensorThings server: as many observations as readings were taken."""

import asyncio
import json
import os
import tomllib
import urllib.request
from pathlib import Path

import pytest
from tests.demo_run import DemoRun

from laterne_emulator.sensorthings_server import NoServer, SensorThingsServer, interpreter

WITHIN_S = 30.0


def places(directory: Path) -> list[list[float]]:
    """The coordinates of all Locations, longitude first, from a server that is started anew on the same database."""
    server = SensorThingsServer(directory)
    server.make()
    server.start()
    try:
        with urllib.request.urlopen(f"{server.url}/Locations", timeout=WITHIN_S) as answer:
            return [one["location"]["coordinates"] for one in json.load(answer)["value"]]
    finally:
        server.stop()


async def test_each_reading_of_a_demo_is_an_observation_on_the_platform(tmp_path: Path) -> None:
    try:
        interpreter()
    except NoServer as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    async with DemoRun(tmp_path / "d", "--boards", "1", "--seconds", "6", "--platform", "sensorthings") as run:
        figures = await run.figures()
        (route,) = tomllib.loads((run.place / "gateway.toml").read_text())["route"]
        assert f"the platform is at {route['url']}/ while the demo runs" in run.said
        assert figures["readings_lost"] == 0
        assert figures["observations_stored"] == figures["readings_delivered"] == figures["readings_taken"] > 0
        assert "coordinates" not in (run.place / "gateway.log").read_text(), "every board of a demo stands somewhere"
        assert await asyncio.to_thread(places, run.place / "platform") == [[13.3965, 52.5175]]
        assert run.processes("site_asgi:application.*" + str(tmp_path)) == []
