"""What stands beside observations on a real SensorThings server: found by reference, made once, moved with its board.

Gateways that make it together: hil_tests/test_gateways_that_start_together_make_each_entity_once.py.
"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from tests.gateway.faulty_way import CUT_BODY, PASS, Done, FaultyWay, Request
from tests.gateway.platform import boards, city

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_protocol.roster import Post

Rule = Callable[[Request], str | int | Done]
REPORTS, READINGS = 20, 6


pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_entities_are_made_once_and_never_taken_by_name(tmp_path: Path, server: SensorThingsServer) -> None:
    street = boards()
    name = street[0].name
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        # Somebody else's Thing with our board's name.
        async with here.delivering() as route, route._server.connected():
            other = {"name": name, "description": "another's", "properties": {"reference": "another's"}}
            await route._server.post("Things", other)
        for _ in range(3):  # three processes, one after the other, and answers that get lost
            way.rule = first_entities_lost()
            await here.put(street[0], 2, READINGS)
            async with here.delivering():
                await here.delivered()
        db = sqlite3.connect(server.database)
        for entity, wanted in (("thing", 1), ("location", 1), ("sensor", 1), ("datastream", 1)):
            table = f"sensorthings_v1_1_django_backend_{entity}"
            rows = db.execute(f"select properties from {table}").fetchall()
            mine = [one for (one,) in rows if one and f"testingen/{name}" in one]
            assert len(mine) == wanted, entity
        db.close()
        here.check(server)


def first_entities_lost() -> Rule:
    left = [2]

    def rule(request: Request) -> str | int | Done:
        if request.method == "POST" and not request.creates and left[0]:
            left[0] -= 1
            return CUT_BODY if left[0] else Done(500)
        return PASS

    return rule


async def test_a_board_is_shown_where_its_post_stands(tmp_path: Path, server: SensorThingsServer) -> None:
    """This server passes over links in a PATCH: when the board moves a person is told, and observations go on."""
    street = boards()
    board = street[0]
    places = [Post("Kai-14", 535_412_345, 99_876_543), Post("Kai-15", 535_499_999, 99_811_111)]
    async with city(tmp_path, server.url, *street) as here:
        for version, post in enumerate(places, 2):
            entry = board.entry()
            entry.post = post
            here.parts.roster_file.write_bytes(here.parts.authority.roster_file([entry], version))
            await here.parts.reload()
            await here.put(board, 2, READINGS)
            async with here.delivering():
                await here.delivered()
            (thing,) = await collection(server.url, f"Things?$filter=properties/board eq '{board.name}'")
            assert thing["properties"]["post"] == post.name
            (place,) = await collection(server.url, f"Things('{thing['@iot.id']}')/Locations")
            assert place["location"]["coordinates"] == [9.9876543, 53.5412345]
            assert [alarm for alarm in here.alarms() if "by hand" in alarm] == here.alarms()
            assert len(here.alarms()) == version - 2
        here.check(server)
        (stream,) = await collection(server.url, f"Things('{thing['@iot.id']}')/Datastreams")
        assert stream["unitOfMeasurement"]["definition"] == "http://unitsofmeasure.org/ucum#Cel"
        (observed,) = await collection(
            server.url, "ObservedProperties?$filter=properties/reference eq 'testingen/observed/air-temperature'"
        )
        assert observed["definition"].startswith("http://dd.eionet.europa.eu/")
        assert observed["properties"]["name_de"] == "Lufttemperatur"


async def test_a_board_that_has_left_the_roster_stays_where_it_was(tmp_path: Path, server: SensorThingsServer) -> None:
    """Its last reports come when it has been taken out of service, or to another gateway."""
    (board,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, board) as here:
        for version, entries in enumerate(([board.entry()], []), 2):
            for entry in entries:
                entry.post = Post("Kai-14", 535_412_345, 99_876_543)
            here.parts.roster_file.write_bytes(here.parts.authority.roster_file(entries, version))
            await here.parts.reload()
            await here.put(board, 2, READINGS)
            async with here.delivering():
                await here.delivered()
        here.check(server)
        assert here.alarms() == []
        assert [request for request in way.requests if request.method == "PATCH"] == []


@pytest.mark.parametrize("status", [403, 405, 500])
async def test_a_platform_that_lets_nobody_move_a_board_gets_its_observations_all_the_same(
    tmp_path: Path, server: SensorThingsServer, status: int
) -> None:
    """As where a gateway may add entities, and change none."""
    street = boards()
    board = street[0]
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = lambda request: status if request.method in ("PATCH", "DELETE") else PASS
        async with here.delivering():
            for version, post in enumerate((None, Post("Kai-14", 535_412_345, 99_876_543)), 2):
                entry = board.entry()
                entry.post = post
                here.parts.roster_file.write_bytes(here.parts.authority.roster_file([entry], version))
                await here.parts.reload()
                await here.put(board, 2, READINGS)
                await here.delivered()
        here.check(server)
        (alarm,) = here.alarms()
        assert f"({status}" in alarm or f": {status} " in alarm
        assert "by hand" in alarm


@pytest.mark.parametrize("status", [400, 501])
async def test_a_platform_that_does_not_say_what_hangs_on_what_gets_its_observations_all_the_same(
    tmp_path: Path, server: SensorThingsServer, status: int
) -> None:
    """Neither by $expand nor by a path; and it has two of an entity, from before."""
    (board,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, board) as here:
        twice = {"name": "x", "description": "x", "encodingType": "text/html", "metadata": "x"}
        async with here.delivering() as route, route._server.connected():
            for _ in range(2):
                said = {"properties": {"reference": f"testingen/{board.name}/sensors"}}
                await route._server.post("Sensors", twice | said)
        way.rule = lambda request: status if "expand" in request.path or ")/Datastreams" in request.path else PASS
        await here.put(board, 2, READINGS)
        async with here.delivering():
            await here.delivered()
        here.check(server)
        assert ["has 2 Sensors" in alarm for alarm in here.alarms() if "no coordinates" not in alarm] == [True]


async def test_two_features_of_one_place_hold_nothing_back(tmp_path: Path, server: SensorThingsServer) -> None:
    """As when boards of two gateways hang on one post and send their first observations together.

    This server makes a feature for each then, and after that fails with every observation at the place.
    """
    (board,) = boards()
    async with city(tmp_path, server.url, board) as here:
        entry = board.entry()
        entry.post = Post("Kai-16", 535_400_000, 99_800_000)
        here.parts.roster_file.write_bytes(here.parts.authority.roster_file([entry], 2))
        await here.parts.reload()
        async with here.delivering():
            await here.put(board, 2, READINGS)
            await here.delivered()
            db = sqlite3.connect(server.database)
            with db:
                table = "sensorthings_v1_1_django_backend_featureofinterest"
                db.execute(
                    f"insert into {table} (id, name, description, encoding_type, feature, properties) "
                    f"select ?, name, description, encoding_type, feature, properties from {table} "
                    "where json_extract(feature, '$.coordinates[0]') = 9.98",
                    (uuid4().hex,),
                )
            db.close()
            await here.put(board, 2, READINGS)
            await here.delivered()
        here.check(server)
        assert await here.dead() == []
        found = [one["feature"] for one in await collection(server.url, "FeaturesOfInterest?$filter=name eq 'Kai-16'")]
        assert [one["coordinates"] for one in found] == [[9.98, 53.54]] * 2


async def collection(url: str, path: str) -> list[dict[str, Any]]:
    """As somebody else's program reads it."""
    async with ClientSession() as session, session.get(f"{url}/{path}") as answer:
        found = await answer.json()
        assert isinstance(found["value"], list)
        return found["value"]


