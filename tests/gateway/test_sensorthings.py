"""The sensorthings route on a real server: once each, or a dead letter.

What may happen on the way is swept in hil_tests/test_sensorthings_faults_lose_no_observation.py.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.gateway.faulty_way import PASS, Done, FaultyWay, Request
from tests.gateway.parts import until
from tests.gateway.platform import boards, city, stored

from laterne_emulator.sensorthings_server import SensorThingsServer
from laterne_gateway.__main__ import run_command
from laterne_gateway.routes import sta_looking, sta_sending
from laterne_gateway.routes.feed import LEFT_BEHIND

Rule = Callable[[Request], str | int | Done]
REPORTS, READINGS = 20, 6


pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_a_server_that_was_away_gets_what_has_waited(tmp_path: Path, server: SensorThingsServer) -> None:
    street = boards()
    async with city(tmp_path, server.url, *street) as here:
        await here.put(street[0], REPORTS, READINGS)
        server.stop()
        async with here.delivering():
            await here.delivered_counts("requests failed", 3)
            assert any("cannot be used" in alarm for alarm in here.alarms())
            await asyncio.to_thread(server.start)
            await here.delivered()
        here.check(server)


async def test_a_route_with_nothing_to_send_notices_that_its_server_is_back(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    async with FaultyWay(server).open() as way, city(tmp_path, way.url) as here:
        way.rule = lambda request: 401
        async with here.delivering():
            await here.delivered_counts("requests failed", 3)
            assert any("401" in alarm for alarm in here.alarms())
            way.rule = lambda request: PASS
            await until(lambda: not here.alarms())


async def test_a_server_killed_again_and_again_has_each_observation_once(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    street = boards(3)
    async with city(tmp_path, server.url, *street) as here:
        for board in street:
            await here.put(board, 100, READINGS)
        async with here.delivering(rows=20):
            for kill in range(3):
                await here.delivered_counts("observations delivered", 300 * (kill + 1))
                server.stop()
                await asyncio.to_thread(server.start)
            await here.delivered()
        here.check(server)


def refuses(sequence: int, position: int, status: int) -> Rule:
    """The platform does not take one row, nor any request that has it."""
    mark = f'"sequence":{sequence},"digest"'.encode()
    place = f'"position":{position},'.encode()

    def rule(request: Request) -> str | int | Done:
        if not request.creates:
            return PASS
        bodies = request.body.split(b'"board"')
        return status if any(mark in one and place in one for one in bodies) else PASS

    return rule


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_row_that_is_refused_is_a_dead_letter_and_the_others_are_delivered(
    tmp_path: Path, server: SensorThingsServer, status: int
) -> None:
    street = boards(2)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = refuses(7, 3, status)
        await here.put(street[0], 30, READINGS)
        await here.put(street[1], 5, READINGS)
        async with here.delivering():
            await here.delivered()
        bad = (street[0].name, 7, 3)
        here.check(server, bad)
        (letter,) = await here.dead()
        assert (letter.board, letter.sequence, letter.place) == (street[0].name, 7, "air-temperature/3")
        assert str(status) in letter.reason
        assert any("dead list" in alarm for alarm in here.alarms())


async def test_a_row_that_is_refused_and_stored_all_the_same_is_no_dead_letter(
    tmp_path: Path, server: SensorThingsServer
) -> None:
    """As when a proxy passes a request on twice: the second one is a conflict."""
    street = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:

        def rule(request: Request) -> str | int | Done:
            if not request.creates:
                return PASS
            said = json.loads(request.body)
            return Done(409) if isinstance(said, list) and len(said[0]["dataArray"]) == 1 else 409

        way.rule = rule
        await here.put(street[0], 2, 2)
        async with here.delivering():
            await here.delivered()
        here.check(server)
        assert await here.dead() == []


async def test_a_dead_letter_is_listed_and_sent_again_while_the_gateway_runs(
    tmp_path: Path, server: SensorThingsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[gateway]\nid = "gw-1"\ntenant = "testingen"\ndirectory = "state"\ntrust = "trust.cbor"\n'
        'roster = "roster.cbor"\ncredential = "gateway.cbor"\n[mqtt]\nurl = "mqtt://b"\n'
        '[[line]]\nname = "a"\npath = "a"\n[[route]]\nname = "city"\nkind = "sensorthings"\nurl = "http://c/v1.1"\n'
    )

    async def command(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(run_command, [*words, "--config", str(config), "--json"])
        return status, capsys.readouterr().out

    street = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        way.rule = refuses(3, 1, 422)
        await here.put(street[0], 5, READINGS)
        async with here.delivering():
            await here.delivered()
            status, out = await command("dead", "list")
            (told,) = json.loads(out)["dead_letters"]
            assert (status, told["board"], told["sequence"], told["again"]) == (0, street[0].name, 3, False)
            assert told["body"]["value"] == here.values[street[0].name, 3, 1]
            # Still refused: it stays, with a new number of tries and nothing lost.
            assert await command("dead", "retry", str(told["id"])) == (0, '{"marked": 1}\n')
            await here.delivered_counts("dead letters sent again", 1)
            assert len(await here.dead()) == 1
            way.rule = lambda request: PASS
            await command("dead", "retry")
            await here.delivered_counts("dead letters sent again", 2)
            await asyncio.sleep(0)  # it is taken out in the next commit
            await here.parts.buffer.write(lambda db, _: None)
            assert await here.dead() == []
        here.check(server)
        assert (await command("dead", "retry"))[0] == 1, "nothing is left to send again"


async def test_what_a_killed_process_had_sent_is_not_stored_again(tmp_path: Path, server: SensorThingsServer) -> None:
    """Its lanes had not moved on the disk: the next process finds every report waiting."""
    street = boards(2)
    before = tmp_path / "disk.sqlite3"
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        for board in street:
            await here.put(board, 100, READINGS)
        await here.parts.reopen()
        shutil.copy(tmp_path / "state" / "gateway.sqlite3", before)
        # Killed amid it: what is under way is cut off.
        async with here.delivering(rows=50):
            await here.delivered_counts("observations delivered", 700)
        await here.parts.buffer.close()
        for file in (tmp_path / "state").glob("gateway.sqlite3*"):
            file.unlink()
        shutil.copy(before, tmp_path / "state" / "gateway.sqlite3")
        await here.parts.open()
        looks = len(way.requests)
        async with here.delivering(rows=50):
            await here.delivered()
        here.check(server)
        assert here.counted("observations that were there already") >= 700
        read = [one for one in way.requests[looks:] if "/Observations?" in one.path]
        assert len(read) < 2 * 100 * READINGS / 50 + 4, "it looks in requests' sizes, and not for what was never sent"


async def test_what_went_past_rows_at_which_a_server_fails_is_found_by_the_next_process(
    tmp_path: Path, server: SensorThingsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks until so many in a row are not there: that must be more than others may have gone past."""
    monkeypatch.setattr(sta_looking, "CERTAIN", 10)
    monkeypatch.setattr(sta_sending, "MAX_BEHIND", 5)
    (one,) = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, one) as here:
        failing = [refuses(1, position, 500) for position in range(15)]
        way.rule = lambda request: next((said for rule in failing if (said := rule(request)) != PASS), PASS)
        await here.put(one, 2, 20)
        async with here.delivering(rows=5):
            await here.delivered_counts("single rows on which the server failed", 40)
        await here.parts.reopen()
        way.rule = lambda request: PASS
        async with here.delivering(rows=5):
            await here.delivered()
        here.check(server)