async def test_a_datastream_that_was_removed_is_made_again(tmp_path: Path, server: SensorThingsServer) -> None:
    street = boards()
    async with city(tmp_path, server.url, *street) as here:
        await here.put(street[0], 2, READINGS)
        async with here.delivering():
            await here.delivered()
            db = sqlite3.connect(server.database)
            with db:
                row = db.execute(
                    "select id from sensorthings_v1_1_django_backend_datastream where name like ?",
                    (f"{street[0].name} %",),
                ).fetchone()
                db.execute("delete from sensorthings_v1_1_django_backend_observation where datastream_id = ?", row)
                db.execute("delete from sensorthings_v1_1_django_backend_datastream where id = ?", row)
            db.close()
            for key in [one for one in here.values if one[1] <= 2]:
                del here.values[key]
            await here.put(street[0], 3, READINGS)
            await here.delivered()
        here.check(server)


async def test_what_a_board_hangs_on_is_made_again_when_all_of_it_was_removed(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    (one,) = boards()
    async with city(tmp_path, server.url, one) as here:
        async with here.delivering():
            await here.put(one, 2)
            await here.delivered()
            here.check(server)
            await remove_all(server)
            here.values.clear()
            await here.put(one, 2)
            await here.delivered()
        here.check(server)


async def remove_all(server: SensorThingsServer) -> None:
    """Every entity, as somebody at the platform can."""
    from aiohttp import ClientSession

    async with ClientSession() as session:
        for collection in ("Things", "Sensors", "ObservedProperties", "Locations", "FeaturesOfInterest"):
            async with session.get(f"{server.url}/{collection}?$top=100") as answer:
                found = json.loads(await answer.read())["value"]
            for entity in found:
                await session.delete(entity["@iot.selfLink"])