async def test_live_reports_overtake_what_an_outage_left_behind(tmp_path: Path, server: SensorThingsServer) -> None:
    street = boards()
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        await here.put(street[0], LEFT_BEHIND + 30, 1)
        async with here.delivering(backlog_a_second=5):
            await here.delivered_counts("observations delivered", 1)
            await here.put(street[0], 3, 1)
            await here.delivered_counts("reports delivered", 3)
            found = [one.sequence for one in stored(server, street[0].name)]
            assert {LEFT_BEHIND + 31, LEFT_BEHIND + 32, LEFT_BEHIND + 33} <= set(found)
            assert len(found) < LEFT_BEHIND, "the backlog goes at its own pace"


async def test_one_request_at_a_time_is_under_way_for_a_datastream(tmp_path: Path, server: SensorThingsServer) -> None:
    """The way counts what is between a request and its answer."""
    street = boards(3)
    async with FaultyWay(server).open() as way, city(tmp_path, way.url, *street) as here:
        for board in street:
            await here.put(board, 60, READINGS)
        async with here.delivering(rows=30, parallel=8):
            await here.delivered()
        here.check(server)
        assert way.most_together == 1
        assert all(len(json.loads(one.body)[0]["dataArray"]) <= 30 for one in way.requests if one.creates)


def test_a_gateway_with_such_a_route_does_not_load_an_http_library() -> None:
    """aiohttp takes 10 MiB of the 48 that a gateway may have."""
    code = "import sys, laterne_gateway.routes.sensorthings, laterne_gateway.running; print('aiohttp' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
